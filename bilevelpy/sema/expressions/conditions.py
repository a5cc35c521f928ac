"""Conditions: comparisons over data, after `where` and `if`."""

from __future__ import annotations

from bilevelpy.diagnostics import Span
from bilevelpy.ir.types import Axes, Axis
from bilevelpy.sema.expressions.elements import Subscript, element
from bilevelpy.sema.expressions.points import ancestors, climb, subset_hint
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.names import decided, has_numbers, number
from bilevelpy.sema.scope import Context, State, Steps
from bilevelpy.sema.values import Iterator, Point, Value, elementwise
from bilevelpy.syntax import ast

FUNCTIONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}

Operand = Point | str | Value | None


def compare(state: State, context: Context, node: ast.Compare) -> Steps:
    """A chain of comparisons, of numbers, labels and elements of one axis."""
    operands: list[Operand] = []
    for item in node.operands:
        local = context.names.get(item.name) if isinstance(item, ast.Name) else None
        if isinstance(local, Point):
            operands.append(state.point(context, local))
        elif isinstance(item, ast.String):
            operands.append(item.value)
        else:
            value = yield item, context
            if value is not None and not state.builder.is_data(value.expr):
                decided(state, context, item, "a condition reads data only")
                value = None
            operands.append(value)
    links: list[Value] = []
    for k, operator in enumerate(node.operators):
        pair = node.operands[k], node.operands[k + 1]
        link = _link(state, context, operator, (operands[k], operands[k + 1]), pair)
        if link is None:
            return None
        links.append(link)
    return links[0] if len(links) == 1 else elementwise(state.builder, "and", links, node.span)


def _link(
    state: State,
    context: Context,
    operator: str,
    pair: tuple[Operand, Operand],
    nodes: tuple[ast.Expr, ast.Expr],
) -> Value | None:
    left, right = pair
    if left is None or right is None:
        return None
    span = nodes[0].span.to(nodes[1].span)
    values: tuple[Value | None, Value | None]
    if (
        isinstance(left, Point)
        and isinstance(right, Point)
        and not (has_numbers(left.axis) and has_numbers(right.axis))
    ):
        common = _common(state, left, right)
        if common is None:
            state.error(
                "BLV0303",
                span,
                "elements of different sets",
                context=context,
                hint=subset_hint(left.axis, right.axis),
                operator=operator,
                left=f"({left.axis.name})",
                right=f"({right.axis.name})",
            )
            return None
        values = common
    elif isinstance(left, Point) and _is_label(right, left.axis):
        left = _widest(state, left)
        values = _position(state, left), _label(state, context, left.axis, right, nodes[1].span)
    elif isinstance(right, Point) and _is_label(left, right.axis):
        right = _widest(state, right)
        values = _label(state, context, right.axis, left, nodes[0].span), _position(state, right)
    elif isinstance(left, str) or isinstance(right, str):
        place = nodes[0] if isinstance(left, str) else nodes[1]
        other = right if isinstance(left, str) else left
        if isinstance(other, Point):
            element(
                state,
                context,
                other.axis,
                Subscript(place, place.span, left if isinstance(left, str) else right),
            )
        else:
            state.error(
                "BLV0309",
                place.span,
                "a label",
                context=context,
                what="a text",
                hint="a label compares with an iterator over its set",
            )
        return None
    else:
        values = _value(state, context, left, nodes[0]), _value(state, context, right, nodes[1])
    a, b = values
    if a is None or b is None:
        return None
    if a.axes and b.axes and a.axes != b.axes:
        _differ(state, context, span, operator, a.axes, b.axes)
        return None
    return elementwise(state.builder, FUNCTIONS[operator], [a, b], span)


def _is_label(operand: Operand, axis: Axis) -> bool:
    """Whether ``operand`` names an element of ``axis`` rather than a number."""
    if isinstance(operand, str):
        return not axis.is_numeric
    return (
        isinstance(operand, Value)
        and not has_numbers(axis)
        and not operand.expr.children
        and not operand.iters
    )


def _label(
    state: State, context: Context, axis: Axis, operand: Operand, span: Span
) -> Value | None:
    assert isinstance(operand, str | Value)
    found = element(state, context, axis, Subscript(None, span, operand))
    return found if isinstance(found, Value) else None


def _widest(state: State, point: Point) -> Point:
    """The element in the set that its subset was taken from: a label may be in the one and not in
    the other.
    """
    root = ancestors(point.axis)[-1]
    position = climb(state, point, root)
    return (
        Point(root, position) if isinstance(position, Value) and root is not point.axis else point
    )


def _position(state: State, point: Point) -> Value:
    if point.iterator is not None:
        return Value(state.builder.position(point.axis), (point.iterator,))
    return point.position


def _common(state: State, left: Point, right: Point) -> tuple[Value, Value] | None:
    """Positions of two elements in an axis that holds both."""
    for point, other, swap in ((left, right, False), (right, left, True)):
        axis: Axis | None = other.axis
        while axis is not None:
            ours, theirs = climb(state, point, axis), climb(state, other, axis)
            if point.axis.descends_from(axis) and ours is not None and theirs is not None:
                a, b = _as_position(state, ours, axis), _as_position(state, theirs, axis)
                return (b, a) if swap else (a, b)
            axis = axis.parents[0] if len(axis.parents) == 1 else None
    return None


def _as_position(state: State, found: Iterator | Value, axis: Axis) -> Value:
    return Value(state.builder.position(axis), (found,)) if isinstance(found, Iterator) else found


def _value(state: State, context: Context, operand: Operand, node: ast.Expr) -> Value | None:
    if isinstance(operand, Point):
        return number(state, context, operand, node.span, state.text(node.span))
    assert isinstance(operand, Value)
    return operand


def boolean(state: State, context: Context, node: ast.Boolean) -> Steps:
    """`a and b`, `a or b`."""
    values: list[Value] = []
    for item in node.operands:
        value = yield item, context
        if value is not None:
            values.append(value)
    if len(values) < len(node.operands) or not _equal_axes(state, context, values, node):
        return None
    return elementwise(state.builder, node.operator, values, node.span)


def negation(state: State, context: Context, node: ast.Not) -> Steps:
    """`not a`."""
    value = yield node.operand, context
    return None if value is None else elementwise(state.builder, "not", [value], node.span)


def if_else(state: State, context: Context, node: ast.IfElse) -> Steps:
    """`if c then a else b`: both branches are evaluated, entry by entry; subscripts only have to be
    in range where theirs is taken.
    """
    condition = yield node.condition, context.data("a condition reads data only")
    under, beside = context, context
    if condition is not None and not condition.axes:
        under = context.under(condition)
        beside = context.under(elementwise(state.builder, "not", [condition], node.condition.span))
    then = yield node.then, under
    otherwise = yield node.otherwise, beside
    if condition is None or then is None or otherwise is None:
        return None
    values = [condition, then, otherwise]
    if not _equal_axes(state, context, values, node):
        return None
    return elementwise(state.builder, "select", values, node.span)


def _equal_axes(
    state: State, context: Context, values: list[Value], node: ast.Boolean | ast.IfElse
) -> bool:
    shapes = [v.axes for v in values if v.axes]
    for axes in shapes[1:]:
        if axes != shapes[0]:
            operator = node.operator if isinstance(node, ast.Boolean) else "if"
            _differ(state, context, node.span, operator, shapes[0], axes)
            return False
    return True


def _differ(
    state: State, context: Context, span: Span, operator: str, left: Axes, right: Axes
) -> None:
    """Report operands of different axes."""
    state.error(
        "BLV0303",
        span,
        "only a scalar is broadcast",
        context=context,
        operator=operator,
        left=axes_text(left),
        right=axes_text(right),
    )
