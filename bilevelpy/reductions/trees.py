"""Functions of any class as scalar trees: what text formats print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.reductions import scalar as sc
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.tables import Functions


def tree_of(functions: Functions, row: int, constant: bool = True) -> sc.Scalar:
    """One function as a tree: linear terms, squares and products, other parts, constant."""
    linear = functions.linear
    span = slice(linear.indptr[row], linear.indptr[row + 1])
    terms: list[sc.Scalar] = [
        sc.mul(sc.Num(float(c)), sc.Col(int(j)))
        for j, c in sorted(zip(linear.indices[span], linear.data[span], strict=True))
    ]
    for i, j, c in quadratic_terms(functions, row):
        both = sc.power(sc.Col(i), sc.Num(2.0)) if i == j else sc.mul(sc.Col(i), sc.Col(j))
        terms.append(sc.mul(sc.Num(c), both))
    if row in functions.trees:
        terms.append(functions.trees[row])
    if constant:
        terms.append(sc.Num(float(functions.constant[row])))
    return sc.add(*terms)


def linear_terms(functions: Functions, row: int) -> list[tuple[int, float]]:
    """(column, coefficient) of the linear part, by column."""
    check()  # who asks goes through all rows
    linear = functions.linear
    span = slice(linear.indptr[row], linear.indptr[row + 1])
    return sorted(zip(linear.indices[span].tolist(), linear.data[span].tolist(), strict=True))


def quadratic_terms(functions: Functions, row: int) -> list[tuple[int, int, float]]:
    """(i, j, c) with i <= j of the terms ``c v_i v_j``."""
    if row not in functions.quadratic:
        return []
    coo = functions.quadratic[row].tocoo()
    entries = zip(coo.row, coo.col, coo.data, strict=True)
    return sorted(
        (int(i), int(j), float(c) / 2 if i == j else float(c)) for i, j, c in entries if i <= j
    )
