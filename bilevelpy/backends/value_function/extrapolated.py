"""Where the minimisers of growing weights tend to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Minimisers that are extrapolated at once.
MOST = 4


@dataclass(slots=True)
class Limit:
    """Polynomials in h through minimisers w(h) for h = 1/weight, evaluated by Neville's scheme.

    The minimiser of a penalty with a smooth path is ``w(0) + O(h)``: through two of them it is
    known to ``O(h^2)``, through k to ``O(h^k)``.
    """

    size: int
    places: list[float] = field(default_factory=list)
    points: list[Vec] = field(default_factory=list)
    last: Vec | None = None

    def add(self, h: float, w: Vec) -> tuple[Vec, float]:
        """Take a minimiser; the limit and how far its first entries have moved since the last
        one.
        """
        self.places.append(h)
        self.points.append(w)
        if len(self.points) > MOST:
            del self.places[0], self.points[0]
        found, last = self.at(0.0), self.last
        self.last = found
        if last is None or len(self.points) < 3:
            return found, math.inf
        return found, norm(found[: self.size] - last[: self.size])

    def at(self, h: float) -> Vec:
        """The interpolation at h."""
        row, places = list(self.points), self.places
        for k in range(1, len(row)):
            row = [
                ((h - places[i + k]) * row[i] - (h - places[i]) * row[i + 1])
                / (places[i] - places[i + k])
                for i in range(len(row) - 1)
            ]
        return row[0]
