"""Convex quadratic programs with two-sided rows: ``min v'Qv/2 + c'v``, ``low <= A v <= high``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
from scipy.sparse.linalg import splu

Array = np.ndarray[Any, np.dtype[Any]]

# Seconds that a run gets at least.
LEAST = 0.01
# Added to the diagonal of a saddle system, and how often its solution is corrected for that.
RIDGE, CORRECTIONS = 1e-10, 3
# What this may leave of a solution, relative to its terms.
RESIDUAL = 1e-9
# Exchanges of the rows that hold a solution nearby, and the part of entries from which on a matrix
# is factorised as a dense one.
EXCHANGES, DENSE = 6, 0.1
# Rows may be off by this (relative to their terms) after a correction.
EXACT = 1e-10


@dataclass(frozen=True, slots=True)
class TwoSided:
    """The end of a run: Clarabel's own word for it, the point, and one multiplier a row, positive
    at its upper end and negative at its lower one.
    """

    status: str
    values: Array
    multipliers: Array

    @property
    def is_solved(self) -> bool:
        """Whether the point is a solution, or nearly one."""
        return self.status in ("Solved", "AlmostSolved")


def solve_two_sided(
    upper: Any,
    cost: Array,
    rows: Any,
    low: Array,
    high: Array,
    tol: float,
    seconds: float = math.inf,
) -> TwoSided:
    """Solve, to gaps and infeasibilities of ``tol``, in so many ``seconds`` at most.

    ``upper`` (m, m) is the upper triangle of Q and ``rows`` (r, m) is A, both sparse; ends may be
    infinite, and rows with equal ends are equations.
    """
    equal = np.flatnonzero(low == high)
    up = np.flatnonzero(np.isfinite(high) & (low != high))
    down = np.flatnonzero(np.isfinite(low) & (low != high))
    rows = sp.csr_array(rows)
    a = sp.csc_matrix(sp.vstack([rows[equal], rows[up], -rows[down]]))
    b = np.concatenate([low[equal], high[up], -low[down]])
    cones = [clarabel.ZeroConeT(equal.size), clarabel.NonnegativeConeT(up.size + down.size)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.time_limit = max(seconds, LEAST)
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
    found = clarabel.DefaultSolver(sp.csc_matrix(upper), cost, a, b, cones, settings).solve()
    z = np.array(found.z)
    multipliers = np.zeros(low.size)
    multipliers[equal] = z[: equal.size]
    multipliers[up] += z[equal.size : equal.size + up.size]
    multipliers[down] -= z[equal.size + up.size :]
    return TwoSided(str(found.status), np.array(found.x), multipliers)


def sharpened(
    upper: Any, cost: Array, rows: Any, low: Array, high: Array, found: TwoSided
) -> TwoSided:
    """The solution with the rows that have multipliers as equations, to rounding::

        [ Q   A' ] [v]   [ -c  ]
        [ A   0  ] [m] = [ end ]

    An interior point stops at a gap, and v is known to its square root only. Where other rows are
    violated then, or multipliers change their signs, rows are exchanged; ``found`` itself where
    that does not end soon, or the rows leave v open.
    """
    z = found.multipliers
    equal = low == high
    rows = sp.csr_array(rows)
    value = rows @ found.values
    size = 1.0 + abs(rows) @ np.abs(found.values)
    slack = np.minimum(np.abs(value - low), np.abs(high - value)) / size
    # Of multiplier and slack one is zero: the larger one, each on its own scale.
    weight = np.abs(z) / max(float(np.abs(z).max(initial=0.0)), 1e-12)
    held = np.flatnonzero((weight > slack) | equal)
    at = _held_at(upper, cost, rows, np.where(z > 0, high, low), held, found)
    if at is None:
        return found
    v, m = at
    turned = (m * z[held] < 0) & ~equal[held]
    if bool((_off(rows, low, high, v) > EXACT * size).any()) or bool(turned.any()):
        guess = np.zeros(z.size)
        guess[held] = z[held]
        return continued(upper, cost, rows, low, high, replace(found, multipliers=guess)) or found
    multipliers = np.zeros(z.size)
    multipliers[held] = m
    return replace(found, values=v, multipliers=multipliers)


def continued(
    upper: Any, cost: Array, rows: Any, low: Array, high: Array, last: TwoSided
) -> TwoSided | None:
    """The solution from that of a program nearby: the rows that hold it are exchanged for those
    that the point violates, and let go where their multipliers pull (a primal-dual active set
    method, M. Hintermueller, K. Ito and K. Kunisch, SIAM J. Optim. 13, 2002). None where this does
    not end soon.
    """
    equal = low == high
    rows = sp.csr_array(rows)
    side = np.sign(last.multipliers)
    for _ in range(EXCHANGES):
        held = np.flatnonzero((side != 0) | equal)
        at = _held_at(upper, cost, rows, np.where(side > 0, high, low), held, last)
        if at is None:
            return None
        v, m = at
        size = 1.0 + abs(rows) @ np.abs(v)
        multipliers = np.zeros(side.size)
        multipliers[held] = m
        after = np.where(multipliers * side > 0, side, 0.0)
        value = rows @ v
        after = np.where(value - high > EXACT * size, 1.0, after)
        after = np.where(low - value > EXACT * size, -1.0, after)
        after[equal] = 0.0
        if bool((after == np.where(equal, 0.0, side)).all()):
            return TwoSided("Solved", v, multipliers)
        side = after
    return None


def _held_at(
    upper: Any, cost: Array, rows: Any, ends: Array, held: Array, near: TwoSided
) -> tuple[Array, Array] | None:
    """Point and multipliers with the rows ``held`` as equations; None where they leave it open."""
    count = cost.size
    a = sp.csr_array(rows[held])
    full = sp.csr_array(upper + sp.triu(upper, 1).T)
    exact = sp.csc_array(sp.block_array([[full, a.T], [a, None]], format="csc"))
    ridge = np.concatenate([np.full(count, RIDGE), np.full(held.size, -RIDGE)])
    right = np.concatenate([-cost, ends[held]])
    solve = _factorised(sp.csc_matrix(exact + sp.diags_array(ridge)))
    if solve is None:
        return None
    at = np.concatenate([near.values, near.multipliers[held]])
    for _ in range(CORRECTIONS):
        at = at + solve(right - exact @ at)
    if not np.isfinite(at).all():
        return None
    # Each on its own scale: rows that contradict each other have multipliers beside which what
    # they leave is nothing.
    size = 1.0 + np.abs(right) + abs(exact) @ np.abs(at)
    if bool((np.abs(right - exact @ at) > RESIDUAL * size).any()):
        return None
    return at[:count], at[count:]


def _factorised(matrix: Any) -> Callable[[Array], Array] | None:
    """A solver for a sparse matrix, or one that is stored as such; None where it is singular."""
    order = matrix.shape[0]
    if matrix.nnz > DENSE * order * order:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.LinAlgWarning)
            factor = sl.lu_factor(matrix.toarray(), check_finite=False)
        return lambda b: np.asarray(sl.lu_solve(factor, b, check_finite=False))
    try:
        return splu(matrix).solve  # type: ignore[no-any-return]
    except RuntimeError:  # exactly singular
        return None


def _off(rows: Any, low: Array, high: Array, v: Array) -> Array:
    """How far each row is from its ends."""
    value = rows @ v
    return np.asarray(np.maximum(np.maximum(low - value, value - high), 0.0))
