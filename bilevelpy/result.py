"""What a solve returns: values, status, certificate, history. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import NotConverged

if TYPE_CHECKING:
    import pandas


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

    ``lower_gap`` is ``f(x, y) - min f(x, .)`` over all re-solves (absolute), ``lower_gap_relative`` the same over
    ``max(1e-12, |f|)`` on the scale of f; ``lower_stationarity`` the projected gradient norm of f in y;
    ``hypergradient_norm`` the projected norm of dPhi/dx at the re-solved y; ``directional_check`` the relative
    mismatch of a finite difference of Phi and the hypergradient along one direction. ``kind`` is "global", "local"
    or "none".
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


@dataclass(frozen=True, slots=True)
class Record:
    """One outer iteration in the history."""

    iteration: int
    time: float
    F: float
    f: float
    hypergradient_norm: float
    lower_residual: float
    counts: Mapping[str, int]
    reports: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Result:
    """The answer to a solve. ``upper`` and ``lower`` map names to arrays; ``result["lam"]`` finds either."""

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

    @property
    def success(self) -> bool:
        """True only for a converged run whose certificate is local or global."""
        return self.status is Status.CONVERGED

    def __getitem__(self, name: str) -> np.ndarray:
        """The value of a variable: ``"lam"``, or ``"fit.w"`` where a name is not unique."""
        if name in self.upper:
            return self.upper[name]
        follower, _, short = name.rpartition(".")
        found = [v[short] for k, v in self.lower.items() if short in v and follower in ("", k)]
        if len(found) == 1:
            return found[0]
        known = [*self.upper, *(f"{k}.{v}" for k, vs in self.lower.items() for v in vs)]
        problem = "no variable" if not found else "several variables are called"
        raise KeyError(f"{problem} `{name}`; there are: {', '.join(known)}")

    def raise_for_status(self) -> Result:
        """Return self, or raise :class:`~bilevelpy.errors.NotConverged` where there is no certified answer."""
        if not self.success:
            raise NotConverged(f"{self.status}: {self.message}")
        return self

    def to_pandas(self) -> pandas.DataFrame:
        """The history as a data frame, one row per outer iteration."""
        import pandas as pd

        rows = []
        for r in self.history:
            row: dict[str, Any] = {
                "iteration": r.iteration, "time": r.time, "F": r.F, "f": r.f,
                "hypergradient_norm": r.hypergradient_norm, "lower_residual": r.lower_residual,
            }
            rows.append(row | dict(r.counts) | dict(r.reports))
        return pd.DataFrame(rows)
