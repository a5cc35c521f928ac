"""Preconditioned conjugate gradients on matrices of unknowns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Map = Callable[[Array], Array]


def conjugate_gradients(
    product: Map,
    right: Array,
    precondition: Map,
    tolerance: float,
    start: Array | None = None,
    limit: int = 500,
) -> tuple[Array, int]:
    """Solve ``product(u) = right`` until the residual's largest entry is at most ``tolerance``."""
    if start is None:
        u, r = np.zeros_like(right), right.copy()
    else:
        u = start.copy()
        r = right - product(u)
    if np.abs(r).max() <= tolerance:
        return u, 0
    z = precondition(r)
    p, rz = z, float(np.vdot(r, z))
    for count in range(1, limit + 1):
        q = product(p)
        step = rz / float(np.vdot(p, q))
        u += step * p
        r -= step * q
        if np.abs(r).max() <= tolerance:
            return u, count
        z = precondition(r)
        old, rz = rz, float(np.vdot(r, z))
        p = z + (rz / old) * p
    return u, limit
