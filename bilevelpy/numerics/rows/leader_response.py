"""The response that the leader would choose herself, if followers had no objective of their own::

    min_y F(x, y)   s.t.  the lower rows and domains at x

by projected gradients with steps 1/L that are searched (A. Beck, First-Order Methods in
Optimization, 2017, chapter 10): a minimum where F is convex in y, else a point with a lower F.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.qp.rows import Held, Rows, Sides, solve

Vec = torch.Tensor

# Steps, trials of a length, and by how much lengths grow and fall.
STEPS, TRIALS, SHORTER, LONGER = 30, 20, 3.0, 0.3
# Steps below this part of y settle.
SETTLED = 1e-5


def leader_response(oracle: Any, rows: Rows, x: Vec, y: Vec, reach: float) -> Vec | None:
    """The minimum over y at x, from y. An iterate farther than ``reach`` from y ends the steps: it
    gives a direction only. None where F or the projections have no value.
    """
    now, far = y.numpy(), 0.0
    F, _, slope = oracle.value_grad_F(x, y)
    size = float(torch.linalg.vector_norm(slope))
    if not math.isfinite(F) or not 0.0 < size < math.inf or not reach > 0.0:
        return None
    g, L, sides = slope.numpy(), size / reach, None
    for _ in range(STEPS):
        found = _step(oracle, rows, x, now, (F, g), L, sides)
        if found is None:
            break
        moved, F, g, L, sides = found
        step, now = float(np.linalg.norm(moved - now)), moved
        far = float(np.linalg.norm(now - y.numpy()))
        if step <= SETTLED * max(float(np.linalg.norm(now)), reach) or far > reach:
            break
        L *= LONGER
    return torch.from_numpy(now) if far > 0.0 else None


def _step(
    oracle: Any,
    rows: Rows,
    x: Vec,
    y: np.ndarray,
    known: tuple[float, np.ndarray],
    L: float,
    sides: Sides | None,
) -> tuple[np.ndarray, float, np.ndarray, float, Sides] | None:
    """A projected step under which F falls as the model with the curvature L says."""
    F, g = known
    for _ in range(TRIALS):
        held = solve(L * np.eye(len(y)), g - L * y, rows, sides)
        if not isinstance(held, Held):
            return None
        value, _, slope = oracle.value_grad_F(x, torch.from_numpy(held.y))
        d, sides = held.y - y, held.sides
        model = F + float(g @ d) + 0.5 * L * float(d @ d)
        if value <= model + 1e-12 * abs(F) and bool(torch.isfinite(slope).all()):
            return held.y, value, slope.numpy(), L, sides
        L *= SHORTER
    return None
