"""A follower's program where all else is given, and the sizes that its values are compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.difference import terms_of

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]


def follower_program(system: System, k: int, v: Array) -> Program:
    """The problem of follower k (from 0) with everybody else's variables at ``v``."""
    columns = system.columns
    return Program(
        system.lower_objectives.take([k]),
        system.lower_rows.take(np.flatnonzero(system.lower_rows.follower == k + 1)),
        columns.lower,
        columns.upper,
        columns.integer,
        np.flatnonzero(columns.owner == k + 1),
        v,
    )


def row_scales(rows: Rows, v: Array) -> Array:
    """The size of the terms of every row at a point, at least 1e-3."""
    # A column at 0 still has the units of its neighbours.
    size = np.maximum(np.abs(v), 1e-2 * float(np.abs(v).max(initial=0.0)))
    scale = np.asarray(abs(rows.functions.linear) @ size).reshape(-1)
    for bound in (rows.lower, rows.upper):
        scale = np.maximum(scale, np.where(np.isfinite(bound), np.abs(bound), 0.0))
    for r, q in rows.functions.quadratic.items():
        scale[r] += float(np.abs(v) @ (abs(q) @ np.abs(v)))
    for r in rows.functions.trees:
        scale[r] = max(scale[r], 1.0)
    return np.asarray(np.maximum(scale, 1e-3))


def objective_scale(functions: Functions, row: int, v: Array, own: Array) -> float:
    """The size of the terms of an objective that the own columns have a part in."""
    if row in functions.trees:
        chosen, values = set(own.tolist()), v.tolist()
        parts = [t for t in terms_of(functions.trees[row]) if sc.columns([t]) & chosen]
        try:
            return math.fsum(abs(sc.evaluate(t, values)) for t in parts)
        except (ValueError, ArithmeticError):  # it has no value there, nor terms
            return 0.0
    # A response at 0 still has the units of its neighbours.
    size = np.maximum(np.abs(v[own]), 1e-2 * float(np.abs(v[own]).max(initial=0.0)))
    total = float(np.asarray(abs(functions.linear[[row]][:, own]) @ size).sum())
    if row in functions.quadratic:
        total += float(size @ (abs(functions.quadratic[row][own]) @ np.abs(v)))
    return total


def gain(system: System, k: int, v: Array, least: float) -> float:
    """How much follower k gains by a response of value ``least``, relative to its terms; anything
    is better than a point where its objective has no value.
    """
    program = follower_program(system, k, v)
    here = program.value(v)
    if here == math.inf:
        return math.inf
    terms = objective_scale(system.lower_objectives, k, v, program.free)
    # Where the leader multiplies the objective by next to nothing, what it changes by is its scale.
    size = max(terms, abs(least), min(1e-3, program.spread(v) or 1e-3))
    return (here - least) / size
