"""Expressions: syntax tree -> IR, without recursion.

Each kind of node has a visitor, a generator that yields the sub-expressions it needs and receives
their values, so that depth of nesting and of inlining is a matter of the heap. A value of None is
poisoned: its error was reported, and nothing that contains it reports another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from bilevelpy.diagnostics import Label
from bilevelpy.ir import expr as ir
from bilevelpy.sema.expressions.arithmetic import add, multiply, negate, raise_to, transpose
from bilevelpy.sema.expressions.binders import comprehension
from bilevelpy.sema.expressions.calls import call
from bilevelpy.sema.expressions.conditions import boolean, compare, if_else, negation
from bilevelpy.sema.expressions.indexing import index
from bilevelpy.sema.lookup import shape_text
from bilevelpy.sema.members import member_value
from bilevelpy.sema.names import name_value
from bilevelpy.sema.scope import Context, Request, State, Steps
from bilevelpy.sema.values import Chain, Value, one_after_another, total
from bilevelpy.syntax import ast

R = TypeVar("R")
# An array of more entries that move is a concatenation.
SHORT = 32


def drive(state: State, steps: Generator[Request, Value | None, R]) -> R:
    """Run ``steps`` to its end, visiting what it asks for."""
    stack: list[Generator[Request, Value | None, Any]] = [steps]
    send: Any = None
    while stack:
        try:
            node, context = stack[-1].send(send)
        except StopIteration as stop:
            send = stop.value
            stack.pop()
            continue
        leaf = LEAVES.get(type(node))
        if leaf is not None:
            send = leaf(state, context, node)
        else:
            stack.append(VISITORS[type(node)](state, context, node))
            send = None
    result: R = send
    return result


def _ask(node: ast.Expr, context: Context) -> Steps:
    return (yield node, context)


def evaluate(state: State, context: Context, node: ast.Expr) -> Value | None:
    """The value of ``node``, or None if it holds an error (which is recorded)."""
    return drive(state, _ask(node, context))


# --- literals


def _string(state: State, context: Context, node: ast.String) -> Value | None:
    state.error(
        "BLV0309",
        node.span,
        "a text has no value",
        context=context,
        what="a text",
        hint='labels stand in subscripts (`x["a"]`) and beside an iterator (`i != "a"`)',
    )
    return None


def _set_as_value(state: State, context: Context, node: ast.Expr) -> Value | None:
    text = state.text(node.span)
    state.error("BLV0220", node.span, "a set", context=context, name=text, what="a set")
    return None


def _constant(state: State, context: Context, node: ast.Number) -> Value | None:
    return Value(state.builder.const(node.value, node.span))


def _array(state: State, context: Context, node: ast.Array) -> Steps:
    """Numbers become one literal; other entries are placed by unit vectors, which are the same
    products as those of subscripts, or come one after another where there are many of them: unit
    vectors take the square of their number.
    """
    rows: list[Value] = []
    wrong = False
    for element in node.elements:
        value = yield element, context
        if value is None:
            wrong = True
        else:
            rows.append(value)
    if wrong:
        return None
    inner = rows[0].axes
    for element, row in zip(node.elements, rows, strict=True):
        if row.axes != inner:
            state.error(
                "BLV0316",
                element.span,
                shape_text(row.axes),
                context=context,
                secondary=[Label(node.elements[0].span, shape_text(rows[0].axes))],
                first=shape_text(rows[0].axes),
                found=shape_text(row.axes),
            )
            return None
    builder = state.builder
    axis = builder.size_axis(len(rows))
    axes = (axis, *inner)
    if all(isinstance(r.expr, ir.Const | ir.Array) for r in rows):
        numbers = [
            x
            for r in rows
            for x in (r.expr.values if isinstance(r.expr, ir.Array) else [_number(r.expr)])
        ]
        return Value(builder.array(numbers, axes, node.span))
    if len(rows) > SHORT:
        one = (builder.size_axis(1), *inner)
        return one_after_another(builder, [(row, one) for row in rows], axis, node.span)
    pieces: list[Value] = []
    for k, row in enumerate(rows):
        unit = Value(builder.array([float(k == j) for j in range(len(rows))], (axis,)))
        chain = Chain(builder)
        first = chain.fresh(axis)
        rest = tuple(chain.fresh(a) for a in inner)
        chain.add(unit, (first,))
        chain.add(row, rest)
        chain.open = (first, *rest)
        pieces.append(chain.finish(element.span))
    return total(builder, pieces, [1.0] * len(pieces), node.span)


def _number(node: ir.Expr) -> float:
    return node.value if isinstance(node, ir.Const) else math.nan


LEAVES: dict[type[ast.Expr], Callable[[State, Context, Any], Value | None]] = {
    ast.Number: _constant,
    ast.Name: name_value,
    ast.String: _string,
    ast.Member: member_value,
    ast.Range: _set_as_value,
    ast.LabelSet: _set_as_value,
    ast.SetOperation: _set_as_value,
    ast.CrossProduct: _set_as_value,
    ast.Table: _set_as_value,
}

VISITORS: dict[type[ast.Expr], Callable[[State, Context, Any], Steps]] = {
    ast.Sum: add,
    ast.Product: multiply,
    ast.Negate: negate,
    ast.Power: raise_to,
    ast.Transpose: transpose,
    ast.Array: _array,
    ast.Index: index,
    ast.Call: call,
    ast.Comprehension: comprehension,
    ast.IfElse: if_else,
    ast.Compare: compare,
    ast.Boolean: boolean,
    ast.Not: negation,
}
