"""Functions in the form that disciplined convex programming knows to be convex.

The square part in a follower's own columns is one form, whose matrix is known to be positive
semidefinite; products with columns of others are affine in parameters times a variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.exporters.conditions import Writer
    from bilevelpy.reductions.rows import Functions, System

Square = dict[tuple[int, int], float]


def convex(
    functions: Functions,
    row: int,
    own: np.ndarray,
    write: Writer,
    span: Span | None,
    sign: float = 1.0,
    *,
    is_row: bool = False,
) -> str:
    """A function as text, convex (concave, where ``sign`` is -1) to CVXPY's knowledge."""
    tree, square = split(functions, row, own, is_row)
    text = write.tree(tree, span)
    if not square:
        return text
    used = sorted({j for pair in square for j in pair})
    place = {j: k for k, j in enumerate(used)}
    matrix = np.zeros((len(used), len(used)))
    for (i, j), c in square.items():
        matrix[place[i], place[j]] += sign * c / 2
        matrix[place[j], place[i]] += sign * c / 2
    vector = f"cp.hstack([{', '.join(write.names[j] for j in used)}])"
    form = f"cp.quad_form({vector}, cp.psd_wrap(np.array({matrix.tolist()})))"
    return f"{text} + {form}" if sign > 0 else f"{text} - {form}"


def parameters(found: System, kept: Iterable[int]) -> list[int]:
    """The leader's columns that the problem of the followers reads; BLVPY takes no others.

    ``kept`` are the rows of followers that are theirs.
    """
    own, functions = found.lower_columns, found.lower_objectives
    reads = sc.columns([split(functions, k, own, False)[0] for k in range(functions.count)])
    for r in kept:
        reads |= found.lower_rows.functions.reads(r)
    return [int(j) for j in found.upper_columns if int(j) in reads]


def split(
    functions: Functions, row: int, own: np.ndarray, is_row: bool
) -> tuple[sc.Scalar, Square]:
    """A function without its square part in ``own`` columns, and that part: the coefficient of
    every product. A product of columns of others alone is left out of an objective: it is the same
    whatever the follower chooses.
    """
    mine = {int(j) for j in own}
    if row in functions.trees:
        terms, square = _monomials(functions.trees[row], mine)
        return sc.add(*terms), square
    terms, square = [sc.Num(float(functions.constant[row]))], {}
    for j, c in linear_terms(functions, row):
        terms.append(sc.mul(sc.Num(c), sc.Col(j)))
    for i, j, c in quadratic_terms(functions, row):
        if i in mine and j in mine:
            square[i, j] = c
        elif is_row or i in mine or j in mine:
            terms.append(sc.mul(sc.Num(c), sc.Col(i), sc.Col(j)))
    return sc.add(*terms), square


def _monomials(
    tree: sc.Scalar, own: set[int]
) -> tuple[list[sc.Scalar], dict[tuple[int, int], float]]:
    """The terms of a sum that are no products of two own columns, and the coefficients of these."""
    whole = tree.arguments if isinstance(tree, sc.Call) and tree.function == "add" else (tree,)
    terms: list[sc.Scalar] = []
    square: dict[tuple[int, int], float] = {}
    for term in whole:
        factors = (
            term.arguments if isinstance(term, sc.Call) and term.function == "mul" else (term,)
        )
        scale = factors[0].value if isinstance(factors[0], sc.Num) else 1.0
        read: list[int] = []
        for factor in factors[1:] if isinstance(factors[0], sc.Num) else factors:
            match factor:
                case sc.Col(index):
                    read.append(index)
                case sc.Call("pow", (sc.Col(index), sc.Num(2.0))):
                    read += [index, index]
                case _:
                    read += [-1, -1, -1]
        if len(read) == 2 and set(read) <= own:
            pair = (min(read), max(read))
            square[pair] = square.get(pair, 0.0) + scale
        else:
            terms.append(_smooth(term))
    return terms, square


def _smooth(tree: sc.Scalar) -> sc.Scalar:
    """``log(1 + exp(a))`` by the one function that is known to be convex."""
    made: dict[int, sc.Scalar] = {}
    for node in sc.postorder(tree):
        if not isinstance(node, sc.Call):
            made[id(node)] = node
            continue
        match node:
            case sc.Call("log", (sc.Call("add", (sc.Call("exp", (inner,)), sc.Num(1.0))),)):
                made[id(node)] = sc.Call("softplus", (made[id(inner)],))
            case _:
                made[id(node)] = sc.Call(node.function, tuple(made[id(a)] for a in node.arguments))
    return made[id(tree)]
