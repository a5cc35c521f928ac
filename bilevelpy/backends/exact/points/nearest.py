"""A first point of a linear problem whose leader has rows on the responses: back and forth between
what the rows allow and what the followers answer.

From a point of the relaxation ``min F + w f`` over the rows of both levels, take the best response
z to its x, then the point of the relaxation nearest to it::

    min  |y - z|_1 + (F + w f) / large   s.t.   rows of both levels,

until a response meets the leader's rows. The greater w, the nearer is the beginning to responses,
and the less F counts. Nothing says that it ends; a dozen linear programs mostly suffice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from bilevelpy.backends.exact.relaxations.pairs import without_pairs
from bilevelpy.numerics.programs.follower import follower_program, row_scales
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions.rows import join_rows

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Weights of the followers' objectives (in the size of F), steps from each, and how far rows may be
# off relative to their terms.
WEIGHTS, STEPS, OFF = (0.0, 0.1, 0.5, 2.0, 10.0, 100.0), 20, 1e-8
# What F counts beside distances.
ASIDE = 1e-3


def near_responses(program: KKT, seconds: float) -> tuple[Array, float] | None:
    """A point of the followers' conditions in ``program``, and F there; None where there is none
    in time, or something is not linear or not real.
    """
    system, columns = program.system, program.system.columns
    games = any(f.nash for f in system.followers)
    read = bool((columns.owner == -1).any())
    if system.degree > 1 or bool(columns.integer.any()) or games or read:
        return None
    v = _back_and_forth(system, time.perf_counter() + seconds)
    if v is None:
        return None
    # The leader's best among the best responses to this x, and multipliers: one linear program.
    rows, whole = without_pairs(program), np.zeros(program.columns.count, dtype=bool)
    if rows is None:
        return None
    at = program.columns.start.copy()
    at[: v.size] = v
    free = np.setdiff1d(np.arange(at.size), system.upper_columns)
    lower, upper = program.columns.lower, program.columns.upper
    found = Program(program.objective, rows, lower, upper, whole, free, at).solve()
    if found.status != "optimal" or found.values is None:
        return None
    return found.values, found.objective


def _back_and_forth(system: System, deadline: float) -> Array | None:
    """The best point that was met at which all followers answer and the leader's rows hold."""
    columns, below = system.columns, system.lower_columns
    n, m = columns.count, below.size
    rows = join_rows([system.upper_rows, system.lower_rows], n)
    up, down = np.isfinite(rows.upper), np.isfinite(rows.lower)
    A, constant = rows.functions.linear, rows.functions.constant
    least = sp.vstack([A[up], -A[down]])
    ends = np.concatenate([(rows.upper - constant)[up], (constant - rows.lower)[down]])
    take = sp.csr_array((np.ones(m), (np.arange(m), below)), shape=(m, n))
    near = sp.block_array([[least, None], [take, -sp.eye_array(m)], [-take, -sp.eye_array(m)]])
    box = np.column_stack([columns.lower, columns.upper])
    distances = np.tile([0.0, np.inf], (m, 1))
    F = _sized(system.objective.linear.toarray()[0])
    f = _sized(np.asarray(system.lower_objectives.linear.sum(axis=0)).reshape(-1))
    best, value = None, np.inf
    for w in WEIGHTS:
        found = linprog(F + w * f, least, ends, bounds=box)
        for _ in range(STEPS):
            if found.status != 0 or time.perf_counter() > deadline:
                break
            z = _answered(system, found.x[:n])
            if z is None:
                break
            off = system.upper_rows.violation(z) > OFF * row_scales(system.upper_rows, z)
            if not off.any():
                here = float(system.objective.value(z)[0])
                best, value = (z, here) if here < value else (best, value)
                break
            goal = np.concatenate([ASIDE * (F + w * f), np.ones(m)])
            limits = np.concatenate([ends, z[below], -z[below]])
            found = linprog(goal, near, limits, bounds=np.vstack([box, distances]))
    return best


def _answered(system: System, v: Array) -> Array | None:
    """The point with a best response of every follower to its x."""
    z = v.copy()
    for k in range(len(system.followers)):
        answer = follower_program(system, k, v).solve()
        if answer.status != "optimal" or answer.values is None:
            return None
        own = system.columns.owner == k + 1
        z[own] = answer.values[own]
    return z


def _sized(slope: Array) -> Array:
    """A slope whose largest entry is 1."""
    return np.asarray(slope / max(float(np.abs(slope).max(initial=0.0)), 1e-12))
