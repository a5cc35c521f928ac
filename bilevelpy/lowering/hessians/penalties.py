"""Which upper variables are the strengths of quadratic penalties below, and on which scale.

    f_yx[:, i] = s_i(x_i) A_i y,    s_i(x + e) = s_i(x) exp(a_i e),    or s_i constant (a_i = 0)

that is ``f = ... + exp(a x_i) y'A_i y / (2 a)`` or ``x_i y'A_i y / 2``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# Shifts of the upper variables that differ from each other. Their squares, the other way round and
# longer, are a second one: what reads another variable too, or is no exponential, grows otherwise
# by it. The agreement that is asked for.
SHIFTS, AGREES = (0.5, 1.5), 1e-9


def growth(
    f_yx: Callable[[Vec, Vec], Array], columns: np.ndarray[Any, Any], x: Vec, m: int
) -> Array:
    """The rates a, (n,), by the entries of f_yx at three points and their columns; NaN for other
    variables.
    """
    n = len(x)
    shifts = np.linspace(*SHIFTS, n)
    other = 1.3 * (shifts * shifts)[::-1]
    y = torch.linspace(*SHIFTS, m, dtype=torch.float64)
    before = f_yx(x, y)
    after = f_yx(x + torch.from_numpy(shifts), 2.0 * y)
    then = f_yx(x + torch.from_numpy(other), y)

    def norms(entries: Array) -> Array:
        found: Array = np.sqrt(np.bincount(columns, entries * entries, n))
        return found

    with np.errstate(all="ignore"):
        sizes = norms(before)
        rates = np.log(norms(after) / (2.0 * sizes)) / shifts
        rates[np.abs(rates) <= AGREES] = 0.0
        grown, again = np.exp(rates * shifts), np.exp(rates * other)
        near = np.abs(after - 2.0 * (grown[columns] * before)) <= AGREES * (grown * sizes)[columns]
        near &= np.abs(then - again[columns] * before) <= AGREES * (again * sizes)[columns]
        far = np.bincount(columns, ~near, n)
    return np.where((far == 0) & (sizes > 0.0), rates, np.nan)
