"""A length of the upper variables, that steps and slopes are measured with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bilevelpy.numerics.linear_solve import norm

if TYPE_CHECKING:
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# An extent below this is a guess where F (relative) is the same at the start: a run that has hardly
# left a start at 0 has shown no scale of x.
HARDLY, SAME = 1e-6, 1e-7


def extent_of(oracle: Oracle, x: Vec, chosen: Vec | None = None) -> float:
    """A length of x, or of its ``chosen`` entries: the way from the start, a part of its size, a
    part of its bounded domain.
    """
    width, way = oracle.domain_x.upper - oracle.domain_x.lower, x - oracle.x0
    if chosen is not None:
        x, width, way = x[chosen], width[chosen], way[chosen]
    bounded = width[width < math.inf]
    sizes = [norm(way), 0.1 * norm(x)]
    if bounded.numel() and bounded.numel() == x.numel():
        sizes.append(1e-2 * norm(bounded))
    return max(sizes) or 1.0


def shows_no_scale(here: float, start: float | None) -> bool:
    """Whether F is the same at a point and at the start of its run."""
    return start is not None and abs(start - here) <= SAME * abs(here)
