"""Points far away, for an x on a plateau of F(x, y(x)): a gradient that vanishes on a whole
neighbourhood shows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from bilevelpy.numerics.linear_solve import norm

if TYPE_CHECKING:
    from bilevelpy.lowering.domains.product import ProductSet
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# Derivatives below this are what saturation leaves: they point nowhere.
UNDERFLOW = 1e-200
# Distances, in extents, at which a plateau is left; points nearer than the last are none.
FAR, NEAR = (1.0, 10.0, 100.0), 1e-2
# Parts of the way to the bounds at which one is left too.
PARTS = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
# Differences of F below this (relative) are rounding.
NOISE = 1e-10
# What is left to fall up to the bounds is none below this part of what F has fallen from the start.
LEFT = 1e-8


def left(domain: ProductSet, x: Vec, gradient: Vec) -> float:
    """By how much F falls from x up to the bounds at the slope that it has there: ``sum |g_i| times
    the way that is left``; infinite without bounds.
    """
    if not domain.is_box:
        return math.inf
    way = torch.where(gradient > 0.0, x - domain.lower, domain.upper - x)
    return float(torch.where(gradient == 0.0, 0.0, gradient.abs() * way).sum())


class Plateau:
    """A look far away from x, where F is ``here``: the ``lowest`` and the ``highest`` value met,
    and where the lowest is.
    """

    def __init__(self, oracle: Oracle, x: Vec, here: float, extent: float) -> None:
        self.oracle, self.x, self.here, self.extent = oracle, x, here, extent
        self.lowest = self.highest = here
        self.place: Vec | None = None

    @property
    def rises(self) -> bool:
        """Whether F is more than here somewhere."""
        return self.highest - self.here > self._noise

    @property
    def _noise(self) -> float:
        return NOISE * abs(self.here) + 1e-300

    def look(self, value: Callable[[Vec], float | None], rng: torch.Generator) -> None:
        """Ask for ``value`` along all ways; None or infinite where there is none."""
        for way in self._ways(rng):
            met = False
            for x in way:
                there = value(x)
                if there is None or not math.isfinite(there):
                    continue
                self.highest = max(self.highest, there)
                if there < self.lowest - self._noise:
                    self.lowest, self.place, met = there, x, True
                elif met:  # beyond the lowest point of this way
                    break

    def _ways(self, rng: torch.Generator) -> list[list[Vec]]:
        """The start, ways to the corners of all lower and all upper bounds (beyond some size of a
        penalty every response is 0, and what matters lies between there and the bound), and points
        far away on both sides of random lines.
        """
        o, here = self.oracle, self.x
        ways = [[o.domain_x.project(o.x0)]]
        for corner in (o.domain_x.lower, o.domain_x.upper):
            way = torch.where(corner.abs() < math.inf, corner - here, 0.0)
            ways.append([o.domain_x.project(here + part * way) for part in PARTS])
        for reach in FAR:
            v = torch.randn(o.n, generator=rng, dtype=torch.float64)
            v *= reach * self.extent / norm(v)
            ways += [[o.domain_x.project(here + v)], [o.domain_x.project(here - v)]]
        return [[x for x in way if norm(x - here) > NEAR * self.extent] for way in ways]
