"""F at the response that is solved again: what a follower's tolerance gains for the leader.

A response counts as best within a tolerance of the follower's objective, and where that is flat F
changes by as much as its square root. From the returned response every follower descends to the
exact minimum beside it; F there is what is reported. The leader's variables that lie beside a bound
by less than rounding are put onto it: ties among whole responses are often there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.certificate.constrained import FEASIBLE
from bilevelpy.numerics.programs.follower import follower_program, row_scales

if TYPE_CHECKING:
    from bilevelpy.numerics.programs.smooth import Program
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Variables of both levels up to which responses are solved again by descent.
SMALL = 60
# Distances from a bound that count as none (relative to it).
BESIDE = 1e-8
# Distance of responses that are the same one (relative to the largest entry and 1).
SAME = 1e-5


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
        whole = program.integer[program.free]
        program = replace(program, free=program.free[~whole])  # whole numbers do not drift
        if program.free.size:
            moved[program.free] = _sharp(program, moved, v)[program.free]
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


def _sharp(program: Program, moved: Array, v: Array) -> Array:
    """The minimum beside ``moved``. Descent ends where f has no slope to speak of, and a vertex is
    off by what its rows may be: F may have slope enough. Engines for linear and quadratic programs
    are sharper, and may be asked where they mean the same response of several.
    """
    own = program.free
    found = program.descend(moved) if program.degree > 1 else moved
    found = moved if found is None else found
    exact = program.solve(convex=True, sharp=True).values if program.degree <= 2 else None
    if exact is not None:
        apart = float(np.abs(exact[own] - found[own]).max())
        found = exact if apart <= SAME * max(1.0, float(np.abs(found[own]).max())) else found
    return found if _is_beside(program, found, v) else moved


def _is_beside(program: Program, found: Array, v: Array) -> bool:
    """Whether a response is as good as the one in ``v``, and near it."""
    own = program.free
    near = float(np.abs(found[own] - v[own]).max()) <= 1e-2 * max(1.0, float(np.abs(v[own]).max()))
    feasible = program.violation(found) <= max(1e-8, program.violation(v))
    size = max(abs(program.value(v)), 1e-3)
    return near and feasible and program.value(found) <= program.value(v) + 1e-7 * size
