"""Points far from a local solution: objectives that are not convex may have a valley where local
methods begin, and fall without bound behind the next hill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Distances, in sizes of the point; random lines; coordinates up to which their axes are lines too.
REACHES = (3.0, 30.0, MIDDLE := 1e3, 1e6)
LINES, AXES = 3, 4
# A value is lower by more than this part of its size.
FALL = 1e-6
# Differences below this part of a value are rounding.
ROUNDING = 1e-12


def far_points(base: Array, rng: np.random.Generator) -> Iterator[tuple[float, Array]]:
    """Points on both sides of ``base`` on some lines through it, with their reaches."""
    size = max(1.0, float(np.abs(base).max(initial=0.0)))
    lines = list(rng.standard_normal((LINES, base.size)))
    if base.size <= AXES:
        lines += list(np.eye(base.size))
    for line in lines:
        for reach in REACHES:
            yield reach, base + reach * size * line
            yield reach, base - reach * size * line


def is_lower(there: float, here: float) -> bool:
    """Whether a value is a number and lower beyond doubt."""
    return math.isfinite(there) and there < here - FALL * max(1.0, abs(here))


def falls_away(value: Callable[[Array], float], base: Array, rounding: float) -> bool:
    """Whether a convex function still falls at 2, 4 and 8 times a point that is taken for its
    minimiser, at first by more than ``rounding``: its least value is at infinity then.
    """
    here = value(base)
    for reach in (2.0, 4.0, 8.0):
        there = value(reach * base)
        if not there < here - rounding:
            return False
        here, rounding = there, ROUNDING * abs(there)
    return True
