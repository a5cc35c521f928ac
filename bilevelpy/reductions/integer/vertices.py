"""Whether a leader's best choice among best responses of a linear follower lies at a vertex.

An optimal face that has no end holds points that are better than its vertices where F falls along
it. None does where no direction ``d`` that rows and bounds leave open has::

    c(x)' d <= 0    and    grad_y F(x)' d < 0

Ranges over all x make one linear program of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from bilevelpy.reductions.rewriting.intervals import column_ranges
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]


def at_vertices(system: System, k: int) -> bool:
    """Whether F is nowhere better than at vertices of the best responses of follower k (from 0),
    whose rows and objective are linear in its variables, as is F; what is not shown is denied.
    """
    columns, rows = system.columns, system.lower_rows
    own = np.flatnonzero(columns.owner == k + 1)
    down, up = np.isneginf(columns.lower[own]), np.isposinf(columns.upper[own])
    if not (down | up).any():
        return True
    mine = np.flatnonzero(rows.follower == k + 1)
    matrix = sp.csr_array(rows.functions.linear[mine][:, own])
    # d = p - q with p, q >= 0: each has the least that it can cost over all x.
    both = sp.hstack([matrix, -matrix]).tocsr()
    ends = np.isfinite(rows.upper[mine]), np.isfinite(rows.lower[mine])
    ways = sp.vstack([both[ends[0]], -both[ends[1]]])
    most = np.where(np.concatenate([up, down]), 1.0, 0.0)
    cost = _least(system, system.lower_objectives, k, own)
    gain = _least(system, system.objective, 0, own)
    open_ = most > 0.0
    if not np.isfinite(cost[open_]).all():
        cost = np.zeros(most.size)
    if not np.isfinite(gain[open_]).all():
        gain = -np.ones(most.size)  # any direction may be one along which F falls
    goal = np.where(open_, gain, 0.0)
    cost = np.where(open_, cost, 0.0)
    size = max(float(np.abs(cost).max(initial=0.0)), np.finfo(float).tiny)
    limits = sp.vstack([ways, sp.csr_array(cost.reshape(1, -1) / size)])
    bounds = np.stack([np.zeros(most.size), most], axis=1)
    found = linprog(goal, limits, np.zeros(limits.shape[0]), bounds=bounds)
    return bool(found.status == 0 and found.fun >= -1e-9 * float(np.abs(goal).max(initial=0.0)))


def _least(system: System, functions: Functions, row: int, own: Array) -> Array:
    """The least slopes of a function in a follower's variables, and in their negatives, over the
    ranges of the variables that they are multiplied with.
    """
    low, high = column_ranges(system)
    least, greatest = np.zeros(low.size), np.zeros(low.size)
    for j, c in linear_terms(functions, row):
        least[j] += c
        greatest[j] += c
    for i, j, c in quadratic_terms(functions, row):
        for a, b in ((i, j), (j, i)):
            ends = [0.0 if e == 0.0 else c * e for e in (low[b], high[b])]
            least[a] += min(ends)
            greatest[a] += max(ends)
    return np.concatenate([least[own], -greatest[own]])
