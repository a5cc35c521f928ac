"""F at the response that is solved again: what a follower's tolerance gains for the leader.

A response counts as best within a tolerance of the follower's objective, and where that is flat F
changes by as much as its square root. From the returned response every follower descends to the
exact minimum beside it; F there is what is reported. The leader's variables that lie beside a bound
by less than rounding are put onto it: ties among whole responses are often there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.certificate.constrained import FEASIBLE
from bilevelpy.numerics.programs.follower import follower_program, row_scales

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Variables of both levels up to which responses are solved again by descent.
SMALL = 60
# Distances from a bound that count as none (relative to it).
BESIDE = 1e-8


def resolved(system: System, v: Array) -> tuple[Array, float]:
    """Values with every response moved to the minimum beside it, and F (minimised) there.

    Where the leader's rows do not hold at these responses, the given values come back, with F at
    the responses all the same: the difference is how far the claim may be off.
    """
    here = float(system.objective.value(v)[0])
    if system.columns.count > SMALL or any(f.nash for f in system.followers):
        return v, here
    moved = _on_bounds(system, v)
    for k in range(len(system.followers)):
        program = follower_program(system, k, moved).reduced()
        own = program.free
        if not own.size or program.degree == 1 or bool(program.integer[own].any()):
            continue  # vertices and whole numbers do not drift with a tolerance
        found = program.descend(moved)
        if found is None:
            continue
        size = max(abs(program.value(v)), 1e-3)
        near = float(np.abs(found[own] - v[own]).max()) <= 1e-2 * max(
            1.0, float(np.abs(v[own]).max())
        )
        feasible = program.violation(found) <= max(1e-8, program.violation(v))
        if near and feasible and program.value(found) <= program.value(v) + 1e-7 * size:
            moved[own] = found[own]
    try:
        there = float(system.objective.value(moved)[0])
    except (ValueError, ArithmeticError):
        return v, here
    if not math.isfinite(there):
        return v, here
    rows = system.upper_rows
    holds = bool((rows.violation(moved) <= FEASIBLE * row_scales(rows, moved)).all())
    return (moved if holds else v), there


def _on_bounds(system: System, v: Array) -> Array:
    moved, own = v.copy(), system.upper_columns
    for ends in (system.columns.lower[own], system.columns.upper[own]):
        there = np.isfinite(ends)
        near = np.where(there, ends, 0.0)
        close = there & (np.abs(v[own] - near) <= BESIDE * np.maximum(1.0, np.abs(near)))
        moved[own] = np.where(close, near, moved[own])
    return moved
