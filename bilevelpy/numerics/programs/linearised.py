"""Lower bounds of convex programs by their slope at a point.

A convex f lies above its tangent: with affine rows, the least value of ``f(v) + f'(v) (w - v)``
over them is a linear program, and no w has a smaller f. At a minimiser it is f(v) itself (M. Frank
and P. Wolfe, Naval Research Logistics Quarterly 3, 1956).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.smooth import Answer, Program

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]


def tangent_bound(program: Program, v: Array) -> float:
    """A value that the objective of a reduced program which is known to be convex reaches nowhere
    below; -inf where rows are not affine, where there is no slope at v, or the tangent has no least
    value.
    """
    slope = _slope(program, v)
    if slope is None:
        return -math.inf
    # Linear solvers take costs below 1e-7 for none: those of an objective that the leader has made
    # small are measured by what it changes by.
    unit = program.unit(v)
    linear = program.with_slope(slope / unit)
    if linear.degree != 1:
        return -math.inf
    found = linear.solve()
    if found.status != "optimal":
        return -math.inf
    own = program.free
    return program.value(v) + unit * found.objective - float(slope[own].dot(v[own]))


def confirmed_by_tangent(program: Program, v: Array, gap: float) -> Answer | None:
    """The least value that a convex program can have by its slope at v, where that is within
    ``gap`` (relative to the value) of the one at v; None otherwise, and for classes that have
    solvers of their own.
    """
    program = program.reduced()
    if program.degree < 3:
        return None
    here, least = program.value(v), tangent_bound(program, v)
    # A leader may have made the objective small: what it changes by is its scale then.
    close = here - least <= gap * max(abs(here), min(1e-3, program.spread(v) or 1e-3))
    return Answer("optimal", None, min(least, here), True) if close else None


def _slope(program: Program, v: Array) -> Array | None:
    """The derivatives by the free columns, 0 elsewhere."""
    f, own = program.objective, program.free
    slope = np.asarray(f.linear[[0]].todense(), dtype=float).reshape(-1)
    if 0 in f.quadratic:
        slope = slope + f.quadratic[0] @ v
    out = np.zeros(slope.size)
    out[own] = slope[own]
    if 0 in f.trees:
        tree = f.tree(0)
        if tree.has_kinks(own.tolist()):
            return None
        try:
            out[own] += tree.gradient(v)[own]
        except (ValueError, ArithmeticError):
            return None
    return out if bool(np.isfinite(out).all()) else None
