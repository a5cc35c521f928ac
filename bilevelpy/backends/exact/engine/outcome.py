"""What a run of SCIP is given beside its problem, and what it ends with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.pace import Pace

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How SCIP ended.

    ``status`` is "optimal", "infeasible", "unbounded", "unclear" (one of the two), "time_limit",
    "interrupted", "hopeless" (the pace of its bound) or "trouble" (SCIP failed); ``values`` are
    those of the columns, None without a point;
    ``bound`` is a proved lower bound of the minimised objective; ``others`` are worse points that
    were met on the way, the best ones first.
    """

    status: str
    values: Array | None
    objective: float
    bound: float
    nodes: int
    time: float
    others: tuple[Array, ...] = ()

    @property
    def gap(self) -> float:
        """Distance of objective and bound, relative to the larger of the two and 1."""
        if self.values is None or not math.isfinite(self.bound):
            return math.inf
        return max(self.objective - self.bound, 0.0) / max(1.0, abs(self.objective))


@dataclass(frozen=True, slots=True)
class Limits:
    """When SCIP stops: seconds, relative gap, shift of its random seed, how far rows may be off."""

    seconds: float = math.inf
    gap: float = 1e-6
    seed: int = 0
    feasible: float = 1e-6


@dataclass(frozen=True, slots=True)
class Interlude:
    """What happens after so many seconds of a long run: ``point`` looks for a good point.
    ``watcher`` is told of every better point of SCIP, and stops the run; so does ``pace`` where a
    proof will not come to its end.
    """

    after: float
    point: Callable[[], Array | None]
    watcher: Watcher | None = None
    pace: Pace | None = None


class Watcher(Protocol):
    """Who is told of better points."""

    def seen(self, values: Array, objective: float, bound: float) -> bool:
        """A better point; whether the run has to stop."""
        ...
