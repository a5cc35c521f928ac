"""How far a run has come: the best point so far, and whether its bounds can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevelpy.backends.exact.engine.scip import LOST

Array = np.ndarray[Any, np.dtype[Any]]

# Bounds that contradict each other by more than this (relative) are no rounding.
APART = 1e-3


@dataclass(slots=True)
class Progress:
    """The best bilevel feasible point so far, the bound, and the followers' least values there.

    ``watch`` is told of every better point (values, objective, bound); ``stopped`` says that it
    wanted no more.
    """

    best: Array | None = None
    objective: float = math.inf
    bound: float = -math.inf
    solved: dict[int, float] = field(default_factory=dict)
    nodes: int = 0
    why: str = ""
    watch: Callable[[Array, float, float], bool] | None = None
    stopped: bool = False

    def keep(self, values: Array, objective: float, solved: dict[int, float]) -> None:
        """A bilevel feasible point; it is kept where it is better than the best one. One that is
        lost in the distance is none: rounding decides there.
        """
        if objective < self.objective and float(np.abs(values).max(initial=0.0)) < LOST:
            self.best, self.objective, self.solved = values, objective, dict(solved)
            self.seen(values, objective, self.bound)

    def seen(self, values: Array, objective: float, bound: float) -> bool:
        """A better point is shown; whether the run has to stop."""
        if self.watch is not None and not self.stopped:
            self.stopped = self.watch(values, objective, bound)
        return self.stopped


def contradicts(bound: float, settled: float, state: Progress) -> bool:
    """Whether the optimal value of a relaxation is not true: below that of one with fewer cuts, or
    above F at a point in hand. Nothing that it has said then counts.
    """
    best = state.objective if state.best is not None else math.inf
    falls = settled - bound > APART * max(1.0, abs(settled))
    exceeds = bound - best > APART * max(1.0, abs(best))
    if not (falls or exceeds):
        return False
    state.why = "SCIP contradicts itself on the relaxations: no bound of theirs is believed"
    return True
