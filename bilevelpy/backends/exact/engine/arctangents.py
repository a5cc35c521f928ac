"""Arctangents for SCIP, which has none: an angle ``w`` within ``(-pi/2, pi/2)`` with

    sin(w) = u cos(w)

is the arctangent of u and nothing else. The row is steepest in w where u is large, so that what it
may be off by moves w by no more than that.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.expressions import engine, tree_expression
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.intervals import tree_range

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model

Array = np.ndarray[Any, np.dtype[Any]]


def with_arctangents(model: Model, tree: sc.Scalar) -> tuple[sc.Scalar, list[Any]]:
    """A tree with further columns in the place of arctangents, and their variables, behind those of
    the model.
    """
    made: list[Any] = []
    known: dict[int, sc.Scalar] = {}
    ranges = tree_range(tree, model.columns.lower, model.columns.upper)
    for node in sc.postorder(tree):
        if not isinstance(node, sc.Call):
            known[id(node)] = node
            continue
        arguments = tuple(known[id(a)] for a in node.arguments)
        if node.function == "atan":
            u = tree_expression(arguments[0], [*model.variables, *made])
            low, high = ranges[id(node)]
            w = model.scip.addVar(f"angle.{model.scip.getNVars()}", "C", lb=low, ub=high)
            model.scip.addCons(engine().sin(w) - u * engine().cos(w) == 0.0)
            model.derived.append((w, partial(_value, node)))
            made.append(w)
            known[id(node)] = sc.Col(len(model.variables) + len(made) - 1)
            continue
        same = all(a is b for a, b in zip(arguments, node.arguments, strict=True))
        known[id(node)] = node if same else sc.Call(node.function, arguments)
    return known[id(tree)], made


def _value(tree: sc.Scalar, v: Array) -> float:
    return min(max(sc.evaluate(tree, v.tolist()), -0.5 * math.pi), 0.5 * math.pi)
