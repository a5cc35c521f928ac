"""Directions of y in which f is flat, and F too: minimisers that differ in them alone are one for
the leader.

Features that are copies, or constant beside an intercept, leave a fit without a penalty as many
solutions; all of them predict the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Vec = np.ndarray

# Curvatures up to this many roundings of the largest are none; slopes of F below this fraction of
# its own are none.
ROUNDINGS, UNSEEN = 100.0, 1e-9


def hidden_directions(
    hessian: Vec, slope: Callable[[Vec, Vec], Vec], points: Sequence[tuple[Vec, Vec]]
) -> int:
    """How many directions of y have no curvature in ``hessian`` and no slope of F at the points
    (x, y); 0 where there is a flat direction that F does slope along, or F does not read y.

    Both are measured in the units of the variables that suit ``hessian``.
    """
    own = hessian.diagonal()
    root = np.where(own > 0.0, np.sqrt(np.maximum(own, 0.0)), 1.0)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2 / root / root[:, None])
    rounding = ROUNDINGS * values.size * np.finfo(float).eps * float(np.abs(values).max(initial=0))
    if not values.size or values[0] < -rounding:
        return 0
    flat, seen = vectors[:, values <= rounding], False
    for x, y in points:
        g: Any = slope(x, y) / root
        if not np.isfinite(g).all():
            return 0
        if np.abs(flat.T @ g).max(initial=0.0) > UNSEEN * np.linalg.norm(g):
            return 0
        seen = seen or bool(g.any())
    return int(flat.shape[1]) if seen else 0
