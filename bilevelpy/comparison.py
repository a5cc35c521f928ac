"""Several backends on one model, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.plotting import convergence
from bilevelpy.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Comparison:
    """``results`` by backend; ``refused`` says why one did not run. Prints as a table."""

    model: str
    results: Mapping[str, Result]
    refused: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One row per backend that ran."""
        found = []
        for name, r in self.results.items():
            certificate = r.certificate
            found.append(
                {
                    "backend": name,
                    "status": r.status.value,
                    "F": r.F,
                    "hypergradient_norm": None
                    if certificate is None
                    else certificate.hypergradient_norm,
                    "iterations": r.iterations,
                    "evaluations": sum(r.counts.values()),
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
        head = f"{'backend':<10} {'status':<16} {'F':>16} "
        head += f"{'hypergrad.':>10} {'iter.':>6} {'eval.':>8} {'s':>8}"
        lines = [head, "-" * len(head)]
        for row in self.rows():
            norm = row["hypergradient_norm"]
            shown = "-" if norm is None else f"{norm:.1e}"
            lines.append(
                f"{row['backend']:<10} {row['status']:<16} {row['F']:>16.9g} {shown:>10} "
                f"{row['iterations']:>6} {row['evaluations']:>8} {row['seconds']:>8.3f}"
            )
        lines += [f"{name:<10} {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)
