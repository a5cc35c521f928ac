"""What is between the edge of a cut and its inside.

A response ``z`` that breaks a row of its follower leaves x free, and how much it breaks it does not
matter. A relaxation has to allow no violation at all, which is not what is meant: beside an edge
that whole numbers or other rows do not let x cross, ``z`` is feasible all along. A twin of the
point tells them apart. It has the same whole numbers and takes the same way out of every cut, it
meets the rows that are affine in real numbers, and it breaks what it is to break clearly. Where
there is none, the point lies on an edge with nothing behind it. Where there is one, all points
between the two are inside, so that the value is a limit of theirs.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Functions, Rows

# By how much a twin breaks a row (relative to its terms): more than an engine lets whole numbers
# gain by not being whole, less than what data of reasonable sizes leaves between an edge and the
# next.
STRICT = 1e-5


def twin_of(model: Model, rows: Rows) -> Model:
    """A further point in the same program, with the ``rows`` that are affine in real numbers."""
    columns = model.columns
    twin = copy.copy(model)
    twin.variables = list(model.variables)
    chosen = [r for r in range(rows.count) if is_affine(columns, rows.functions, r)]
    for j in range(rows.functions.linear.shape[1]):
        if not columns.integer[j]:
            made = model.variables[j]
            low, high = made.getLbOriginal(), made.getUbOriginal()
            twin.variables[j] = model.scip.addVar(f"twin.{columns.names[j]}", "C", low, high)
    twin.rows(rows, chosen)
    return twin


def is_affine(columns: Columns, functions: Functions, row: int) -> bool:
    """Whether a function is affine in the real numbers, for whole numbers as they are."""
    if row in functions.trees:
        return False
    if row not in functions.quadratic:
        return True
    real = np.flatnonzero(~columns.integer[: functions.linear.shape[1]])
    return not functions.quadratic[row][real][:, real].nnz
