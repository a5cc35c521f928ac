"""What a solve returns: values, status, certificate, history. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import NotConverged, UsageError
from bilevelpy.system import storage

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


# Evaluations that every answer in JSON has a number of; a method that works on rows makes none.
COUNTED = ("F", "f", "grad_F", "grad_f", "hvp")


class Status(StrEnum):
    """How a run ended; ``converged`` only where the certificate supports it."""

    CONVERGED = "converged"
    STALLED = "stalled"
    ITERATION_LIMIT = "iteration_limit"
    TIME_LIMIT = "time_limit"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Residuals recomputed independently of the backend at the returned point.

    ``lower_gap`` is ``f(x, y) - min f(x, .)`` over all re-solves (absolute), ``lower_gap_relative``
    the same over ``max(1e-12, |f|)`` on the scale of f; ``lower_stationarity`` the projected
    gradient norm of f in y; ``hypergradient_norm`` the projected norm of dPhi/dx at the re-solved
    y; ``directional_check`` the relative mismatch of a finite difference of Phi and the
    hypergradient along one direction. ``kind`` is "global", "local" or "none".
    """

    kind: str
    lower_gap: float
    lower_gap_relative: float
    lower_stationarity: float
    lower_feasibility: float
    upper_feasibility: float
    hypergradient_norm: float
    directional_check: float | None
    reasons: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        from bilevelpy.markup import plain

        return plain.certificate(self)

    def _repr_html_(self) -> str:
        from bilevelpy.markup import fragments

        return fragments.certificate(self)


@dataclass(frozen=True, slots=True)
class Record:
    """One outer iteration in the history; ``x`` is kept where it is one or two numbers."""

    iteration: int
    time: float
    F: float
    f: float
    hypergradient_norm: float
    lower_residual: float
    counts: Mapping[str, int]
    reports: Mapping[str, float] = field(default_factory=dict)
    x: tuple[float, ...] = ()


@dataclass(repr=False)
class Result:
    """The answer to a solve; ``result["lam"]`` is the value of a variable of either level.

    Attributes
    ----------
    status, message
        How the run ended (a :class:`Status`), and in words; ``success`` is True where it is
        "converged", which the certificate then supports.
    F, f
        The upper objective, and the lower ones by level, in the sense of the model.
    upper, lower
        Arrays by the names of variables, lower ones by level first; the axis of a family is the
        first one.
    duals
        Shadow prices by ``"fit.cap"``, where they are known; :meth:`dual` says how to get others.
    reports
        Values of the model's ``report`` lines.
    certificate
        What was found when the answer was examined (a :class:`Certificate`); None where that was
        not asked for.
    backend, decision
        The method that found the answer, and why it was chosen.
    iterations, counts, time
        Outer iterations, evaluations by kind, seconds by phase.
    history
        A :class:`Record` for each outer iteration; :meth:`to_pandas` makes a table of it.
    warnings
        What the user should know about the answer.
    provenance
        Versions, hashes of model and data, seed and options.
    """

    model: str
    status: Status
    message: str
    F: float
    f: Mapping[str, float]
    upper: Mapping[str, np.ndarray]
    lower: Mapping[str, Mapping[str, np.ndarray]]
    reports: Mapping[str, Any]
    certificate: Certificate | None
    backend: str
    decision: Any
    iterations: int
    counts: Mapping[str, int]
    time: Mapping[str, float]
    history: list[Record]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    duals: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kind = self.certificate.kind if self.certificate is not None else "missing"
        return (
            f"<Result of {self.model}: {self.status}, F = {self.F:.10g}, {self.backend}, "
            f"certificate {kind}>"
        )

    def __str__(self) -> str:
        from bilevelpy.markup import plain

        return plain.result(self)

    def _repr_html_(self) -> str:
        from bilevelpy.markup import fragments, html

        shown = fragments.result(self)
        if len(self.history) < 2:
            return shown
        try:
            drawn = html.figure(self.plot(), "Convergence of the run")
        except UsageError:  # without matplotlib the tables have to do
            return shown
        return f"{shown}\n{drawn}"

    @property
    def success(self) -> bool:
        """True only for a converged run whose certificate is local or global."""
        return self.status is Status.CONVERGED

    def __getitem__(self, name: str) -> np.ndarray:
        """The value of a variable: ``"lam"``, or ``"fit.w"`` where a name is not unique
        (``"upper.lam"`` of the leader).
        """
        if name in self.upper:
            return self.upper[name]
        follower, _, short = name.rpartition(".")
        levels = {"upper": self.upper, **self.lower}
        found = [v[short] for k, v in levels.items() if short in v and follower in ("", k)]
        if len(found) == 1:
            return found[0]
        known = [*self.upper, *(f"{k}.{v}" for k, vs in self.lower.items() for v in vs)]
        problem = "no variable" if not found else "several variables are called"
        raise KeyError(f"{problem} `{name}`; there are: {', '.join(known)}")

    def raise_for_status(self) -> Result:
        """Return self, or raise :class:`~bilevelpy.errors.NotConverged` where there is no certified
        answer.
        """
        if not self.success:
            raise NotConverged(f"{self.status}: {self.message}")
        return self

    def to_pandas(self) -> pandas.DataFrame:
        """The history as a data frame, one row per outer iteration; counts and reports of the same
        name as a column before them are called ``counts.F``, ``reports.F``.
        """
        import pandas as pd

        rows = []
        for r in self.history:
            row: dict[str, Any] = {
                "iteration": r.iteration,
                "time": r.time,
                "F": r.F,
                "f": r.f,
                "hypergradient_norm": r.hypergradient_norm,
                "lower_residual": r.lower_residual,
            }
            for kind, values in (("counts", r.counts), ("reports", r.reports)):
                row |= {f"{kind}.{k}" if k in row else k: v for k, v in values.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def dual(self, name: str) -> np.ndarray:
        """The multipliers of a lower constraint, ``"fit.cap"``.

        Raises
        ------
        KeyError
            The backend found none of that name.
        """
        if name not in self.duals:
            raise KeyError(
                f"no multipliers of `{name}`; there are: {', '.join(self.duals) or 'none'}; "
                f"`report price = dual({name});` in the model asks for a backend that finds them"
            )
        return self.duals[name]

    def as_dict(self) -> dict[str, Any]:
        """The answer in JSON types: the object that ``bilevelpy solve --json`` prints."""
        from bilevelpy import __version__

        content = {
            "model": self.model,
            "status": self.status.value,
            "success": self.success,
            "message": self.message,
            "backend": self.backend,
            "objective": {"upper": self.F, "lower": self.f},
            "upper": self.upper,
            "lower": self.lower,
            "duals": self.duals,
            "reports": self.reports,
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "warnings": self.warnings,
            "iterations": self.iterations,
            "counts": {**dict.fromkeys(COUNTED, 0), **self.counts},
            "time": self.time,
            "version": self.provenance.get("versions", {}).get("bilevelpy", __version__),
        }
        plain: dict[str, Any] = storage.plain(content)
        return plain

    def save(self, path: str | Path) -> None:
        """Write everything to ``.json`` (readable by anything) or ``.npz`` (compact);
        ``load_result`` reads both.

        The file is complete or absent: it is written beside its place and moved there.

        Raises
        ------
        UsageError
            The name ends otherwise, or the file cannot be written.
        """
        suffix = storage.path_given(path, "save").suffix.lower()
        if suffix == ".json":
            storage.write_json(path, self._content())
        elif suffix == ".npz":
            storage.write_npz(path, *self.parts())
        else:
            raise UsageError(f"a result is saved as .json or .npz, not as `{Path(path).name}`")

    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and all else in JSON types; :func:`result_of` takes both."""
        arrays = {f"upper/{name}": value for name, value in self.upper.items()}
        arrays |= {
            f"lower/{k}/{n}": value for k, vs in self.lower.items() for n, value in vs.items()
        }
        arrays |= {f"duals/{name}": value for name, value in self.duals.items()}
        return arrays, self._content() | {"upper": {}, "lower": {}, "duals": {}}

    def _content(self) -> dict[str, Any]:
        plain = isinstance(self.decision, Mapping)
        return self.as_dict() | {
            "decision": self.decision if plain else _decision(self.decision),
            "provenance": self.provenance,
            "history": [asdict(record) for record in self.history],
        }

    def plot(
        self,
        path: str | Path | None = None,
        *,
        kind: str = "convergence",
        model: Any = None,
        **options: Any,
    ) -> Figure:
        """A picture of the run; written to ``path`` (.png, .svg) if one is given.

        ``kind`` "convergence" shows the run against time and evaluations. The other kinds need the
        ``model`` that was solved: "landscape", "response" (``along="lam"``), "network", "images",
        "values"; :meth:`Model.picture` documents them.

        Raises
        ------
        UsageError
            The kind needs a model, or the model has no such picture.
        """
        if kind != "convergence":
            if model is None:
                raise UsageError(f"the picture `{kind}` needs the model: plot(kind=..., model=...)")
            drawn: Figure = model.picture(self, kind, path, **options)
            return drawn
        if options:
            raise UsageError(f"the picture `convergence` takes no {', '.join(options)}")
        from bilevelpy.plotting import convergence

        return convergence(
            {self.backend: self.history}, title=f"{self.model}: {self.status}", path=path
        )


def _decision(decision: Any) -> Any:
    """A decision in JSON types."""
    return None if decision is None else decision.to_json()
