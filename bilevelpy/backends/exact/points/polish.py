"""Sharper values for a point that SCIP found: its active set is kept, everything else solved again.

SCIP allows rows to be off by 1e-6, and a quadratic objective within its gap leaves x inexact. With
one side of every pair fixed at zero the program is smooth, and usually linear or convex quadratic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.smooth import Program

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

Array = np.ndarray[Any, np.dtype[Any]]

# The polished point must not be off by more than this, nor worse than the raw one by more.
SHARP = 1e-7
# Columns up to which programs that are not convex quadratic are sharpened.
SMALL = 60


def polish(program: KKT, raw: Array) -> Array:
    """A point with the same integers and the same zero side of every pair, or the raw one."""
    v = np.clip(raw, program.columns.lower, program.columns.upper)
    whole = np.flatnonzero(program.columns.integer)
    v[whole] = np.round(v[whole])
    lower, upper = program.columns.lower.copy(), program.columns.upper.copy()
    row_lower, row_upper = program.rows.lower.copy(), program.rows.upper.copy()
    for pair in program.pairs:
        slack = program.slack(pair, v)
        if v[pair.multiplier] <= slack:
            upper[pair.multiplier] = 0.0
        elif pair.row is None:
            assert pair.column is not None
            end = lower[pair.column] if pair.side == "lower" else upper[pair.column]
            lower[pair.column] = upper[pair.column] = end
        else:
            end = row_upper[pair.row] if pair.side == "upper" else row_lower[pair.row]
            row_lower[pair.row] = row_upper[pair.row] = end
    rows = program.rows
    pinned = type(rows)(
        rows.names, rows.functions, row_lower, row_upper, rows.follower, rows.spans, rows.origin
    )
    free = np.flatnonzero(~program.columns.integer)
    smooth = Program(program.objective, pinned, lower, upper, program.columns.integer, free, v)
    if smooth.degree == 3:
        small = free.size <= SMALL
        better = smooth.descend(v) if small else None
    else:
        better = smooth.solve().values
    if better is None:
        return v
    value, before = smooth.value(better), smooth.value(v)
    worse = value > before + 1e-5 * max(1.0, abs(before))
    off = float(program.rows.violation(v).max(initial=0.0))
    if worse or smooth.violation(better) > max(SHARP, off if math.isfinite(off) else 0.0):
        return v
    return better
