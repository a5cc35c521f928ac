"""Which element of an axis a subscript means: by an iterator, a label or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.expressions.points import ancestors, climb, part, parts_of, subset_hint
from bilevelpy.sema.names import has_numbers, known_size
from bilevelpy.sema.scope import Context, State, closest, element_text
from bilevelpy.sema.values import (
    Iterator,
    Point,
    Value,
    elementwise,
    plain,
    spread,
    union,
)
from bilevelpy.syntax import ast


@dataclass(frozen=True, slots=True)
class Subscript:
    """One subscript: its place and an element, a label, a number, or nothing for `:`."""

    node: ast.Expr | None
    span: Span
    content: Point | str | Value | None


def element(
    state: State, context: Context, axis: Axis, subscript: Subscript
) -> Iterator | Value | None:
    """The position in ``axis`` that one subscript means; None after an error (or, for elements,
    before it).
    """
    content = subscript.content
    builder = state.builder
    if isinstance(content, Point):
        return climb(state, content, axis)
    if isinstance(content, str):
        if axis.is_numeric or state.excludes(axis, content):
            _no_element(state, context, axis, f'"{content}"', content, subscript.span)
            return None
        return Value(builder.label_position(axis, content, subscript.span))
    assert isinstance(content, Value)
    node = content.expr
    if axis.is_numeric:
        if isinstance(node, ir.Const) and not _within(state, axis, node.value):
            _no_element(state, context, axis, f"{node.value:g}", "", subscript.span)
            return None
        place = _guarded(state, context, axis, content, subscript.span)
        return Value(builder.locate(axis, (place.expr,), True, subscript.span), place.iters)
    if isinstance(node, ir.Const):
        label = int(node.value) if node.value % 1 == 0 else node.value
        if state.excludes(axis, label):
            _no_element(state, context, axis, f"{label}", "", subscript.span)
            return None
        return Value(builder.label_position(axis, label, subscript.span))
    if has_numbers(axis):
        return Value(builder.locate(axis, (node,), True, subscript.span), content.iters)
    state.error(
        "BLV0318",
        subscript.span,
        "a number",
        context=context,
        secondary=[Label(axis.span, "a set of labels")] if axis.span else [],
        axis=axis.name,
    )
    return None


def _guarded(state: State, context: Context, axis: Axis, number: Value, span: Span) -> Value:
    """``number`` where the branches of ``if`` around it are taken, elsewhere the first element."""
    first: ir.Expr | None = state.builder.const(1.0)
    if axis.kind is AxisKind.RANGE:
        first = axis.low
    elif axis.kind is AxisKind.SUBSET:
        first = None  # its elements come with the data
    if first is None or first.rank or not number.iters:
        return number
    for condition in context.guards:
        number = elementwise(state.builder, "select", [condition, number, Value(first)], span)
    return number


def _within(state: State, axis: Axis, number: float) -> bool:
    """Whether the text alone allows ``number`` as an element of ``axis``."""
    # Infinities and NaN leave no zero either.
    if number % 1 != 0:
        return False
    if axis.kind is AxisKind.SUBSET:
        return not state.excludes(axis, number)
    if axis.kind is AxisKind.RANGE:
        low, high = axis.low, axis.high
        return (not isinstance(low, ir.Const) or number >= low.value) and (
            not isinstance(high, ir.Const) or number <= high.value
        )
    size = known_size(axis)
    return number >= 1 and (size is None or number <= size)


def _no_element(
    state: State, context: Context, axis: Axis, shown: str, label: str, span: Span
) -> None:
    hint = None
    if axis.labels is not None:
        guess = closest(label, [x for x in axis.labels if isinstance(x, str)])
        listed = ", ".join(element_text(x) for x in axis.labels[:6])
        hint = (
            f'did you mean "{guess}"?'
            if guess
            else f"elements: {listed}{', ...' if len(axis.labels) > 6 else ''}"
        )
    elif axis.is_numeric:
        size = known_size(axis)
        if axis.kind is AxisKind.RANGE:
            hint = (
                f"its elements are {axis.name}"
                if ".." in axis.name
                else f"`{axis.name}` is a range of integers"
            )
        else:
            hint = "elements count from 1" + (f" to {size}" if size is not None else "")
    state.error(
        "BLV0306",
        span,
        f"not in {axis.name}",
        context=context,
        secondary=[Label(axis.span, "declared here")] if axis.span else [],
        hint=hint,
        found=shown,
        axis=axis.name,
    )


def pair(
    state: State, context: Context, axis: Axis, group: Sequence[Subscript]
) -> Iterator | Value | None:
    """The position of a pair given by its components."""
    builder = state.builder
    contents = [s.content for s in group]
    if all(isinstance(c, str) for c in contents):
        label = tuple(str(c) for c in contents)
        if state.excludes(axis, label):
            _no_element(
                state,
                context,
                axis,
                "(" + ", ".join(f'"{x}"' for x in label) + ")",
                "",
                group[0].span,
            )
            return None
        return Value(builder.label_position(axis, label, group[0].span))
    whole = _same_pair(state, axis, contents)
    if whole is not None:
        return whole
    positions: list[Value] = []
    for parent, subscript in zip(parts_of(axis), group, strict=True):
        if subscript.content is None:
            state.error(
                "BLV0304",
                subscript.span,
                "`:` keeps a whole axis",
                context=context,
                name=axis.name,
                axes="pairs as elements",
                found=len(group),
            )
            return None
        found = element(state, context, parent, subscript)
        if found is None:
            if isinstance(subscript.content, Point):
                state.error(
                    "BLV0305",
                    subscript.span,
                    f"runs over {subscript.content.axis.name}",
                    context=context,
                    hint=subset_hint(parent, subscript.content.axis),
                    position=len(positions) + 1,
                    name=axis.name,
                    found=parent.name,
                    expected=subscript.content.axis.name,
                )
            return None
        positions.append(
            Value(builder.position(parent), (found,)) if isinstance(found, Iterator) else found
        )
    iters = union(positions)
    aligned = tuple(spread(builder, p, iters, ()) for p in positions)
    root = ancestors(axis)
    position = Value(builder.locate(root[-1], aligned, False, group[0].span), iters)
    for child in reversed(root[:-1]):
        position = Value(builder.locate(child, (position.expr,), False, group[0].span), iters)
    return position


def _same_pair(state: State, axis: Axis, contents: Sequence[object]) -> Iterator | Value | None:
    """The pair itself, if the components are those of one iterator over it, in order."""
    points = [c for c in contents if isinstance(c, Point)]
    owners = {i for p in points for i in p.position.iters}
    if len(points) != len(contents) or len(owners) != 1:
        return None
    owner = plain(state.builder, owners.pop())
    if len(parts_of(owner.axis)) != len(points):
        return None
    for k, point in enumerate(points):
        expected = part(state, owner, k)
        if expected is None or expected.position != point.position:
            return None
    return climb(state, owner, axis)
