"""Followers as they were before epigraphs took the place of their kinks: what cuts are made from.

A cut compares the follower's objective with that at another response ``z``, for every x. With the
epigraph variables of ``z`` fixed, it would hold only where their rows happen to hold at x too.
Their values at x are known, though: each is the greatest of the parts that it stands for::

    t >= e_1(x, y),  t >= e_2(x, y)      ->      t = max(e_1(x, z), e_2(x, z))
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.fixing import fix, mapped
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# Names that `reductions.rewriting.lift` gives; what a model declares never ends in a number alone.
KINK, EPIGRAPH = re.compile(r"kink\.\d+"), re.compile(r"epigraph\.\d+")


def kink_columns(system: System) -> Array:
    """Which columns are epigraphs of kinks."""
    return np.array([KINK.fullmatch(n) is not None for n in system.columns.names], dtype=bool)


def epigraph_rows(rows: Rows) -> Array:
    """Which rows bound such columns."""
    return np.array([EPIGRAPH.fullmatch(n) is not None for n in rows.names], dtype=bool)


def as_given(system: System, k: int) -> tuple[Functions, Rows]:
    """Objective and rows of follower k (from 0), with the kinks that its epigraphs stand for."""
    objective = system.lower_objectives.take([k])
    rows = system.lower_rows.take(np.flatnonzero(system.lower_rows.follower == k + 1))
    epigraphs = epigraph_rows(rows)
    if not epigraphs.any():
        return objective, rows
    own = np.flatnonzero(kink_columns(system) & (system.columns.owner == k + 1))
    heights: dict[int, sc.Scalar] = {}
    # Kinks inside of others come first.
    for j in own:
        parts = [
            _above(rows, int(r), int(j), heights)
            for r in np.flatnonzero(epigraphs)
            if _bounds(rows.functions, int(r)) == int(j)
        ]
        heights[int(j)] = reduce(lambda a, b: sc.call("max", a, b), parts)
    kept = rows.take(np.flatnonzero(~epigraphs))
    return (
        _replaced(objective, heights),
        replace(kept, functions=_replaced(kept.functions, heights)),
    )


def _bounds(functions: Functions, row: int) -> int:
    """The column that an epigraph row bounds: the last one that it reads."""
    return max(functions.reads(row))


def _above(rows: Rows, row: int, j: int, heights: dict[int, sc.Scalar]) -> sc.Scalar:
    """What column j has to be at least: ``(e - U) / c`` for a row ``e - c t <= U``."""
    tree = tree_of(rows.functions, row)
    slope = sc.derivative(tree, j)
    assert isinstance(slope, sc.Num)
    assert slope.value < 0.0
    rest = mapped(tree, lambda c: sc.ZERO if c.index == j else heights.get(c.index, c))
    lifted = sc.add(rest, sc.Num(-float(rows.upper[row])))
    return sc.mul(sc.Num(-1.0 / slope.value), lifted)


def _replaced(functions: Functions, heights: dict[int, sc.Scalar]) -> Functions:
    """The functions with trees in place of some columns; polynomials remain coefficients."""
    width = functions.linear.shape[1]
    moving = [r for r in range(functions.count) if functions.reads(r) & heights.keys()]
    trees = dict(functions.trees)
    for r in moving:
        trees[r] = mapped(tree_of(functions, r), lambda c: heights.get(c.index, c))
    still = np.ones(functions.count)
    still[moving] = 0.0
    linear = sp.csr_array(sp.diags_array(still) @ functions.linear)
    made = Functions(
        functions.constant * still,
        linear,
        {r: q for r, q in functions.quadratic.items() if r not in moving},
        trees,
    )
    return fix(made, np.arange(width), np.zeros(width))
