"""Reports followed along a run: when the best value was passed, and stopping by one of them.

Many upper variables overfit the data that the upper level sees. A report on data that neither level
sees tells when: ``watch=["max test_accuracy"]`` says at which iteration it was best, and
``stop_by="max test_accuracy"`` ends the run and returns that point, after a resume too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bilevelpy.errors import UsageError
from bilevelpy.options import near_or_all
from bilevelpy.records.checkpoint import Best, Saved, counted_on
from bilevelpy.result import Record, Status

if TYPE_CHECKING:
    import numpy as np

    from bilevelpy.ir.program import Program
    from bilevelpy.numerics.driver.loop import RunResult

# Ends from which there is nothing to go back to.
LOST = (Status.DIVERGED, Status.INFEASIBLE, Status.UNBOUNDED)
SENSES = {"max": -1.0, "min": 1.0}


@dataclass(frozen=True, slots=True)
class Watched:
    """A report, and the sign that makes less of it better; None where it is only recorded."""

    name: str
    sign: float | None = None

    @classmethod
    def read(cls, text: str, program: Program, option: str) -> Watched:
        """``"max test_accuracy"``, ``"min test_loss"`` or ``"test_loss"``."""
        first, _, rest = text.strip().partition(" ")
        sign = SENSES.get(first) if rest else None
        name = rest.strip() if sign is not None else text.strip()
        known = program.reports
        if name not in known:
            hint = near_or_all(name, list(known))
            raise UsageError(f"{option}: there is no report `{name}`{hint}")
        if known[name].value.axes:
            raise UsageError(f"{option}: report `{name}` is not a single number")
        return cls(name, sign)


class Stop:
    """Ends a run when a report has not become better for ``patience`` iterations, and goes back to
    where it was best, whatever ended the run. ``earlier`` is a run that this one goes on from:
    iterations and the best point are counted over both.
    """

    def __init__(self, watched: Watched, patience: int, earlier: Saved | None = None) -> None:
        if watched.sign is None:
            raise UsageError(f"stop_by takes `max {watched.name}` or `min {watched.name}`")
        self.watched, self.sign, self.patience = watched, watched.sign, patience
        self.by = f"{'max' if self.sign < 0 else 'min'} {watched.name}"
        self.before = earlier.history[-1] if earlier is not None and earlier.history else None
        # The best of a run that another report was to end is none of this one.
        known = earlier.best if earlier is not None else None
        self.best: Best | None = known if known is not None and known.by == self.by else None
        self.last: Record | None = None
        self.done = False

    def observe(self, record: Record, x: np.ndarray, y: np.ndarray) -> bool:
        """Whether to stop."""
        if record.iteration == 0 and self.last is not None:
            self.before = self.last  # what a run of less precision began
        self.last = record if self.before is None else counted_on(self.before, record)
        value = self._value(self.last)
        if math.isfinite(value) and (self.best is None or value < self._value(self.best.record)):
            self.best = Best(self.by, self.last, x, y)
        since = self.last.iteration - (self.best.record.iteration if self.best is not None else 0)
        self.done = since >= self.patience
        return self.done

    def _value(self, record: Record) -> float:
        return self.sign * record.reports[self.watched.name]

    def settle(self, raw: RunResult) -> RunResult:
        """The run at its best point, unless the last one is as good."""
        if self.best is None or self.last is None or raw.status in LOST:
            return raw
        best, name = self.best.record, self.watched.name
        # A last value that is no number is not as good.
        if not self.done and self._value(self.last) <= self._value(best):
            return raw
        ended = f"stopped by `{name}`: " if self.done else f"{raw.message}; `{name}` was "
        told = f"best at iteration {best.iteration} ({best.reports[name]:.6g}), which is returned"
        return replace(
            raw,
            x=torch.from_numpy(self.best.x.copy()),
            y=torch.from_numpy(self.best.y.copy()),
            F=best.F,
            f=best.f,
            status=Status.STALLED if self.done or raw.candidate else raw.status,
            message=f"{ended}{told}",
            candidate=False,
            hypergradient_norm=best.hypergradient_norm,
            lower_residual=best.lower_residual,
        )


def passed(watched: Sequence[Watched], history: Sequence[Record]) -> list[str]:
    """A sentence for each report whose best value the run went past."""
    found = []
    for w in watched:
        rows = [r for r in history if w.name in r.reports and math.isfinite(r.reports[w.name])]
        if w.sign is None or not rows:
            continue
        sign = w.sign

        def score(record: Record, name: str = w.name, sign: float = sign) -> float:
            return sign * record.reports[name]

        best, last = min(rows, key=score), rows[-1]
        if score(best) < score(last):
            found.append(
                f"`{w.name}` was best at iteration {best.iteration} of {last.iteration}, after "
                f"{best.time:.2g} s: {best.reports[w.name]:.6g}, and {last.reports[w.name]:.6g} "
                f"at the end (to end there: stop_by)"
            )
    return found
