"""What a response is worth where it breaks a row: interdiction.

Where the leader takes ``y_j <= 1 - x_j`` away, the follower need not give up the rest of a response
``z``. If variables of a row of his go back to a bound, no other row of his minds, and the row then
holds whatever x is, the follower has that response instead::

    f(x, y) <= f(x, z) + sum over broken rows r of what falling back costs

which says more than "or z breaks a row": knapsacks, packings, jobs on machines that may fail (the
cuts of DeNegre 2011 for interdiction).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.kinks import kink_columns
from bilevelpy.reductions.scalar import columns as columns_of

if TYPE_CHECKING:
    from bilevelpy.backends.exact.followers import Followers
    from bilevelpy.reductions.rows import Functions

Array = np.ndarray[Any, np.dtype[Any]]


def fallback(
    run: Followers, k: int, response: Array, row: int, above: bool
) -> tuple[Array, float] | None:
    """The response of follower k with the variables of one of his rows (counted among his own), of
    which it is ``above`` the upper end or below the lower one, back at their bounds; and by how
    much his objective is more there at most. None where other rows mind.
    """
    columns = run.system.columns
    objective, rows = run.given(k)
    functions = rows.functions
    own = np.flatnonzero(columns.owner == k + 1)
    if bool(kink_columns(run.system)[own].any()) or _moves(functions, row, own):
        return None
    ends = float(rows.lower[row]), float(rows.upper[row])
    if math.isfinite(ends[0] if above else ends[1]):
        return None
    slopes = functions.linear[:, own].toarray()
    others = np.arange(rows.count) != row
    up, down = np.isfinite(rows.upper) & others, np.isfinite(rows.lower) & others
    there, cost = response.copy(), 0.0
    prices = objective.linear[[0]][:, own].toarray().reshape(-1)
    for n, j in enumerate(own.tolist()):
        slope = float(slopes[row, n]) if above else -float(slopes[row, n])
        if slope == 0.0:
            continue
        end = float(columns.lower[j] if slope > 0.0 else columns.upper[j])
        way = end - float(response[j])
        if not math.isfinite(end) or way == 0.0 or (columns.integer[j] and end != round(end)):
            continue
        pushed = slopes[:, n] * way
        minded = bool((pushed[up] > 0.0).any() or (pushed[down] < 0.0).any())
        alone = np.array([j])
        bent = any(_moves(functions, r, alone) for r in range(rows.count) if r != row)
        if minded or bent or _moves(objective, 0, alone):
            continue
        there[j] = end
        # A row that falls back together with another one is paid for twice at worst.
        cost += max(float(prices[n]) * way, 0.0)
    return None if np.array_equal(there, response) else (there, cost)


def _moves(functions: Functions, row: int, own: Array) -> bool:
    """Whether the slopes of a function in these variables are no numbers."""
    if row in functions.trees:
        return bool(columns_of([functions.trees[row]]) & set(own.tolist()))
    q = functions.quadratic.get(row)
    return q is not None and bool(q[own].nnz)
