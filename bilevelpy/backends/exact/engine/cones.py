"""Norms in the expressions of SCIP, as cones that it does not branch on.

SCIP writes the squares of sums out, and no longer sees that the root of the whole is a norm. With a
variable for every entry, ``sqrt(u'u) <= t`` is a second-order cone to it: cutting planes settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.arctangents import with_arctangents
from bilevelpy.backends.exact.engine.expressions import engine, tree_expression
from bilevelpy.backends.exact.engine.logarithms import with_logarithms
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.norms import epigraphs

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model

Array = np.ndarray[Any, np.dtype[Any]]


def with_cones(model: Model, tree: sc.Scalar, sign: float) -> Any:
    """A tree as an expression, of which ``sign`` times is to be small (0: that of an equation):
    then variables above norms do as well as these.
    """
    tree, angles = with_arctangents(model, tree)
    if angles:  # their row is no cone
        return tree_expression(tree, [*model.variables, *angles])
    if not sign:
        inner, logarithms = with_logarithms(model, tree)
        return tree_expression(inner, [*model.variables, *logarithms])
    inner, norms = epigraphs(tree, sign, model.columns.lower, model.columns.upper)
    return tree_expression(inner, [*model.variables, *(_height(model, parts) for parts in norms)])


def _height(model: Model, parts: Sequence[sc.Scalar]) -> Any:
    """A variable that is at least the norm of ``parts``."""
    scip, entries = model.scip, []
    for part in parts:
        entry = scip.addVar("entry", "C", lb=None, ub=None)
        scip.addCons(entry == tree_expression(part, model.variables))
        model.derived.append((entry, partial(_value, part)))
        entries.append(entry)
    height = scip.addVar("height", "C", lb=0.0, ub=None)
    module = engine()
    scip.addCons(module.sqrt(module.quicksum(e * e for e in entries)) <= height)
    norm = sc.call("sqrt", sc.add(*(sc.power(p, sc.Num(2.0)) for p in parts)))
    model.derived.append((height, partial(_value, norm)))
    return height


def _value(tree: sc.Scalar, v: Array) -> float:
    return sc.evaluate(tree, v.tolist())
