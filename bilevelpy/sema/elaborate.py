"""Expressions: syntax tree -> IR, without recursion.

Each kind of node has a visitor, a generator that yields the sub-expressions it needs and receives
their values, so that depth of nesting and of inlining is a matter of the heap. A value of None is
poisoned: its error was reported, and nothing that contains it reports another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axis
from bilevelpy.sema.binders import comprehension
from bilevelpy.sema.calls import call
from bilevelpy.sema.conditions import boolean, compare, if_else, negation
from bilevelpy.sema.indexing import index
from bilevelpy.sema.names import member_value, name_value, place_of
from bilevelpy.sema.scope import (
    Context,
    Kind,
    Request,
    State,
    Steps,
    axes_text,
    shape_text,
    visible,
)
from bilevelpy.sema.values import Chain, Value, elementwise, total
from bilevelpy.syntax import ast

R = TypeVar("R")


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


# --- sums and products
# ---------------------------------------------------------------------------------


def mismatch(
    state: State,
    context: Context,
    operator: str,
    left: tuple[ast.Expr, Value],
    right: tuple[ast.Expr, Value],
) -> None:
    """Report operands of different positional axes."""
    secondary = [
        Label(place, axes_text(value.axes))
        for node, value in (left, right)
        if (place := place_of(state, context, node)) is not None
    ]
    hint = None
    if len(left[1].axes) == len(right[1].axes):
        hint = "if they are the same axis, declare both with one `dim`"
    elif {len(left[1].axes), len(right[1].axes)} == {1, 2} and operator == "*":
        hint = "`*` goes entry by entry; a product of a matrix and a vector is written `A @ x`"
    state.error(
        "BLV0303",
        left[0].span.to(right[0].span),
        "only a scalar is broadcast",
        context=context,
        secondary=secondary,
        notes=("equal lengths do not make equal axes",) if hint else (),
        hint=hint,
        operator=operator,
        left=axes_text(left[1].axes),
        right=axes_text(right[1].axes),
    )


def _sum(state: State, context: Context, node: ast.Sum) -> Steps:
    values: list[Value] = []
    first: tuple[ast.Expr, Value] | None = None
    wrong = False
    for k, term in enumerate(node.terms):
        value = yield term, context
        if value is None:
            wrong = True
            continue
        values.append(value)
        if not value.axes:
            continue
        if first is None:
            first = (term, value)
        elif first[1].axes != value.axes:
            mismatch(state, context, node.operators[k - 1], first, (term, value))
            wrong = True
    if wrong:
        return None
    signs = [1.0, *(1.0 if o == "+" else -1.0 for o in node.operators)]
    return total(state.builder, values, signs, node.span)


def _product(state: State, context: Context, node: ast.Product) -> Steps:
    chain: Chain | None = Chain(state.builder)
    shown: tuple[ast.Expr, Value] | None = None
    for k, factor in enumerate(node.factors):
        operator = node.operators[k - 1] if k else "*"
        value = yield factor, context
        if value is None or chain is None:
            chain = None
            continue
        if operator == "@":
            if not _contractible(state, context, node, k, chain, value):
                chain = None
                continue
            chain.contract(value)
        else:
            if value.axes and chain.axes and value.axes != chain.axes:
                left = shown if shown is not None and shown[1].axes == chain.axes else None
                if left is None:
                    so_far = chain.finish(None)
                    left = (_prefix(node, k), so_far)
                mismatch(state, context, operator, left, (factor, value))
                chain = None
                continue
            inverse = (
                elementwise(state.builder, "recip", [value], factor.span)
                if operator == "/"
                else value
            )
            chain.times(inverse)
        if value.axes:
            shown = (factor, value)
    return chain.finish(node.span) if chain is not None else None


def _prefix(node: ast.Product, k: int) -> ast.Expr:
    """The first ``k`` factors as an expression of their own."""
    if k == 1:
        return node.factors[0]
    span = node.factors[0].span.to(node.factors[k - 1].span)
    return ast.Product(
        span, node.factors[:k], node.operators[: k - 1], node.operator_spans[: k - 1]
    )


def _contractible(
    state: State, context: Context, node: ast.Product, k: int, chain: Chain, value: Value
) -> bool:
    """Check the operands of the ``@`` before factor ``k``."""
    left_node, right_node = _prefix(node, k), node.factors[k]
    span = left_node.span.to(right_node.span)
    left, right = chain.axes, value.axes
    left_text, right_text = state.text(left_node.span), state.text(right_node.span)
    if not left or not right:
        scalar = left_text if not left else right_text
        state.error(
            "BLV0302",
            span,
            f"`{scalar}` is a scalar",
            context=context,
            hint="a product with a scalar is written `*`",
            scalar=scalar,
        )
        return False
    if left[-1] is right[0]:
        return True
    guesses = [
        f"`{left_text} @ {n}` with `{n}[{left[-1].name}]`"
        for n in _vectors(state, context, left[-1])
    ]
    if len(left) == 2 and left[0] is right[0]:
        guesses.append(f"`{_group(left_node, left_text)}' @ {right_text}`")
    elif len(right) == 2 and right[-1] is left[-1]:
        guesses.append(f"`{left_text} @ {_group(right_node, right_text)}'`")
    hint = f"did you mean {', or '.join(guesses)}?" if guesses else None
    if left == right:
        hint = f"an entry-by-entry product is written `{left_text} * {right_text}`"
    secondary = [
        Label(place, axes_text(axes))
        for item, axes in ((right_node, right), (left_node, left))
        if (place := place_of(state, context, item)) is not None
    ]
    state.error(
        "BLV0301",
        span,
        f"last axis of `{left_text}` is `{left[-1].name}`, "
        f"first axis of `{right_text}` is `{right[0].name}`",
        context=context,
        secondary=secondary,
        hint=hint,
        left=axes_text(left),
        right=axes_text(right),
    )
    return False


def _vectors(state: State, context: Context, axis: Axis) -> list[str]:
    """The variable over ``axis`` that an expression in ``context`` most likely means, if there is
    just one.
    """
    if context.trail:
        return []
    known = visible(state, context)
    found = [n for n, d in known.items() if d.kind is Kind.VAR and state.shapes.get(d) == (axis,)]
    nearest = [n for n in found if known[n].level == context.level]
    return nearest if len(nearest) == 1 else found if len(found) == 1 else []


def _group(node: ast.Expr, text: str) -> str:
    return text if isinstance(node, ast.Name | ast.Index | ast.Member | ast.Call) else f"({text})"


def _negate(state: State, context: Context, node: ast.Negate) -> Steps:
    value = yield node.operand, context
    if value is None or node.sign == "+":
        return value
    return Value(state.builder.scale(-1.0, value.expr, node.span), value.iters)


def _power(state: State, context: Context, node: ast.Power) -> Steps:
    base = yield node.base, context
    exponent = yield node.exponent, context
    if base is None or exponent is None:
        return None
    if base.axes and exponent.axes and base.axes != exponent.axes:
        mismatch(state, context, "^", (node.base, base), (node.exponent, exponent))
        return None
    return power(state, base, exponent, node.span)


def power(state: State, base: Value, exponent: Value, span: Span) -> Value:
    """`base ^ exponent`; the square of a Euclidean norm is a sum of squares, smooth at 0."""
    node = base.expr
    square = isinstance(exponent.expr, ir.Const) and exponent.expr.value == 2.0
    if square and isinstance(node, ir.Reduce) and node.function == "norm2":
        squares = state.builder.apply("square", node.operand, span=span)
        return Value(state.builder.reduce("sum", squares, node.dims, span), base.iters)
    return elementwise(state.builder, "pow", [base, exponent], span)


def _transpose(state: State, context: Context, node: ast.Transpose) -> Steps:
    value = yield node.operand, context
    if value is None or len(value.axes) < 2:
        return value
    if len(value.axes) > 2:
        state.error(
            "BLV0308",
            node.span,
            f"axes {axes_text(value.axes)}",
            context=context,
            what="`'`",
            need="a vector or a matrix",
            found=f"{len(value.axes)} axes",
        )
        return None
    front = len(value.iters)
    source = (*range(front), front + 1, front)
    axes = tuple(value.expr.axes[d] for d in source)
    return Value(state.builder.align(value.expr, source, axes, node.span), value.iters)


# --- literals and the rest
# -------------------------------------------------------------------------------


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
    """Numbers become one literal; other entries are placed by unit vectors, so that no new kind of
    node is needed.
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
    ast.Sum: _sum,
    ast.Product: _product,
    ast.Negate: _negate,
    ast.Power: _power,
    ast.Transpose: _transpose,
    ast.Array: _array,
    ast.Index: index,
    ast.Call: call,
    ast.Comprehension: comprehension,
    ast.IfElse: if_else,
    ast.Compare: compare,
    ast.Boolean: boolean,
    ast.Not: negation,
}
