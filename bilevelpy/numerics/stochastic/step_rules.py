"""Lengths of stochastic upper steps that need no constants: Polyak steps and an Armijo search on
batches [Fan2023]_.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Growth of the longest step from one iteration to the next, and shrinking within a search.
GROW, SHRINK = 1.5, 0.5
BACKTRACKS = 12


@dataclass(slots=True)
class Polyak:
    """BiSPS: ``t = min(cap_k, (F_i - l) / (c |h|^2))`` with a falling ``cap_k``.

    ``l`` is a lower bound of F on a batch; the cap bounds the noise that stays.
    """

    cap: float
    bound: float = 0.0
    c: float = 0.5

    def length(self, F: float, slope: float, fall: float) -> float:
        """The step for the batch value ``F`` and ``slope = |h|^2 > 0``, cap times ``fall``."""
        if not slope > 0.0 or not math.isfinite(F):
            return 0.0
        return min(self.cap * fall, max(F - self.bound, 0.0) / (self.c * slope))


@dataclass(slots=True)
class Armijo:
    """BiSLS: the first ``t`` of ``cap, cap/2, ...`` with
    ``F(x(t), y(t)) <= F - c t |h|^2 + delta``.

    ``y(t)`` is the response after one lower step at ``x(t)``; ``delta`` makes up for its error.
    After every search the cap may grow again, so that steps do not only fall.
    """

    cap: float
    most: float
    c: float = 0.1

    def length(
        self, value: Callable[[float], float], slope: float, delta: float, fall: float
    ) -> float:
        """The accepted step; ``value(t)`` is F of the batch at ``x(t)``."""
        if not slope > 0.0:
            return 0.0
        start = value(0.0)
        t = min(self.cap * GROW, self.most * fall)
        for _ in range(BACKTRACKS):
            there = value(t)
            if there <= start - self.c * t * slope + delta:
                break
            t *= SHRINK
        self.cap = t
        return t
