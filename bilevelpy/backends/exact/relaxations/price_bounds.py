"""Bounds of the prices that a leader multiplies: products without bounds are none to branch on.

The valid prices over all x are those that the followers' conditions leave, so their ends are the
optima of two programs with complementarity, which are linear where the followers are quadratic::

    min, max  lam_r   under rows, stationarity and pairs

Prices of degenerate rows may have no end; they stay as they are.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.reductions.rows import Functions

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.outcome import Limits
    from bilevelpy.reductions.optimality.conditions import KKT

# What is added to an end for the tolerance of rows (relative); ends beyond this size say nothing.
ROOM, LARGEST = 1e-5, 1e8
# Seconds for the ends of all prices, and prices with ends at most.
SECONDS, MOST = 10.0, 20


def with_price_bounds(program: KKT, limits: Limits) -> KKT:
    """The program with the ends of prices in products of the leader's objective that have none,
    where they are found within the limits (ten seconds at most).
    """
    if program.objective.degree != 2 or program.rows.functions.degree > 1:
        return program
    columns, owner = program.columns, program.system.columns.owner
    lower, upper = columns.lower.copy(), columns.upper.copy()
    read = np.unique(program.objective.quadratic[0].tocoo().row)
    prices = [int(j) for j in read if j < owner.size and owner[j] == -1]
    until = time.perf_counter() + min(limits.seconds, SECONDS)
    # An optimum is confirmed up to ten times the gap (``Relaxed.nothing_below``).
    room = max(ROOM, 20.0 * limits.gap)
    for j in prices[:MOST]:
        row = sp.csr_array(([1.0], ([0], [j])), shape=(1, columns.count))
        alone = Relaxed(replace(program, objective=Functions(np.zeros(1), row)))
        for ends, sign in ((lower, 1.0), (upper, -1.0)):
            left = until - time.perf_counter()
            if math.isfinite(ends[j]) or left <= 0.0:
                continue
            found = alone.solve(replace(limits, seconds=left), sign)
            if found.status == "optimal" and abs(found.bound) <= LARGEST:
                ends[j] = sign * (found.bound - room * max(1.0, abs(found.bound)))
    return replace(program, columns=replace(columns, lower=lower, upper=upper))
