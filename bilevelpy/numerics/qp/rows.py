"""Convex quadratic programs with rows, by exchanges of what holds the solution.

    min_y  c'y + y'Hy / 2,   low <= A y <= high,   floor <= y <= roof

With the variables that bounds hold at their ends B and the rows that hold as equations, the free
ones F and the multipliers of rows solve one system::

    [ H_FF  A_hF' ] [y_F]   [ -c_F - H_FB y_B ]
    [ A_hF    0   ] [ m ] = [ end - A_hB y_B  ]

Members whose multipliers pull are let go, rows and bounds that the point violates are taken in,
until nothing changes (where H is singular, what holds must leave nothing open): a primal-dual
active set method (M. Hintermueller, K. Ito and K. Kunisch,
SIAM J. Optim. 13, 2002). From the set of a program nearby one or two systems suffice; where the
exchanges do not end, an interior point says which set to begin with.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from bilevelpy.numerics.qp.two_sided import solve_two_sided

Array = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.intp]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Rows and bounds count as respected up to this fraction of their terms: rounding.
EXACT = 1e-11
# Exchanges from a set at most, and those of all wrong members without fewer of them.
EXCHANGES, PATIENCE = 40, 3
# Members of an interior point's set that are left out, one after the other.
LESS = 8
# What a system's solution may leave, relative to its terms.
RESIDUAL = 1e-9
# Members that push less than this fraction of the largest multiplier hold without pushing.
WEAK = 1e-8
# Rows that depend on one another get this, relative to the largest entry, and so many corrections.
RIDGE, CORRECTIONS = 1e-9, 4
# Systems of this order, of whose entries no more than a part is not 0, are factorised as sparse.
LARGE, FULL = 400, 0.05
# Accuracy of the interior point; multipliers and slacks are told apart by their sizes.
INTERIOR = 1e-9


class Nothing(StrEnum):
    """Why a program has no solution: no point meets its rows, its objective falls for ever on
    them, or nothing was found in time.
    """

    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    UNKNOWN = "limit"


# What Clarabel says.
ENDS = {
    "PrimalInfeasible": Nothing.INFEASIBLE,
    "AlmostPrimalInfeasible": Nothing.INFEASIBLE,
    "DualInfeasible": Nothing.UNBOUNDED,
    "AlmostDualInfeasible": Nothing.UNBOUNDED,
}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """``low <= A y <= high`` with dense A (r, m), and bounds of y; equal ends are equations."""

    A: Array
    low: Array
    high: Array
    floor: Array
    roof: Array

    @property
    def equal(self) -> Mask:
        """Which rows are equations."""
        return np.asarray(self.low == self.high)


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What holds a solution: -1 at a lower end, 1 at an upper one, 0 nothing; equations always
    hold.
    """

    rows: Array
    bounds: Array


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A solution with its multipliers (positive at upper ends) and what holds it."""

    y: Array
    rows: Array
    bounds: Array
    sides: Sides

    @property
    def weak(self) -> int:
        """How many members hold without pushing: the response has a kink there."""
        least = WEAK * max(_largest(self.rows), _largest(self.bounds))
        rows = (self.sides.rows != 0) & (np.abs(self.rows) <= least)
        bounds = (self.sides.bounds != 0) & (np.abs(self.bounds) <= least)
        return int(rows.sum() + bounds.sum())


def solve(
    H: Array, c: Array, rows: Rows, guess: Sides | None, seconds: float = math.inf
) -> Held | Nothing:
    """A minimiser, or why there is none; an interior point ends after so many ``seconds``."""
    found = None if guess is None else _exchanged(H, c, rows, guess)
    if found is not None:
        return found
    inside = _interior(H, c, rows, seconds)
    if isinstance(inside, Nothing):
        return inside
    # Beside a kink it sees more members than there is room for: the weakest ones first.
    sides = inside.sides
    for _ in range(LESS):
        found = _exchanged(H, c, rows, sides)
        if found is not None:
            return found
        sides = _without_weakest(sides, inside)
    return inside


def _without_weakest(sides: Sides, inside: Held) -> Sides:
    """The sides without the member that pushes least."""
    push = np.abs(np.concatenate([inside.rows, inside.bounds]))
    push[np.concatenate([sides.rows, sides.bounds]) == 0] = np.inf
    member = int(push.argmin())
    free = Sides(np.zeros(len(sides.rows)), np.zeros(len(sides.bounds)))
    return _one(sides, free, member)


def _exchanged(H: Array, c: Array, rows: Rows, sides: Sides) -> Held | None:
    """All wrong members at once as long as their number falls, else one at a time, the last of them
    (J. J. Judice and F. M. Pires, Computers & Operations Research 21, 1994): all at once may go
    round in circles.
    """
    fewest, idle = len(c) + len(rows.low) + 1, 0
    for _ in range(EXCHANGES):
        found = on_sides(H, c, rows, sides)
        if found is None:
            return None
        better = _corrected(found, rows, sides)
        wrong = np.concatenate([better.rows != sides.rows, better.bounds != sides.bounds])
        count = int(np.count_nonzero(wrong))
        if not count:
            return found
        idle = 0 if count < fewest else idle + 1
        fewest = min(fewest, count)
        sides = better if idle <= PATIENCE else _one(sides, better, int(wrong.nonzero()[0][-1]))
    return None


def _corrected(found: Held, rows: Rows, sides: Sides) -> Sides:
    """What holds, without members that pull and with those that are violated."""
    value = rows.A @ found.y
    size = EXACT * (1e-3 + np.abs(rows.A) @ np.abs(found.y))
    side = np.where(found.rows * sides.rows > 0, sides.rows, 0.0)
    side = np.where(value - rows.high > size, 1.0, side)
    side = np.where(rows.low - value > size, -1.0, side)
    side[rows.equal] = 0.0
    size = EXACT * (1e-3 + np.abs(found.y))
    bound = np.where(found.bounds * sides.bounds > 0, sides.bounds, 0.0)
    bound = np.where(found.y - rows.roof > size, 1.0, bound)
    bound = np.where(rows.floor - found.y > size, -1.0, bound)
    return Sides(side, np.where(rows.floor == rows.roof, -1.0, bound))


def _one(sides: Sides, better: Sides, member: int) -> Sides:
    """The sides with one member as in ``better``; bounds stand behind rows."""
    rows, bounds = sides.rows.copy(), sides.bounds.copy()
    if member < len(rows):
        rows[member] = better.rows[member]
    else:
        bounds[member - len(rows)] = better.bounds[member - len(rows)]
    return Sides(rows, bounds)


def on_sides(H: Array, c: Array, rows: Rows, sides: Sides) -> Held | None:
    """The minimiser over what the sides hold; None where they leave it open."""
    free = np.flatnonzero(sides.bounds == 0)
    held = np.flatnonzero((sides.rows != 0) | rows.equal)
    y = np.where(sides.bounds > 0, rows.roof, rows.floor)
    y[free] = 0.0
    ends = np.where(sides.rows > 0, rows.high, rows.low)[held]
    right = -(c + H @ y)[free]
    solved = saddle(H, rows.A, free, held, right, ends - rows.A[held] @ y)
    if solved is None:
        return None
    y[free], m = solved
    multipliers = np.zeros(len(rows.low))
    multipliers[held] = m
    bounds = -(H @ y + c + rows.A[held].T @ m)
    bounds[free] = 0.0
    return Held(y, multipliers, bounds, sides)


def saddle(
    H: Array,
    A: Array,
    free: Places,
    held: Places,
    right: Array,
    ends: Array,
    *,
    nearest: bool = False,
) -> tuple[Array, Array] | None:
    """``[H_FF A'; A 0] [v; m] = [right; ends]`` with the rows ``held`` on the columns ``free``, for
    vectors or for several columns; None where that has no solution, or the ``nearest`` one by least
    squares.
    """
    if right.ndim == 1:
        one = saddle(H, A, free, held, right[:, None], ends[:, None], nearest=nearest)
        return None if one is None else (one[0][:, 0], one[1][:, 0])
    a, h = A[np.ix_(held, free)], H[np.ix_(free, free)]
    single = _single(a)
    if not single.any():
        return _dense(h, a, right, ends, nearest)
    # A row with one column says what that is; its multiplier follows from the slope there.
    rows = np.flatnonzero(single)
    columns = np.abs(a[rows]).argmax(1)
    factors = a[rows, columns][:, None]
    count = right.shape[1]
    v, m = np.zeros((free.size, count)), np.zeros((held.size, count))
    v[columns] = ends[rows] / factors
    rest, others = np.ones(free.size, dtype=bool), np.flatnonzero(~single)
    rest[columns] = False
    inside = np.flatnonzero(rest)
    slope, left = right - h @ v, ends[others] - a[others] @ v
    solved = _dense(
        h[np.ix_(inside, inside)], a[np.ix_(others, inside)], slope[inside], left, nearest
    )
    if solved is None:
        return None
    v[inside], m[others] = solved
    m[rows] = (right - h @ v - a[others].T @ m[others])[columns] / factors
    return v, m


def _single(a: Array) -> Mask:
    """Which rows have one column alone, each another one."""
    count = np.count_nonzero(a, axis=1)
    rows = np.flatnonzero(count == 1)
    columns = np.abs(a[rows]).argmax(1) if rows.size else rows
    first = np.unique(columns, return_index=True)[1]
    found = np.zeros(len(a), dtype=bool)
    found[rows[first]] = True
    return found


def _dense(
    h: Array, a: Array, right: Array, ends: Array, nearest: bool
) -> tuple[Array, Array] | None:
    """``[h a'; a 0] [v; m] = [right; ends]``."""
    free, order = len(right), len(right) + len(ends)
    K = np.zeros((order, order))
    K[:free, :free], K[:free, free:], K[free:, :free] = h, a.T, a
    b = np.concatenate([right, ends])
    if not order:
        return b, b
    size = _largest(K)
    for ridge in (0.0, RIDGE * size):
        found = _solved(K, b, ridge, free)
        v, m = found[:free], found[free:]
        rest = np.abs(b - K @ found)
        # Slopes and rows each on their own scale: multipliers of rows that contradict one another
        # are as large as the ridge allows.
        slopes = _largest(right) + size * (_largest(v) + _largest(m))
        if _largest(rest[:free]) <= RESIDUAL * slopes and (
            _largest(rest[free:]) <= RESIDUAL * (_largest(ends) + _largest(a) * _largest(v))
        ):
            return v, m
    if not nearest:
        return None
    found = np.linalg.lstsq(K, b, rcond=None)[0]
    return found[:free], found[free:]


def _largest(v: Array) -> float:
    """The largest absolute entry."""
    return float(np.abs(v).max(initial=0.0))


def _solved(K: Array, b: Array, ridge: float, free: int) -> Array:
    """``K^-1 b``; by a ridge of rows that depend on one another, whose effect is corrected."""
    near = K
    if ridge:
        near = K.copy()
        near[np.arange(free, len(b)), np.arange(free, len(b))] -= ridge
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", sl.LinAlgWarning)
        solved, times = _factor(near), sp.csr_array(K) if _is_sparse(K) else K
        found = solved(b)
        for _ in range(CORRECTIONS if ridge else 1):
            found += solved(b - times @ found)
    return found


def _is_sparse(K: Array) -> bool:
    """Whether a matrix is large, and nearly all of it 0."""
    return len(K) >= LARGE and bool(np.count_nonzero(K) <= FULL * K.size)


def _factor(K: Array) -> Callable[[Array], Array]:
    """``b -> K^-1 b``; what is not finite comes out of a singular matrix."""
    if _is_sparse(K):
        try:
            found: Callable[[Array], Array] = splu(sp.csc_array(K)).solve
            return found
        except RuntimeError:  # exactly singular
            return lambda b: np.full_like(b, math.nan)
    factor = sl.lu_factor(K, check_finite=False)
    return lambda b: np.asarray(sl.lu_solve(factor, b, check_finite=False))


def _interior(H: Array, c: Array, rows: Rows, seconds: float) -> Held | Nothing:
    """The end of an interior point method, and what holds the solution as it sees it."""
    bounded = np.flatnonzero(np.isfinite(rows.floor) | np.isfinite(rows.roof))
    eye = sp.eye_array(len(c), format="csr")[bounded]
    matrix = sp.vstack([sp.csr_array(rows.A), eye])
    low = np.concatenate([rows.low, rows.floor[bounded]])
    high = np.concatenate([rows.high, rows.roof[bounded]])
    upper = sp.csc_matrix(sp.triu(sp.csc_array(H)))
    found = solve_two_sided(upper, c, matrix, low, high, INTERIOR, seconds)
    if not found.is_solved:
        return ENDS.get(found.status, Nothing.UNKNOWN)
    value = matrix @ found.values
    size = 1.0 + abs(matrix) @ np.abs(found.values)
    slack = np.minimum(np.abs(value - low), np.abs(high - value)) / size
    z = found.multipliers
    weight = np.abs(z) / max(float(np.abs(z).max(initial=0.0)), 1e-12)
    side = np.where(weight > slack, np.sign(z), 0.0)
    side[low == high] = 0.0
    count, bounds, prices = len(rows.low), np.zeros(len(c)), np.zeros(len(c))
    bounds[bounded], prices[bounded] = side[count:], z[count:]
    bounds[rows.floor == rows.roof] = -1.0
    y = np.clip(found.values, rows.floor, rows.roof)
    return Held(y, z[:count], prices, Sides(side[:count], bounds))
