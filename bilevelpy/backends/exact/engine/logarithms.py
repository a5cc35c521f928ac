"""Logarithms in the equations of SCIP, down to where numbers end.

SCIP keeps arguments of logarithms above 1e-9. The conditions of followers with entropies are
equations with the logarithms of what they decide, and responses are far smaller: e^-200 is the
share of an option that is worse by 2 at a temperature of 0.01. With a variable w for the logarithm
and the row ``exp(w) = p`` there is none.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.expressions import engine
from bilevelpy.reductions import scalar as sc

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model

Array = np.ndarray[Any, np.dtype[Any]]

# Arguments of logarithms above this are the same to SCIP as to everybody.
LEAST = 1e-8
# The logarithm of the least number.
LOWEST = -745.0


def with_logarithms(model: Model, tree: sc.Scalar) -> tuple[sc.Scalar, list[Any]]:
    """A tree with further columns in the place of the logarithms of what may be 0, and their
    variables, behind those of the model. Entropies ``p log(p)`` are left as they are.
    """
    made: list[Any] = []
    known: dict[int, sc.Scalar] = {}
    kept = _of_entropies(tree)
    for node in sc.postorder(tree):
        if not isinstance(node, sc.Call):
            known[id(node)] = node
            continue
        if id(node) not in kept and _is_steep(model, node):
            made.append(_logarithm(model, node.arguments[0]))
            known[id(node)] = sc.Col(len(model.variables) + len(made) - 1)
            continue
        arguments = tuple(known[id(a)] for a in node.arguments)
        same = all(a is b for a, b in zip(arguments, node.arguments, strict=True))
        known[id(node)] = node if same else sc.Call(node.function, arguments)
    return known[id(tree)], made


def _is_steep(model: Model, node: sc.Call) -> bool:
    """Whether a node is the logarithm of a column that can be near 0."""
    inner = node.arguments[0]
    if node.function != "log" or not isinstance(inner, sc.Col):
        return False
    return bool(model.columns.lower[inner.index] <= LEAST)


def _of_entropies(tree: sc.Scalar) -> set[int]:
    """The logarithms that stand beside their own arguments in a product."""
    products = (n for n in sc.postorder(tree) if isinstance(n, sc.Call) and n.function == "mul")
    return {
        id(part)
        for product in products
        for part in product.arguments
        if isinstance(part, sc.Call)
        and part.function == "log"
        and part.arguments[0] in product.arguments
    }


def _logarithm(model: Model, column: sc.Scalar) -> Any:
    """The variable that is the logarithm of a column, one for all rows."""
    assert isinstance(column, sc.Col)
    j = column.index
    if j not in model.logarithms:
        high = float(model.columns.upper[j])
        top = math.log(high) if 0.0 < high < math.inf else None
        w = model.scip.addVar(f"log.{model.columns.names[j]}", "C", lb=LOWEST, ub=top)
        model.scip.addCons(engine().exp(w) == model.variables[j])
        model.derived.append((w, partial(_value, j)))
        model.logarithms[j] = w
    return model.logarithms[j]


def _value(j: int, v: Array) -> float:
    return max(math.log(v[j]), LOWEST) if v[j] > 0 else LOWEST
