"""Bounds that best responses keep by themselves: engines need them where y has none.

Let ``f(x, y) = y'Hy / 2 + (c + C x)'y`` with H positive definite, x in a box with midpoint m and
the half widths w, and let z be feasible for the follower at every x of it. With the free minimiser
``u(x) = -H^-1 (c + C x)``, ``f(x, y) <= f(x, z)`` is ``|y - u(x)|_H <= |z - u(x)|_H``, so that

    |y_i - u(m)_i| <= sum_j w_j |H^-1 C|_ij
                      + (H^-1)_ii^(1/2) (|z - u(m)|_H + sum_j w_j |H^-1 C_j|_H)

holds for every best response y. It is no row of the follower and changes no multiplier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.qp.two_sided import solve_two_sided
from bilevelpy.reductions.rewriting.intervals import propagated

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Columns of a follower up to which its Hessian is inverted.
DENSE = 300
# The least eigenvalue of H (relative to the largest) that counts as positive; bounds beyond this
# size say nothing; what is added to them for rounding.
DEFINITE, LARGEST, ROOM = 1e-8, 1e6, 1e-6


def response_bounds(system: System) -> tuple[Array, Array]:
    """Bounds of all columns: those of the system, and in place of infinite ends of lower columns
    what best responses keep, where that is known.
    """
    low, high = system.columns.lower.copy(), system.columns.upper.copy()
    open_ends = ~np.isfinite(low) | ~np.isfinite(high)
    if not bool(open_ends[system.lower_columns].any()):
        return low, high
    ranges = propagated(system)
    for k, follower in enumerate(system.followers):
        own = np.flatnonzero(system.columns.owner == k + 1)
        if follower.nash or not bool(open_ends[own].any()) or own.size > DENSE:
            continue
        found = _bounds(system, k, own, *ranges)
        if found is not None:
            low[own] = np.where(np.isfinite(low[own]), low[own], found[0])
            high[own] = np.where(np.isfinite(high[own]), high[own], found[1])
    return low, high


def _bounds(
    system: System, k: int, own: Array, low: Array, high: Array
) -> tuple[Array, Array] | None:
    """The ends for one follower; None where its form or x gives none."""
    objective = system.lower_objectives
    rows = system.lower_rows.take(np.flatnonzero(system.lower_rows.follower == k + 1))
    if k in objective.trees or k not in objective.quadratic or rows.functions.degree > 1:
        return None
    bend = sp.csr_array(objective.quadratic[k])[own]
    H = bend[:, own].toarray()
    values = np.linalg.eigvalsh(H)
    if values[0] <= DEFINITE * values[-1]:
        return None
    others = np.setdiff1d(np.arange(system.columns.count), own)
    cross, matrix = bend[:, others].toarray(), sp.csr_array(rows.functions.linear)
    beside = matrix[:, others].toarray()
    read = (cross != 0).any(axis=0) | (beside != 0).any(axis=0)
    others, cross, beside = others[read], cross[:, read], beside[:, read]
    least, most = low[others], high[others]
    if not np.isfinite(np.concatenate([least, most])).all() or bool((least > most).any()):
        return None
    middle, width = (most + least) / 2, (most - least) / 2
    cost = objective.linear[[k]].toarray().reshape(-1)[own] + cross @ middle
    # A point that is feasible whatever x is: rows at their worst.
    away, spread = beside @ middle, np.abs(beside) @ width
    ends = rows.lower - away + spread, rows.upper - away - spread
    bounds = system.columns.lower[own], system.columns.upper[own]
    from_low, from_high = (np.concatenate(e) for e in zip(ends, bounds, strict=True))
    if bool((from_low > from_high).any()):
        return None
    whole = sp.vstack([matrix[:, own], sp.eye_array(own.size)])
    found = solve_two_sided(sp.csc_matrix(np.triu(H)), cost, whole, from_low, from_high, 1e-9)
    if found.status != "Solved":
        return None
    inverse = np.linalg.inv(H)
    free, moves = -inverse @ cost, inverse @ cross
    radius = _length(H, found.values - free) + float(
        sum(w * _length(H, m) for w, m in zip(width, moves.T, strict=True))
    )
    reach = np.abs(moves) @ width + radius * np.sqrt(inverse.diagonal())
    reach = (1.0 + ROOM) * reach + ROOM * (1.0 + np.abs(free))
    if not bool((np.abs(free) + reach <= LARGEST).all()):
        return None
    return free - reach, free + reach


def _length(H: Array, v: Array) -> float:
    square = float(v @ H @ v)
    return square**0.5 if square > 0.0 else 0.0
