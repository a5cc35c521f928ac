"""Followers that minimise a quotient of affine functions, by W. Dinkelbach's parametric form.

With ``D > 0`` wherever the linear rows hold, y minimises ``N / D`` under affine rows, and t is the
value there, exactly if::

    y minimises N(x, y) - t D(x, y),      t D(x, y) = N(x, y)

(Management Science 13, 1967). With t in the leader's hands and the equation among the leader's
rows, the follower is linear, and its optimality conditions are exact.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.ir.types import Stance
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.columns import UPPER
from bilevelpy.reductions.rewriting.fixing import fix, polynomial
from bilevelpy.reductions.rewriting.intervals import affine_range
from bilevelpy.reductions.rows import Functions, Rows, System, join_rows
from bilevelpy.reductions.tables import free_rows, tree_functions

if TYPE_CHECKING:
    from collections.abc import Sequence

Quotient = tuple[sc.Scalar, sc.Scalar]

# A denominator keeps its sign where its least value is above this fraction of its coefficients.
APART = 1e-6


def without_quotients(system: System) -> System:
    """The same program with every such follower in parametric form; others stay as they are.

    Games, shadow prices (those of the parametric form are others), whole numbers and pessimistic
    leaders are left alone.
    """
    program = system.bound.program
    prices = bool((system.columns.owner < 0).any())
    games = any(f.nash for f in system.followers)
    if program.stance is Stance.PESSIMISTIC or prices or games or not system.lower_objectives.trees:
        return system
    found: dict[int, Quotient] = {}
    for k, tree in system.lower_objectives.trees.items():
        quotient = _quotient(system, k, tree)
        if quotient is not None:
            found[k] = quotient
    return _parametric(system, found) if found else system


def _quotient(system: System, k: int, tree: sc.Scalar) -> Quotient | None:
    """Numerator and positive denominator of a follower's objective, terms of others left out."""
    own = set(np.flatnonzero(system.columns.owner == k + 1).tolist())
    if bool(system.columns.integer[sorted(own)].any()):
        return None
    terms = tree.arguments if isinstance(tree, sc.Call) and tree.function == "add" else (tree,)
    moving = [t for t in terms if sc.columns([t]) & own]
    if len(moving) != 1 or not _rows_are_affine(system, k, own):
        return None
    parts = _divided(moving[0])
    if parts is None or not _is_affine(parts[0], own):
        return None
    top, bottom = parts
    terms_below = polynomial(bottom)
    if terms_below is None or any(len(key) > 1 for key in terms_below):
        return None
    low, high = affine_range(system, terms_below)
    size = max((abs(c) for key, c in terms_below.items() if key), default=0.0)
    if low > APART * size:
        return top, bottom
    if high < -APART * size:
        minus = sc.Num(-1.0)
        return sc.mul(minus, top), sc.mul(minus, bottom)
    return None


def _divided(term: sc.Scalar) -> Quotient | None:
    """A term as a quotient: one factor that divides, the others above it."""
    factors = term.arguments if isinstance(term, sc.Call) and term.function == "mul" else (term,)
    below = [f for f in factors if isinstance(f, sc.Call) and f.function == "div"]
    if len(below) != 1:
        return None
    rest = [f for f in factors if f is not below[0]]
    return sc.mul(below[0].arguments[0], *rest), below[0].arguments[1]


def _is_affine(tree: sc.Scalar, own: set[int]) -> bool:
    """Whether a tree is a polynomial of degree two that is affine in a follower's variables."""
    terms = polynomial(tree)
    return terms is not None and not any(len(key) == 2 and set(key) <= own for key in terms)


def _rows_are_affine(system: System, k: int, own: set[int]) -> bool:
    """Whether the rows of a follower are affine in its variables."""
    rows = system.lower_rows
    chosen = sorted(own)
    for r in np.flatnonzero(rows.follower == k + 1):
        bent = rows.functions.quadratic.get(int(r))
        if r in rows.functions.trees or (bent is not None and bent[chosen][:, chosen].nnz):
            return False
    return True


def _parametric(system: System, found: dict[int, Quotient]) -> System:
    first, count = system.columns.count, len(found)
    names = [f"quotient.{system.followers[k].name}" for k in found]
    ranges = [_values(system, top, bottom) for top, bottom in found.values()]
    columns = system.columns.extended(
        names,
        np.array([low for low, _ in ranges]),
        np.array([high for _, high in ranges]),
        np.zeros(count, dtype=bool),
        UPPER,
    )
    width, start = columns.count, columns.start.copy()
    objectives = dict(system.lower_objectives.trees)
    equations: list[sc.Scalar] = []
    for n, (k, (top, bottom)) in enumerate(found.items()):
        t = sc.Col(first + n)
        below = sc.mul(sc.Num(-1.0), t, bottom)
        objectives[k] = sc.add(top, below)
        equations.append(objectives[k])
        at = start[:first].tolist()
        divisor = sc.evaluate(bottom, at)
        if divisor > 0.0:
            start[first + n] = sc.evaluate(top, at) / divisor
    columns = replace(columns, start=np.clip(start, columns.lower, columns.upper))
    lower = replace(system.lower_objectives.widened(width), trees=objectives)
    return replace(
        system,
        columns=columns,
        objective=system.objective.widened(width),
        upper_rows=join_rows(
            [system.upper_rows.widened(width), _equations(names, equations, width)], width
        ),
        lower_objectives=_read(lower, width),
        lower_rows=system.lower_rows.widened(width),
    )


def _values(system: System, top: sc.Scalar, bottom: sc.Scalar) -> tuple[float, float]:
    """The range of a quotient, from those of its parts where both are affine."""
    terms, divisor = polynomial(top), polynomial(bottom)
    if terms is None or divisor is None or any(len(key) > 1 for key in terms):
        return -math.inf, math.inf
    (low, high), (least, most) = affine_range(system, terms), affine_range(system, divisor)
    ends = [a / b if math.isfinite(a) else a for a in (low, high) for b in (least, most)]
    return min(ends), max(ends)


def _equations(names: Sequence[str], trees: list[sc.Scalar], width: int) -> Rows:
    count = len(trees)
    read = _read(tree_functions(trees, width), width)
    constant, kept = read.constant, np.array([r in read.trees for r in range(count)], dtype=bool)
    ends = np.where(kept, 0.0, -constant)
    return free_rows(names, replace(read, constant=np.where(kept, constant, 0.0)), ends, ends)


def _read(functions: Functions, width: int) -> Functions:
    """Trees that are polynomials of degree two as coefficients."""
    return fix(functions, np.arange(width), np.zeros(width))
