"""KKT systems of quadratic programs on what is held: LAPACK for dense ones, SuperLU for sparse."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import splu

Array = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.intp]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# What a system's solution may leave, relative to its terms.
RESIDUAL = 1e-9
# Rows that depend on one another get this, relative to the largest entry, and so many corrections.
RIDGE, CORRECTIONS = 1e-9, 4
# Systems of this order, of whose entries no more than a part is not 0, are factorised as sparse.
LARGE, FULL = 400, 0.05


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
    a = A[np.ix_(held, free)]
    rows, columns = _alone(H, a, free)
    if not rows.size:
        return _by_rows(H[np.ix_(free, free)], a, right, ends, nearest)
    # Where a variable meets one row alone, and none of the others in H, both follow from the rest:
    # v_j = (end - top v) / s and m = (right_j - d v_j) / s.
    s, d = a[rows, columns][:, None], H.diagonal()[free[columns]][:, None]
    others, inside = _without(held.size, rows), _without(free.size, columns)
    top = a[np.ix_(rows, inside)] / s
    first = (right[columns] - d * ends[rows] / s) / s
    h = H[np.ix_(free[inside], free[inside])]
    if d.any():
        h = h + top.T @ (d * top)
    solved = _by_rows(
        h, a[np.ix_(others, inside)], right[inside] - top.T @ (s * first), ends[others], nearest
    )
    if solved is None:
        return None
    v, m = np.zeros((free.size, right.shape[1])), np.zeros((held.size, right.shape[1]))
    v[inside], m[others] = solved
    v[columns] = ends[rows] / s - top @ v[inside]
    m[rows] = (right[columns] - d * v[columns]) / s
    return v, m


def _alone(H: Array, a: Array, free: Places) -> tuple[Places, Places]:
    """Rows and columns of a that belong to one another, such as those of epigraphs: the column has
    no other row, no other variable beside it in H, and the row no other such column.
    """
    flat = np.flatnonzero(np.count_nonzero(a, axis=0) == 1)
    if flat.size:
        beside = np.count_nonzero(H, axis=1) - (H.diagonal() != 0.0)
        flat = flat[beside[free[flat]] == 0]
    if not flat.size:
        return flat, flat
    rows, first = np.unique((a[:, flat] != 0.0).argmax(axis=0), return_index=True)
    return rows, flat[first]


def _without(count: int, some: Places) -> Places:
    """The places that are not among some."""
    left = np.ones(count, dtype=bool)
    left[some] = False
    return np.flatnonzero(left)


def _by_rows(
    h: Array, a: Array, right: Array, ends: Array, nearest: bool
) -> tuple[Array, Array] | None:
    """The system without rows of one variable."""
    single = _single(a)
    if not single.any():
        return _dense(h, a, right, ends, nearest)
    # A row with one column says what that is; its multiplier follows from the slope there.
    rows = np.flatnonzero(single)
    columns = np.abs(a[rows]).argmax(1)
    factors = a[rows, columns][:, None]
    v, m = np.zeros_like(right), np.zeros_like(ends)
    v[columns] = ends[rows] / factors
    others, inside = np.flatnonzero(~single), _without(len(right), columns)
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
    size = largest(K)
    ridges = (0.0, RIDGE * size)
    # SuperLU prints what it meets in a singular matrix: it gets one with a ridge first.
    for ridge in reversed(ridges) if _is_sparse(K) else ridges:
        found = _solved(K, b, ridge, free)
        v, m = found[:free], found[free:]
        rest = np.abs(b - K @ found)
        # Slopes and rows each on their own scale: multipliers of rows that contradict one another
        # are as large as the ridge allows.
        slopes = largest(right) + size * (largest(v) + largest(m))
        if largest(rest[:free]) <= RESIDUAL * slopes and (
            largest(rest[free:]) <= RESIDUAL * (largest(ends) + largest(a) * largest(v))
        ):
            return v, m
    if not nearest:
        return None
    found = least_squares(K, b)[0]
    return found[:free], found[free:]


def least_squares(A: Array, b: Array) -> tuple[Array, int]:
    """The shortest v of those with the least ``|A v - b|``, and the rank of A, by a factorisation
    with pivots: that takes a third of the time of singular values.
    """
    found, _, rank, _ = sl.lstsq(
        A, b, cond=np.finfo(np.float64).eps * max(A.shape), lapack_driver="gelsy"
    )
    return found, int(rank)


def largest(v: Array) -> float:
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
        matrix = sp.csc_array(K)
        # SuperLU lets BLAS complain on standard output where zeros alone make it singular.
        if structural_rank(matrix) == len(K):
            try:
                found: Callable[[Array], Array] = splu(matrix).solve
                return found
            except RuntimeError:  # exactly singular
                pass
        return lambda b: np.full_like(b, math.nan)
    factor = sl.lu_factor(K, check_finite=False)
    return lambda b: np.asarray(sl.lu_solve(factor, b, check_finite=False))
