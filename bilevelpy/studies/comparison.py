"""Several backends on one model, side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import BackendError
from bilevelpy.plotting import convergence
from bilevelpy.result import Result, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Columns of a terminal.
WIDTH = 80


@dataclass(frozen=True, repr=False)
class Comparison:
    """``results`` by backend; ``refused`` says why one did not run, ``reasons`` says it in a few
    words where a backend does not take the model. Prints as a table, whose ``evals.`` are values,
    gradients and products together; :meth:`rows` has them apart.
    """

    model: str
    results: Mapping[str, Result]
    refused: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One row per backend that ran: how it ended, what the certificate says, and what it
        took. ``values``, ``gradients`` and ``products`` are evaluations of both levels.
        """
        found = []
        for name, r in self.results.items():
            c, counts = r.certificate, r.counts
            found.append(
                {
                    "backend": name if name == r.backend else f"{name}: {r.backend}",
                    "status": r.status.value,
                    "F": r.F,
                    "certificate": "-" if c is None else c.kind,
                    "hypergradient_norm": math.nan if c is None else c.hypergradient_norm,
                    "iterations": r.iterations,
                    "values": counts.get("F", 0) + counts.get("f", 0),
                    "gradients": counts.get("grad_F", 0) + counts.get("grad_f", 0),
                    "products": counts.get("hvp", 0) + counts.get("jvp", 0),
                    "seconds": r.time.get("solve", r.time.get("total", 0.0)),
                }
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything in JSON types."""
        results = {name: r.as_dict() for name, r in self.results.items()}
        return {"model": self.model, "results": results, "refused": dict(self.refused)}

    def plot(self, path: str | Path | None = None) -> Figure:
        """The convergence of all runs in one figure."""
        runs = {name: r.history for name, r in self.results.items()}
        return convergence(runs, title=self.model, path=path)

    def __repr__(self) -> str:
        head = ["backend", "status", "F", "cert.", "hypergrad.", "iter.", "evals.", "s"]
        rows = [head]
        for row in self.rows():
            norm, F = row["hypergradient_norm"], row["F"]
            evaluations = row["values"] + row["gradients"] + row["products"]
            rows.append(
                [
                    row["backend"],
                    row["status"],
                    "-" if math.isnan(F) else f"{F:.7g}",
                    row["certificate"],
                    "-" if math.isnan(norm) else f"{norm:.1e}",
                    str(row["iterations"]),
                    str(evaluations),
                    _seconds(row["seconds"]),
                ]
            )
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        left = (0, 1, 3)
        lines = [
            "  ".join(
                cell.ljust(width) if k in left else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        # Another refusal is a diagnostic of several lines: its first one says it.
        alike: dict[str, list[str]] = {}
        for name, reason in self.refused.items():
            alike.setdefault(self.reasons.get(name) or reason.splitlines()[0], []).append(name)
        for reason, names in alike.items():
            said = f"{', '.join(names)}: {reason}"
            lines += textwrap.wrap(said, WIDTH, subsequent_indent="  ", break_long_words=False)
        return "\n".join(lines)


def _seconds(time: float) -> str:
    """Milliseconds of short runs, and at most six characters up to eleven days."""
    return f"{time:.3f}" if time < 10.0 else f"{time:.1f}" if time < 1000.0 else f"{time:.0f}"


def compared(model: str, backends: Iterable[str], solve: Callable[[str], Result]) -> Comparison:
    """One solve after another; one that was interrupted is the last."""
    results: dict[str, Result] = {}
    refused: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name in backends:
        if any(r.status is Status.INTERRUPTED for r in results.values()):
            refused[name] = "not run: interrupted"
            continue
        try:
            results[name] = solve(name)
        except BackendError as error:
            refused[name] = str(error)
            if error.reason:
                reasons[name] = error.reason.removeprefix(f"`{name}` ")
    return Comparison(model, results, refused, reasons)
