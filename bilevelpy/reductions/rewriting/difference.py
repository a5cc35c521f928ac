"""The difference of two functions, with everything gone that both have.

A follower's objective at two responses differs in the terms that the follower decides. Terms in
the leader's variables alone would cancel in numbers, but not in the expressions of a solver, whose
ranges of either are infinite where the variables have no bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.monomials import functions_of
from bilevelpy.reductions.rewriting.fixing import polynomial
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.tables import tree_functions
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# Coefficients that cancel up to this (relative) are gone.
ROUNDING = 1e-13


def difference(first: Functions, second: Functions) -> Functions:
    """``first - second``, of one function each."""
    total: dict[tuple[int, ...], float] = {}
    size: dict[tuple[int, ...], float] = {}
    others: list[sc.Scalar] = []
    for sign, functions in ((1.0, first), (-1.0, second)):
        for term in terms_of(tree_of(functions, 0)):
            found = polynomial(term)
            if found is None:
                _join(others, sc.mul(sc.Num(sign), term), sc.mul(sc.Num(-sign), term))
                continue
            for key, c in found.items():
                total[key] = total.get(key, 0.0) + sign * c
                size[key] = size.get(key, 0.0) + abs(c)
    kept = {key: c for key, c in total.items() if abs(c) > ROUNDING * size[key]}
    width = first.linear.shape[1]
    made = functions_of([kept], width)
    if not others:
        return made
    return tree_functions([sc.add(tree_of(made, 0), *others)], width)


def _join(others: list[sc.Scalar], term: sc.Scalar, minus: sc.Scalar) -> None:
    """Add a term, or take away its opposite."""
    if minus in others:
        others.remove(minus)
    else:
        others.append(term)


def terms_of(tree: sc.Scalar) -> Iterator[sc.Scalar]:
    """The terms of a sum, with numbers in front of sums multiplied out."""
    stack: list[tuple[float, sc.Scalar]] = [(1.0, tree)]
    while stack:
        factor, node = stack.pop()
        if isinstance(node, sc.Call) and node.function == "add":
            stack += [(factor, a) for a in node.arguments]
        elif (
            isinstance(node, sc.Call)
            and node.function == "mul"
            and len(node.arguments) == 2
            and isinstance(node.arguments[0], sc.Num)
        ):
            stack.append((factor * node.arguments[0].value, node.arguments[1]))
        else:
            yield sc.mul(sc.Num(factor), node)
