"""Responses that a follower prefers, as they move with x: rows for a local search.

A response ``z`` at one x belongs to a branch ``z(x)``: the solution of the follower's conditions
with the rows kept tight that hold ``z``. Beside the leader's program stand the equations of the
branch, and the follower must not do worse than there::

    grad_z f(x, z) + sum_a nu_a grad_z g_a(x, z) = 0,   g_a(x, z) = end_a,   f(x, y) <= f(x, z)

Where ``z(x)`` breaks another row, the branch says nothing about x; the rows are for heuristics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.evaluation import Evaluation
from bilevelpy.reductions.rows import Rows
from bilevelpy.reductions.tables import free_rows, tree_functions
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# A row is tight where its slack is at most this, relative to 1 and its end.
TIGHT = 1e-6
# How much longer normals of rows that move with x count, where several hold the same.
PREFERRED = 1.01


@dataclass(frozen=True, slots=True)
class Branch:
    """A response of follower k: ``values`` of all columns, the own columns that stay at their
    values, and the rows of the system that stay tight, with their ends.
    """

    follower: int
    values: Array
    fixed: tuple[int, ...]
    rows: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """Further columns (``lower``, ``upper``, ``start``) behind the given ones, and rows over all
    of them.
    """

    rows: Rows
    lower: Array
    upper: Array
    start: Array


def branch(system: System, k: int, v: Array) -> Branch:
    """The branch of the response in ``v``: what holds it is read off non-negative multipliers."""
    own = [int(j) for j in np.flatnonzero(system.columns.owner == k + 1)]
    place = {j: n for n, j in enumerate(own)}
    normals: list[Array] = []
    what: list[tuple[str, int, float]] = []
    for j in own:
        for end, sign in ((system.columns.lower[j], -1.0), (system.columns.upper[j], 1.0)):
            if math.isfinite(end) and abs(v[j] - end) <= TIGHT * max(1.0, abs(end)):
                normal = np.zeros(len(own))
                normal[place[j]] = sign
                normals.append(normal)
                what.append(("column", j, float(end)))
    rows = system.lower_rows
    for r in (int(r) for r in np.flatnonzero(rows.follower == k + 1)):
        value = float(rows.functions.take([r]).value(v)[0])
        for end, sign in ((rows.lower[r], -1.0), (rows.upper[r], 1.0)):
            if math.isfinite(end) and abs(value - end) <= TIGHT * max(1.0, abs(end)):
                slope = slopes_at(tree_of(rows.functions, r), own, v)
                if slope is not None and np.isfinite(slope).all():
                    # Of rows that hold z alike, those that move with x keep z(x) feasible.
                    moves = bool(rows.functions.reads(r) - place.keys())
                    normals.append(sign * slope * (PREFERRED if moves else 1.0))
                    what.append(("row", r, float(end)))
    slope = slopes_at(tree_of(system.lower_objectives, k), own, v)
    chosen = list(range(len(what)))
    if slope is not None and np.isfinite(slope).all() and normals:
        weights, _ = nnls(np.array(normals).T, -slope)
        chosen = [n for n in chosen if weights[n] > TIGHT * max(1.0, float(np.abs(slope).max()))]
    fixed = tuple(what[n][1] for n in chosen if what[n][0] == "column")
    tight = dict((what[n][1], what[n][2]) for n in chosen if what[n][0] == "row")
    return Branch(k, v, fixed, tuple(tight.items()))


def slopes_at(tree: sc.Scalar, own: Sequence[int], v: Array) -> Array | None:
    """The derivatives of a function at a point; None where it has none, or no value there."""
    prepared = Evaluation(tree, v.size)
    if prepared.has_kinks(own):
        return None
    try:
        return np.asarray(prepared.gradient(v)[list(own)])
    except (ValueError, ArithmeticError):
        return None


def extension(system: System, branches: Sequence[Branch], width: int) -> Extension:
    """Columns and rows of branches, behind ``width`` columns."""
    trees: list[sc.Scalar] = []
    equation: list[bool] = []
    start: list[float] = []
    lower: list[float] = []
    upper: list[float] = []
    for b in branches:
        own = [int(j) for j in np.flatnonzero(system.columns.owner == b.follower + 1)]
        first = width + len(start)
        copy = {j: first + n for n, j in enumerate(own)}
        for j in own:
            start.append(float(b.values[j]))
            low, high = float(system.columns.lower[j]), float(system.columns.upper[j])
            held = j in b.fixed
            lower.append(start[-1] if held else low)
            upper.append(start[-1] if held else high)
        here = tree_of(system.lower_objectives, b.follower)
        there = _renamed(here, copy)
        trees.append(sc.add(here, sc.mul(sc.Num(-1.0), there)))
        equation.append(False)
        parts = [there]
        for r, end in b.rows:
            body = _renamed(tree_of(system.lower_rows.functions, r), copy)
            trees.append(sc.add(body, sc.Num(-end)))
            equation.append(True)
            parts.append(sc.mul(sc.Col(width + len(start)), body))
            start.append(0.0)
            lower.append(-math.inf)
            upper.append(math.inf)
        for j in own:
            slope = sc.derivative(sc.add(*parts), copy[j]) if j not in b.fixed else sc.ZERO
            if slope is not None and slope != sc.ZERO:
                trees.append(slope)
                equation.append(True)
    count = len(trees)
    made = tree_functions(trees, width + len(start))
    low_ends = np.where(np.array(equation, dtype=bool), 0.0, -math.inf)
    names = [f"branch.{n}" for n in range(count)]
    rows = free_rows(names, made, low_ends, np.zeros(count))
    return Extension(rows, np.array(lower), np.array(upper), np.array(start))


def _renamed(root: sc.Scalar, to: dict[int, int]) -> sc.Scalar:
    """The tree with other columns."""
    known: dict[int, sc.Scalar] = {}
    for node in sc.postorder(root):
        if isinstance(node, sc.Col):
            known[id(node)] = sc.Col(to.get(node.index, node.index))
        elif isinstance(node, sc.Call):
            known[id(node)] = sc.Call(node.function, tuple(known[id(a)] for a in node.arguments))
        else:
            known[id(node)] = node
    return known[id(root)]
