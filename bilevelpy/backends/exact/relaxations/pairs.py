"""Complementarity of all pairs in one row: strong duality, as functions that engines for linear and
quadratic programs take.

Every pair is complementary where ``sum of slack * multiplier <= 0``. With the stationarity of
linear and quadratic followers the products with their own columns fall out of the sum: what is
left is the primal minus the dual objective, linear where all that other levels decide is fixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.optimality.kkt import own_slopes
from bilevelpy.reductions.rows import Functions, Rows, join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT


def without_pairs(program: KKT) -> Rows | None:
    """The rows and, in place of the pairs, ``sum of slack * multiplier <= 0``; None where a row or
    an objective of a follower is neither linear nor quadratic.
    """
    system, rows, columns = program.system, program.rows, program.columns
    if system.lower_objectives.trees or rows.functions.trees:
        return None
    owner, width = system.columns.owner, columns.count
    linear: dict[int, float] = {}
    products: list[tuple[int, int, float]] = []
    slopes = own_slopes(system)
    for j in program.stationary:
        k = int(owner[j]) - 1
        linear[j] = linear.get(j, 0.0) + float(slopes[j])
        if k in system.lower_objectives.quadratic:
            q = system.lower_objectives.quadratic[k]
            span = slice(q.indptr[j], q.indptr[j + 1])
            products += [
                (j, int(i), float(c)) for i, c in zip(q.indices[span], q.data[span], strict=True)
            ]
    for pair in (*program.pairs, *program.equations):
        low, high = (columns.lower, columns.upper) if pair.row is None else (rows.lower, rows.upper)
        place = pair.column if pair.row is None else pair.row
        assert place is not None
        sign = -1.0 if pair.side == "lower" else 1.0
        end = float((low if pair.side == "lower" else high)[place])
        linear[pair.multiplier] = linear.get(pair.multiplier, 0.0) + sign * end
        if pair.row is not None:
            follower = int(rows.follower[pair.row])
            products += [
                (pair.multiplier, i, -sign * c)
                for i, c in linear_terms(rows.functions, pair.row)
                if not (i < owner.size and owner[i] == follower)
            ]
            if pair.row in rows.functions.quadratic:
                return None
    entries = ([p[2] for p in products], ([p[0] for p in products], [p[1] for p in products]))
    half = sp.csr_array(entries, shape=(width, width))
    places = list(linear)
    row = sp.csr_array(([linear[p] for p in places], ([0] * len(places), places)), shape=(1, width))
    functions = Functions(np.zeros(1), row, {0: sp.csr_array(half + half.T)} if products else {})
    zero, upper_level = np.zeros(1), np.zeros(1, dtype=np.int64)
    gap = Rows(("duality",), functions, zero - np.inf, zero, upper_level, (None,), (None,))
    return join_rows([rows, gap], width)
