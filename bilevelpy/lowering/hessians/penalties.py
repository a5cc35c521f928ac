"""Whether the upper variables are the strengths of quadratic penalties below, and on which scale.

    f_yx[:, i] = s_i(x_i) A_i y,    s_i(x + e) = s_i(x) exp(a e),    or s_i constant (a = 0)

that is ``f = ... + exp(a x_i) y'A_i y / (2 a)`` or ``x_i y'A_i y / 2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# Shifts of the upper variables that differ from each other, and the agreement that is asked for.
SHIFTS, AGREES = (0.5, 1.5), 1e-9


def growth(f_yx: Callable[[Vec, Vec], Array], x: Vec, m: int) -> float | None:
    """The rate a, by values of f_yx, (m, n), at two points; None where x is something else."""
    shifts = np.linspace(*SHIFTS, len(x))
    y = torch.linspace(*SHIFTS, m, dtype=torch.float64)
    before, after = f_yx(x, y), f_yx(x + torch.from_numpy(shifts), 2.0 * y)
    largest = int(np.argmax((before * before).sum(0)))
    first, second = (float(np.linalg.norm(part[:, largest])) for part in (before, after))
    if not (0.0 < first < math.inf and 0.0 < second < math.inf):
        return None
    rate = math.log(second / (2.0 * first)) / float(shifts[largest])
    rate = rate if rate > AGREES else 0.0
    wanted = 2.0 * before * np.exp(rate * shifts)
    near = np.abs(after - wanted) <= AGREES * float(np.abs(wanted).max())
    return rate if bool(near.all()) else None
