"""What a response is worth where it breaks a row: interdiction.

Where the leader takes ``y_j <= 1 - x_j`` away, the follower need not give up the rest of a response
``z``. If variables of a row of his go back to a bound, no other row of his minds, and the row then
holds whatever x is, the follower has that response instead::

    f(x, y) <= f(x, z) + sum over broken rows r of what falling back costs

which says more than "or z breaks a row": knapsacks, packings, jobs on machines that may fail (the
cuts of DeNegre 2011 for interdiction). Slopes that move with x count with their ranges: a product
that is too dear, ``price_j y_j <= budget``, is not bought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.scalar import columns as columns_of

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Functions, Rows

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Slopes:
    """Ranges over all points of the slopes of a follower's rows, and of its objective (``prices``),
    in its ``own`` columns (indices): one row each, one column for each of these.
    """

    own: Array
    least: Array
    most: Array
    prices: tuple[Array, Array]
    ends: tuple[Array, Array]
    integer: Array


def slopes_of(
    columns: Columns, objective: Functions, rows: Rows, own: Array, span: tuple[Array, Array]
) -> Slopes:
    """The slopes of a follower, with other columns within ``span``."""
    # A response may fall back to where rows do not hold: its columns are within their bounds only.
    low = np.where(own, columns.lower, span[0])
    high = np.where(own, columns.upper, span[1])
    chosen = np.flatnonzero(own)
    least, most = _slopes(rows.functions, chosen, low, high)
    prices = tuple(part[0] for part in _slopes(objective, chosen, low, high))
    ends = columns.lower[chosen], columns.upper[chosen]
    return Slopes(chosen, least, most, (prices[0], prices[1]), ends, columns.integer[chosen])


def _slopes(functions: Functions, own: Array, low: Array, high: Array) -> tuple[Array, Array]:
    least = functions.linear[:, own].toarray()
    most = least.copy()
    for r, q in functions.quadratic.items():
        part = q[own].tocoo()
        for n, j, c in zip(part.row.tolist(), part.col.tolist(), part.data.tolist(), strict=True):
            ends = sorted((c * float(low[j]), c * float(high[j]))) if c else (0.0, 0.0)
            least[r, n] += ends[0]
            most[r, n] += ends[1]
    for r, tree in functions.trees.items():
        read = np.isin(own, list(columns_of([tree])))
        least[r, read], most[r, read] = -math.inf, math.inf
    return least, most


def fallback(
    slopes: Slopes, rows: Rows, response: Array, row: int, above: bool
) -> tuple[Array, float, tuple[int, ...]] | None:
    """The response of a follower with the variables of one of his rows (counted among his own), of
    which it is ``above`` the upper end or below the lower one, back at their bounds; by how much
    his objective is more there at most; and these variables. None where other rows mind.
    """
    ends = float(rows.lower[row]), float(rows.upper[row])
    if math.isfinite(ends[0] if above else ends[1]):
        return None
    a, b = slopes.least[row], slopes.most[row]
    least, most = (a, b) if above else (-b, -a)
    end = np.where(least >= 0.0, slopes.ends[0], slopes.ends[1])
    way = end - response[slopes.own]
    moves = ((least >= 0.0) & (most > 0.0)) | ((least < 0.0) & (most <= 0.0))
    moves &= np.isfinite(end) & (way != 0.0) & (~slopes.integer | (end == np.rint(end)))
    others = np.arange(rows.count) != row
    up, down = np.isfinite(rows.upper) & others, np.isfinite(rows.lower) & others
    there, cost, moved = response.copy(), 0.0, []
    for n in np.flatnonzero(moves).tolist():
        pushed = np.stack([slopes.least[:, n], slopes.most[:, n]]) * way[n]
        paid = max(float(p[n]) * float(way[n]) for p in slopes.prices)
        minded = bool((pushed[:, up] > 0.0).any() or (pushed[:, down] < 0.0).any())
        if minded or not math.isfinite(paid):
            continue
        there[slopes.own[n]] = end[n]
        moved.append(int(slopes.own[n]))
        cost += max(paid, 0.0)
    return (there, cost, tuple(moved)) if moved else None
