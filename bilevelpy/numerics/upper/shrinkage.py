"""Coordinates in which the effect of penalties on a fit is linear.

A penalty ``s w^2 / 2`` beside a curvature S shrinks the weight w of a fit to the part
``S / (S + s)`` of what it is without. A quadratic upper objective is quadratic in this part, but
flat at both ends in the logarithm of s that most models have for x: there Newton's steps in x have
the length 1, however far the minimum is. With all other penalties held, S is the Schur complement
of the weights that x penalises, and the response itself says what it is::

    s(x + e) = s(x) (1 + a t(e)),    t = (exp(a e) - 1) / a,  or e where s is linear (a = 0)
    q = -(f_yx' dy/dx) / (f_yx' y),    p = t / (1 + q t),    t = p / (1 - q p)

The part falls linearly in p, which at e = 0 is as long as x. For exponentials, ``q / a`` is the
part that the penalty takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

# Steps go no farther than to this multiple of a penalty, or this part of it: beyond is another
# valley. Strengths that are x themselves, to these multiples of the curvature beside them.
FAR, FARTHEST = math.exp(4.0), 10.0
# The parts that penalties take are kept so far from 0 and 1.
INSIDE = 1e-9


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """The coordinates p around a point."""

    at: Array
    q: Array
    rate: float

    @classmethod
    def of(cls, x: Array, y: Array, mixed: Array, R: Array, rate: float) -> Shrinkage:
        """By f_yx and ``R = dy/dx`` at a point."""
        lost, size = -(mixed * R).sum(0), y.dot(mixed)
        # Weights of 0 tell nothing: half is the coordinate that does not bend.
        q = np.divide(lost, size, out=np.full_like(size, 0.5 * rate), where=size > 0.0)
        if rate:
            q = np.minimum(np.maximum(q, INSIDE * rate), (1.0 - INSIDE) * rate)
        else:
            q = np.maximum(q, INSIDE / np.maximum(np.abs(x), 1.0))
        return cls(x, q, rate)

    def ends(self, x: Array, box: Array) -> Array:
        """How far a step from x goes, in p: the lower and upper bounds of x are rows of the box."""
        if self.rate:
            below = above = math.log(FAR) / self.rate
        else:
            free = 1.0 / self.q + x - self.at
            below, above = (1.0 - 1.0 / FARTHEST) * free, (FARTHEST - 1.0) * free
        return self._coordinates(np.minimum(np.maximum(box - x, -below), above) + (x - self.at))

    @property
    def bend(self) -> Array:
        """``x''(p)`` at the point: times the slope, the curvature that F has in p and not in x."""
        return 2.0 * self.q - self.rate

    def coordinates(self, x: Array) -> Array:
        """p of x."""
        return self._coordinates(x - self.at)

    def point(self, p: Array) -> Array:
        """x of p."""
        t = p / (1.0 - self.q * p)
        found: Array = self.at + (np.log1p(self.rate * t) / self.rate if self.rate else t)
        return found

    def slope(self, p: Array) -> Array:
        """dx/dp."""
        rest = 1.0 - self.q * p
        found: Array = 1.0 / (rest * (rest + self.rate * p))
        return found

    def _coordinates(self, moved: Array) -> Array:
        t = np.expm1(self.rate * moved) / self.rate if self.rate else moved
        found: Array = t / (1.0 + self.q * t)
        return found
