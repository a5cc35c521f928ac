"""Coordinates in which the effect of penalties on a fit is linear.

A penalty ``s w^2 / 2`` beside a curvature S shrinks the weight w of a fit to the part
``S / (S + s)`` of what it is without. A quadratic upper objective is quadratic in this part, but
flat at both ends in the logarithm of s that most models have for x: there Newton's steps in x have
the length 1, however far the minimum is. With all other penalties held, S is the Schur complement
of the weights that x penalises, and the response itself says what it is::

    s(x + e) = s(x) (1 + a t(e)),    t = (exp(a e) - 1) / a,  or e where s is linear (a = 0)
    q = -(f_yx' dy/dx) / (f_yx' y),    p = t / (1 + q t),    t = p / (1 - q p)

The part falls like ``1 - q p``, and p is at e = 0 as long as x. For exponentials, ``q / a`` is what
the penalty takes of the weight. Where s falls with x (a < 0: logarithms of variances), the part
grows with p, and q < 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

# A step leaves at least this part of what is left of a weight, and of what a penalty takes of it:
# beyond is another valley.
LEFT = 0.1
# The parts that penalties take are kept so far from 0 and 1.
INSIDE = 1e-9
# A part so far above 1 is no rounding: what x weighs has both signs, which is no penalty.
BEYOND = 1e-3
# Linear growth is that of exponentials of so small a rate, to rounding.
LINEAR = 1e-9
# Rooms that are none.
TINY = 1e-300
# Exponents beyond are taken for this one: farther out, parts are lost in rounding.
RANGE = 20.0


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """The coordinates p around a point. Variables that are no penalties keep their own, to
    rounding.
    """

    at: Array
    q: Array
    rate: Array

    @classmethod
    def of(cls, x: Array, y: Array, mixed: Array, R: Array, rates: Array, low: Array) -> Shrinkage:
        """By f_yx, ``R = dy/dx`` at a point, the rates of growth, NaN for no penalty, and the
        lower bounds of x. As long as f_yy is positive definite there, a linear penalty has
        ``1 + q (low - x) > 0``, as an exponential has ``q < a``.
        """
        side, rate = np.where(rates < 0.0, -1.0, 1.0), np.fmax(np.abs(rates), LINEAR)
        lost, size = -np.add.reduce(mixed * R), side * y.dot(mixed)
        room = 1.0 / rate
        np.subtract(x, low, out=room, where=rates == 0.0)
        # Weights of 0 tell nothing: half is the coordinate that does not bend.
        plain = np.isnan(rates) | ~(size > 0.0) | (lost * room > (1.0 + BEYOND) * size)
        q = np.divide(lost, size, out=0.5 * rate, where=~plain)
        most = (1.0 - INSIDE) / np.maximum(room, TINY)
        return cls(x, side * np.minimum(np.maximum(q, INSIDE * rate), most), side * rate)

    @property
    def bend(self) -> Array:
        """``x''(p)`` at the point: times the slope, the curvature that F has in p and not in x."""
        return 2.0 * self.q - self.rate

    def coordinates(self, x: Array) -> Array:
        """p of x; rows of several x, too."""
        t = np.expm1(self._exponent(x)) / self.rate
        found: Array = t / (1.0 + self.q * t)
        return found

    def ends(self, p: Array, box: Array) -> tuple[Array, Array]:
        """How far a step from p goes: the lower and upper bounds of x are rows of the box."""
        # Penalties that fall with x are those that rise with -x.
        side, q = np.sign(self.rate), np.abs(self.q)
        rest = np.abs(self.rate) - q
        p, bounds = side * p, side * self.coordinates(box)
        low, high = bounds.min(0), bounds.max(0)
        # What the penalty takes grows like 1 + rest p, where it grows exponentially.
        least = (LEFT * (1.0 + rest * p) - 1.0) / rest
        low = np.where(rest > 0.0, np.maximum(low, least), low)
        high = np.minimum(high, (1.0 - LEFT * (1.0 - q * p)) / q)
        return np.where(side > 0.0, low, -high), np.where(side > 0.0, high, -low)

    def point(self, p: Array) -> Array:
        """x of p."""
        t = p / (1.0 - self.q * p)
        found: Array = self.at + np.log1p(self.rate * t) / self.rate
        return found

    def slope(self, x: Array) -> Array:
        """``dx/dp = (1 + q t)^2 exp(-a e)``, by x: in p, both of its parts cancel far out."""
        exponent = self._exponent(x)
        whole = 1.0 + self.q / self.rate * np.expm1(exponent)
        found: Array = whole * whole * np.exp(-exponent)
        return found

    def _exponent(self, x: Array) -> Array:
        found: Array = np.minimum(np.maximum(self.rate * (x - self.at), -RANGE), RANGE)
        return found
