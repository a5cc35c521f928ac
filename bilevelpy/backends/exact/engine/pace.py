"""Whether a proof comes to its end in the time that it has: the bound of a search, watched."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Seconds of search after which a proof is judged for the first time.
SOONEST = 3.0
# A bound that closes the gap in so many times of what is left, at its pace of late, does not: it
# slows down more often than not, but ends with a leap.
TIMES = 4.0
# A gap (relative) that a better point may close at any time.
NARROW = 0.05


@dataclass(slots=True)
class Pace:
    """Seconds of a search, and its bounds then."""

    seen: list[tuple[float, float]] = field(default_factory=list)

    def see(self, seconds: float, bound: float) -> None:
        """The bound after so many seconds."""
        self.seen.append((seconds, bound))

    def is_hopeless(self, left: float, objective: float) -> bool:
        """Whether the bound, at the pace of the last half of the search, will not meet the best
        objective by far in the seconds that are left; without a bound it will not.
        """
        now, bound = self.seen[-1]
        if now < SOONEST:
            return False
        if not math.isfinite(bound):
            return True
        then, before = next(p for p in self.seen if p[0] >= 0.5 * now)
        if not math.isfinite(objective) or not math.isfinite(before) or then == now:
            return False
        gap = objective - bound
        if gap <= NARROW * max(1.0, abs(objective)):
            return False
        return gap > (bound - before) / (now - then) * TIMES * left
