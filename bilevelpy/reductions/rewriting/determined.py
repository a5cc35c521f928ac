"""Variables of a convex follower that every best response shares.

Where f falls into parts that have no variable in common, its best responses differ at most in parts
that are not strictly convex: between two of them a strictly convex part would fall. A convex
function of one variable whose derivatives exist and that is not affine is strictly convex, and so
is a quadratic form that is positive definite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from bilevelpy.reductions import scalar as sc

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions

Array = np.ndarray[Any, np.dtype[Any]]

# Functions with kinks, or without a slope somewhere: convex ones may be affine in pieces.
PIECEWISE = {"abs", "sign", "max", "min"}
# Where second derivatives are looked at.
PROBES = (1.0, 0.1, 10.0, -1.0)
# Eigenvalues below this fraction of the largest one are rounding.
ROUNDING = 1e-10


def determined(objective: Functions, own: Array) -> set[int]:
    """Those of the columns ``own`` in which all minimisers of a convex function agree, whatever
    convex set they are taken from; other columns are numbers in it.
    """
    place = {int(j): k for k, j in enumerate(own)}
    joined = np.zeros((own.size, own.size), dtype=bool)
    form = np.zeros((own.size, own.size))
    alone: dict[int, list[sc.Scalar]] = {}  # terms of one column
    shared: set[int] = set()  # columns in terms of several, of which nothing is known
    if 0 in objective.quadratic:
        form = objective.quadratic[0][own][:, own].toarray()
        joined |= form != 0.0
    for term in _terms(objective.trees.get(0)):
        read = sorted(place[j] for j in sc.columns([term]) if j in place)
        joined[np.ix_(read, read)] = True
        if len(read) == 1:
            alone.setdefault(read[0], []).append(term)
        else:
            shared.update(read)
    count, label = connected_components(joined, directed=False)
    found: set[int] = set()
    for c in range(count):
        part = np.flatnonzero(label == c)
        k = int(part[0])
        if part.size == 1 and k in alone and _is_bent(sc.add(*alone[k]), int(own[k])):
            found.add(int(own[k]))
        elif not (shared | alone.keys()) & set(part.tolist()) and _is_definite(
            form[np.ix_(part, part)]
        ):
            found.update(int(j) for j in own[part])
    return found


def _terms(tree: sc.Scalar | None) -> list[sc.Scalar]:
    """The terms of a sum, that of a multiple of a sum too."""
    if not isinstance(tree, sc.Call):
        return [] if tree is None else [tree]
    if tree.function == "add":
        return [term for part in tree.arguments for term in _terms(part)]
    rest = [a for a in tree.arguments if not isinstance(a, sc.Num)]
    if tree.function != "mul" or len(rest) != 1:
        return [tree]
    factors = [a for a in tree.arguments if isinstance(a, sc.Num)]
    return [sc.mul(*factors, term) for term in _terms(rest[0])]


def _is_bent(total: sc.Scalar, j: int) -> bool:
    """Whether a function of one column has derivatives, and a second one that is not 0 somewhere:
    analytic functions are not affine then.
    """
    if sc.functions(total) & PIECEWISE:
        return False
    slope = sc.derivative(total, j)
    second = None if slope is None else sc.derivative(slope, j)
    return second is not None and any(_value(second, j, t) > 0.0 for t in PROBES)


def _value(root: sc.Scalar, j: int, t: float) -> float:
    try:
        return float(sc.evaluate(root, [t] * (j + 1)))
    except (ValueError, ArithmeticError):
        return math.nan


def _is_definite(block: Array) -> bool:
    top = float(np.abs(block).max(initial=0.0))
    return top > 0.0 and float(np.linalg.eigvalsh(block)[0]) > ROUNDING * top
