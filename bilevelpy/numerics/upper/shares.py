"""Quasi-Newton steps in the shares that penalties leave of the weights of a fit.

A penalty s beside a curvature h of the fit leaves the part ``z = h / (h + s)`` of a weight, in
which upper objectives are nearly quadratic. In the logarithm of s, that most models have for x,
their slopes fade at both ends: pairs of steps there tell nothing of the way, and variables whose
best strength is at a bound creep there. With c the x at which s is h::

    z = 1 / (1 + exp(a (x - c))),    or c / (c + x) where s is linear (a = 0)

Penalties count by what they can change: the unit of z is ``sqrt(h) w / z``, the weight without its
penalty on the scale of the fit. Here h is the diagonal of f_yy alone, so that shares cost a pass
over the data where those of :mod:`bilevelpy.numerics.upper.shrinkage` take a column of dy/dx for
each variable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit

from bilevelpy.numerics.quasi_newton import BFGS

if TYPE_CHECKING:
    from bilevelpy.numerics.lower.response import Point

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

MEMORY = 30
# Steps for which shares are those of one point.
PERIOD = 20
# Squares of units have at least this part of their mean: a weight may be 0 by chance.
LEAST = 0.1
# Penalties beyond this factor of the curvature, or below its inverse, are taken for it.
RANGE = 1e12


@dataclass(frozen=True, slots=True)
class Shares:
    """The coordinates z by the rates a, the centres c and the units."""

    rate: Array
    centre: Array
    unit: Array

    @classmethod
    def at(cls, penalties: Any, x: Vec, y: Vec) -> Shares | None:
        """Those of a point; None where its derivatives are no numbers."""
        centre, size = penalties.beside(x, y)
        plain = cls(penalties.rates, centre, np.ones(len(centre)))
        with np.errstate(over="ignore", invalid="ignore"):
            squares = size / plain.of(x.numpy()) ** 2
            mean = float(squares.mean())
            unit = np.sqrt(squares / mean + LEAST) if mean > 0.0 else plain.unit
        found = cls(penalties.rates, centre, unit)
        return found if np.isfinite(centre).all() and np.isfinite(unit).all() else None

    def of(self, x: Array) -> Array:
        """z of x; rows of several x, too."""
        found: Array = self.unit * expit(self._exponent(x))
        return found

    def point(self, z: Array) -> Array:
        """x of z."""
        part = z / self.unit
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = self.centre - (np.log(part) - np.log1p(-part)) / self.rate
        found: Array = np.where(self.rate == 0.0, self.centre * (1.0 - part) / part, grown)
        return found

    def slope(self, x: Array) -> Array:
        """``dx/dz``, by x."""
        exponent = self._exponent(x)
        part, rest = expit(exponent), expit(-exponent)
        with np.errstate(divide="ignore"):
            grown = -1.0 / (self.rate * part * rest)
        found: Array = np.where(self.rate == 0.0, -self.centre / (part * part), grown) / self.unit
        return found

    def _exponent(self, x: Array) -> Array:
        """``log(h / s)``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = np.log(self.centre) - np.log(np.maximum(x, 0.0))
        exponent = np.where(self.rate == 0.0, linear, self.rate * (self.centre - x))
        most = np.log(RANGE)
        found: Array = np.minimum(np.maximum(exponent, -most), most)
        return found


def share_pairs(oracle: Any) -> SharePairs | None:
    """None where the lower level has bounds, where upper variables other than penalties exist or
    one has no end, or where the oracle knows no second derivatives.
    """
    domain = oracle.domain_x
    if not (oracle.n and oracle.m and oracle.domain_y.is_free and domain.is_box):
        return None
    box = np.stack([domain.lower.numpy(), domain.upper.numpy()])
    known = getattr(oracle, "second_order", None) if np.isfinite(box).all() else None
    if known is None:
        return None
    penalties = known.single_penalties
    if penalties is None or bool((box[0] < 0.0)[penalties.rates == 0.0].any()):
        return None
    return SharePairs(penalties, box)


class SharePairs:
    """L-BFGS steps in z on the face of the box. Every 20 steps the shares are those of the present
    point, and the pairs are made anew of the points before it.
    """

    def __init__(self, penalties: Any, box: Array) -> None:
        self.penalties, self._box = penalties, box
        self.shares: Shares | None = None
        self.memory = BFGS(0.0, MEMORY, rescale=True)
        self._course: deque[tuple[Array, Array]] = deque(maxlen=MEMORY + 1)
        self._steps = 0

    def step(
        self, point: Point, g: Array, free: np.ndarray[Any, np.dtype[np.bool_]] | None
    ) -> Array | None:
        """x less the end of the step; None before there is a pair."""
        x, slope = point.x.numpy(), point.g.numpy()
        self._follow(point)
        self._learn(x, slope)
        known = self.shares
        if known is None or not self.memory.pairs:
            return None
        z, ends = known.of(x), known.of(self._box)
        low, high = ends.min(0), ends.max(0)
        slope = slope * known.slope(x)
        moves = ~((z <= low) & (slope >= 0.0) | (z >= high) & (slope <= 0.0))
        kept = torch.from_numpy(moves.astype(np.float64))
        d = self.memory.restricted(lambda v: v * kept, torch.from_numpy(slope * moves)).numpy()
        end = np.minimum(np.maximum(z - d, low), high)
        # By differences: what does not move in z stays where it is.
        found = x - (known.point(z) - known.point(end))
        for bound, own in zip(self._box, ends, strict=True):
            found = np.where(end == own, bound, found)
        step: Array = x - found
        return step

    def reset(self) -> None:
        """Forget the pairs: their step led nowhere."""
        self.memory.reset()
        self._course.clear()

    def collect(self, trial: Callable[[], Point]) -> None:
        """Curvature is learned from accepted steps alone."""

    def carried(self) -> dict[str, Any]:
        """The shares, the points and their pairs."""
        known = self.shares
        return {
            "shares": None if known is None else (known.centre, known.unit),
            "steps": self._steps,
            "course": [list(pair) for pair in self._course],
            "memory": self.memory.carried(),
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As they were."""
        rates, shares = self.penalties.rates, known["shares"]
        course = [(x, g) for x, g in known["course"]]
        parts = [part for pair in (*course, *([shares] if shares else [])) for part in pair]
        if any(part.shape != rates.shape for part in parts):
            raise ValueError("the shares are of another size")
        self.shares = Shares(rates, *shares) if shares else None
        self._steps = int(known["steps"])
        self._course = deque(course, maxlen=MEMORY + 1)
        self.memory.restore(known["memory"], oracle)

    def _follow(self, point: Point) -> None:
        """Count shares anew from time to time, and all pairs with them."""
        self._steps += 1
        if self._steps % PERIOD != 1:
            return
        found = Shares.at(self.penalties, point.x, point.y)
        if found is None:
            return
        self.shares = found
        self.memory.reset()
        for before, after in pairwise(self._course):
            self._pair(before, after)

    def _learn(self, x: Array, g: Array) -> None:
        """One more pair, or the latest point with its slope computed anew."""
        if self._course and np.array_equal(self._course[-1][0], x):
            self._course[-1] = (x, g)
            return
        self._course.append((x, g))
        if len(self._course) > 1:
            self._pair(self._course[-2], self._course[-1])

    def _pair(self, before: tuple[Array, Array], after: tuple[Array, Array]) -> None:
        known = self.shares
        if known is None:
            return
        (x, g), (x_new, g_new) = before, after
        s = known.of(x_new) - known.of(x)
        d = g_new * known.slope(x_new) - g * known.slope(x)
        self.memory.update(torch.from_numpy(s), torch.from_numpy(d))
