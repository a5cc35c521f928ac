"""Starting points for the search: local solutions of the followers' conditions with complementarity
relaxed to small products. They are candidates only; the search answers each by best responses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.smooth_program import Program
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rows import Functions, Rows, join_rows
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.kkt import KKT

Array = np.ndarray[Any, np.dtype[Any]]

# Columns up to which derivatives by differences are affordable.
LARGEST = 45
PRODUCT = 1e-6


def local_points(program: KKT, deadline: float, rng: np.random.Generator) -> Iterator[Array]:
    """Points (of all columns of the program) from random starts until ``deadline``."""
    columns = program.columns
    if columns.count > LARGEST or bool(columns.integer.any()) or not program.stationary:
        return
    rows = join_rows([program.rows, _products(program)], columns.count)
    free = np.arange(columns.count)
    smooth = Program(
        program.objective, rows, columns.lower, columns.upper, columns.integer, free, columns.start
    )
    start = columns.start.copy()
    while time.perf_counter() < deadline:
        found = smooth.descend(start)
        if found is not None and smooth.violation(found) <= 1e-4:
            yield found
        start = columns.start + rng.standard_normal(columns.count) * 10.0 ** rng.uniform(-1, 1)


def _products(program: KKT) -> Rows:
    """``multiplier * slack <= small`` of every pair."""
    trees: dict[int, sc.Scalar] = {}
    for k, pair in enumerate(program.pairs):
        if pair.row is not None:
            value = tree_of(program.rows.functions, pair.row)
            low, high = program.rows.lower[pair.row], program.rows.upper[pair.row]
        else:
            assert pair.column is not None
            value = sc.Col(pair.column)
            low, high = program.columns.lower[pair.column], program.columns.upper[pair.column]
        if pair.side == "upper":
            slack = sc.add(sc.Num(float(high)), sc.mul(sc.Num(-1.0), value))
        else:
            slack = sc.add(value, sc.Num(-float(low)))
        trees[k] = sc.mul(sc.Col(pair.multiplier), slack)
    count, width = len(trees), program.columns.count
    none = (None,) * count
    return Rows(
        tuple(f"product.{pair.name}" for pair in program.pairs),
        Functions(np.zeros(count), sp.csr_array((count, width)), {}, trees),
        np.full(count, -math.inf),
        np.full(count, PRODUCT),
        np.zeros(count, dtype=np.int64),
        none,
        none,
    )
