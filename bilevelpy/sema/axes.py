"""Axes: what may stand in `[...]` and after `in`, and the axes that set declarations make."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axes, Axis, AxisKind
from bilevelpy.ir.types import Label as Element
from bilevelpy.sema.lookup import unknown
from bilevelpy.sema.names import has_numbers, resolve
from bilevelpy.sema.scope import Context, Declaration, Kind, Request, State
from bilevelpy.sema.values import Point, Value
from bilevelpy.syntax import ast

# How many sets may stand between a set and those that it is made from.
MAX_NESTING = 60
MAX_PAIRS = 8
DEEP = f"more than {MAX_NESTING} sets, or {MAX_PAIRS} sets of pairs, deep"
AxisSteps = Generator[Request, "Value | None", "Axis | None"]


def axis_of(state: State, context: Context, node: ast.Expr) -> AxisSteps:
    """The axis that a dim, set, number, range or set expression means; None after an error."""
    match node:
        case ast.Name():
            return named_axis(state, context, node)
        case ast.Number():
            if node.value != int(node.value if abs(node.value) < 1e15 else 0) or node.value < 1:
                state.error("BLV0311", node.span, "not a size", context=context, text=node.text)
                return None
            return state.builder.size_axis(int(node.value))
        case ast.Range():
            return (yield from range_of(state, context, node))
        case ast.LabelSet():
            return labels_axis(state, context, node)
        case ast.SetOperation():
            return (yield from operation_of(state, context, node))
        case _:
            text = state.text(node.span)
            state.error(
                "BLV0310",
                node.span,
                "an expression",
                context=context,
                name=text,
                what="an expression",
                hint="a range is written `low..high` and counts from 1: `i in 1..n`"
                if isinstance(node, ast.Call) and node.function == "range"
                else f"give the size a name: `dim m = {text};`",
            )
            return None


def named_axis(state: State, context: Context, node: ast.Name) -> Axis | None:
    """The axis of a declared dim or set."""
    found = resolve(state, context, node.name)
    local = context.names.get(node.name)
    if node.name in context.names and not isinstance(local, Declaration):
        if local is not None:
            what = "an iterator" if isinstance(local, Point) else "a value"
            state.error(
                "BLV0310", node.span, f"this is {what}", context=context, name=node.name, what=what
            )
        return None
    if found is None:
        _unknown_axis(state, context, node)
        return None
    if isinstance(found, Declaration) and found.kind in (Kind.DIM, Kind.SET):
        return None if found in state.doubtful else state.axes.get(found)
    what = str(found.kind) if isinstance(found, Declaration) else "a variable"
    secondary = [Label(found.span, "declared here")] if isinstance(found, Declaration) else []
    state.error(
        "BLV0310",
        node.span,
        f"this is {what}",
        context=context,
        secondary=secondary,
        hint=f"a size is declared with `dim`: `dim {node.name} = ...;`"
        if isinstance(found, Declaration) and found.kind is Kind.PARAM
        else None,
        name=node.name,
        what=what,
    )
    return None


def _unknown_axis(state: State, context: Context, node: ast.Name) -> None:
    unknown(state, replace(context, names={}), node.name, node.span, (Kind.DIM, Kind.SET))


def range_of(state: State, context: Context, node: ast.Range, name: str | None = None) -> AxisSteps:
    """The axis `low..high`; an anonymous `1..n` is the dim or size itself."""
    inner = context.data("the ends of a range are data")
    ends: list[ir.Expr] = []
    for end in (node.low, node.high):
        value = yield end, inner
        if value is None:
            continue
        if value.iters:
            names = ", ".join(f"`{i.name}`" for i in value.iters)
            state.error(
                "BLV0315",
                end.span,
                f"depends on {names}",
                context=context,
                secondary=[Label(i.span, "bound here") for i in value.iters if i.span],
                hint="let the iterator run over the whole range and add a `where`",
                iterator=value.iters[0].name,
            )
        elif value.axes or not state.builder.is_data(value.expr):
            state.error(
                "BLV0311", end.span, "not a number", context=context, text=state.text(end.span)
            )
        elif isinstance(value.expr, ir.Const) and value.expr.value % 1 != 0:
            state.error(
                "BLV0311",
                end.span,
                "not a whole number",
                context=context,
                text=state.text(end.span),
            )
        else:
            ends.append(value.expr)
    if len(ends) < 2:
        return None
    low, high = ends
    if isinstance(low, ir.Const) and isinstance(high, ir.Const) and high.value < low.value:
        state.error(
            "BLV0312",
            node.span,
            "holds nothing",
            context=context,
            what="a range",
            low=f"{low.value:g}",
            high=f"{high.value:g}",
        )
        return None
    if name is not None:
        return Axis(name, AxisKind.RANGE, low=low, high=high)
    if isinstance(low, ir.Const) and low.value == 1:
        if isinstance(high, ir.Const):
            return state.builder.size_axis(int(high.value))
        if isinstance(high, ir.Size) and high.axis.kind in (AxisKind.DIM, AxisKind.SIZE):
            return high.axis
    return state.builder.range_axis(state.text(node.span), low, high, node.span)


def checked_labels(state: State, context: Context, node: ast.LabelSet) -> tuple[Element, ...]:
    """The elements of a literal set, each once."""
    seen: dict[Element, Span] = {}
    for element, span in zip(node.elements, node.element_spans, strict=True):
        if element in seen:
            state.error(
                "BLV0320",
                span,
                "again",
                context=context,
                secondary=[Label(seen[element], "first here")],
                element=state.text(span),
            )
        else:
            seen[element] = span
    return tuple(seen)


def labels_axis(state: State, context: Context, node: ast.LabelSet) -> Axis:
    """The axis of an anonymous literal set; equal sets are the same axis."""
    labels = checked_labels(state, context, node)
    key = ("labels", tuple((type(x).__name__, x) for x in labels))
    if key not in state.anonymous:
        made = declared_labels(state, context, state.text(node.span), node)
        state.anonymous[key] = made
    return state.anonymous[key]


def declared_labels(
    state: State,
    context: Context,
    name: str,
    node: ast.LabelSet,
    doc: str | None = None,
    span: Span | None = None,
) -> Axis:
    """The axis of a literal set; the components of pairs get axes of their own."""
    labels = checked_labels(state, context, node)
    widths = {len(x) if isinstance(x, tuple) else 1 for x in labels}
    if widths in ({1}, set()):
        return Axis(name, AxisKind.LABELS, span=span or node.span, labels=labels, doc=doc)
    width = max(widths)
    pairs = [x for x in labels if isinstance(x, tuple) and len(x) == width]
    if len(pairs) < len(labels):
        odd = next(
            s
            for x, s in zip(node.elements, node.element_spans, strict=True)
            if not isinstance(x, tuple) or len(x) != width
        )
        state.error(
            "BLV0321",
            odd,
            "another length",
            context=context,
            expected=counted(width, "label"),
            axis=name,
        )
    parents = tuple(
        Axis(
            f"{name}.{k + 1}",
            AxisKind.LABELS,
            span=node.span,
            labels=tuple(dict.fromkeys(x[k] for x in pairs)),
        )
        for k in range(width)
    )
    return Axis(
        name, AxisKind.PAIRS, span=span or node.span, labels=tuple(pairs), parents=parents, doc=doc
    )


def operation_of(state: State, context: Context, node: ast.SetOperation) -> AxisSteps:
    """The axis of `A union B`, `A inter B`, `A diff B`, left-associative."""
    operands: list[Axis] = []
    for item in node.operands:
        axis = yield from axis_of(state, context, item)
        if axis is None:
            return None
        operands.append(axis)
    result = operands[0]
    for k, operator in enumerate(node.operators):
        if operator == "union" and isinstance(node.operands[k + 1], ast.LabelSet):
            operands[k + 1] = _within_parent(state, result, operands[k + 1])
    for operator, right, item in zip(node.operators, operands[1:], node.operands[1:], strict=True):
        combined = combine(state, operator, result, right)
        if combined is None or too_deep(combined):
            state.error(
                "BLV0319",
                node.operands[0].span.to(item.span),
                "their elements cannot be equal" if combined is None else DEEP,
                context=context,
                left=f"`{state.text(node.operands[0].span)}`",
                right=f"`{state.text(item.span)}`",
                operator=operator,
            )
            return None
        result = combined
    return result


def _within_parent(state: State, subset: Axis, literal: Axis) -> Axis:
    """Literal elements that join a subset are elements of what it is a subset of."""
    if subset.kind is not AxisKind.SUBSET or len(subset.parents) != 1:
        return literal
    parent = subset.parents[0]
    key = ("within", id(parent), id(literal))
    if key not in state.anonymous:
        state.anonymous[key] = Axis(
            literal.name,
            AxisKind.SUBSET,
            span=literal.span,
            labels=literal.labels,
            parents=(parent,),
        )
    return state.anonymous[key]


def too_deep(axis: Axis) -> bool:
    """Whether sets are made from sets more often than anyone can follow."""
    level: set[Axis] = {axis}
    pairs = 0
    for _ in range(MAX_NESTING):
        # Pairs of pairs double with every step, subsets do not.
        pairs += any(a.kind is AxisKind.PAIRS for a in level)
        if pairs > MAX_PAIRS:
            return True
        level = {p for a in level for p in (*a.parents, *a.operands)}
        if not level:
            return False
    return True


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _is_pairs(axis: Axis) -> bool:
    while axis.kind is AxisKind.SUBSET and len(axis.parents) == 1:
        axis = axis.parents[0]
    return axis.kind in (AxisKind.PAIRS, AxisKind.SUBSET)


def combine(state: State, operator: str, left: Axis, right: Axis) -> Axis | None:
    """One set operation; None if the elements of the two are of different kinds by declaration."""
    if left is right:
        return left
    if _is_pairs(left) != _is_pairs(right) or (
        _texts(left) is not None and _texts(left) == (not _texts(right))
    ):
        return None
    key = (operator, id(left), id(right))
    if key in state.anonymous:
        return state.anonymous[key]
    name = f"{left.name} {operator} {right.name}"
    if operator != "union":
        made = Axis(
            name, AxisKind.SUBSET, parents=(left,), operation=operator, operands=(left, right)
        )
    else:
        parent = common_parent(left, right)
        if parent is left or parent is right:
            return parent
        kind = AxisKind.LABELS if parent is None else AxisKind.SUBSET
        parents = () if parent is None else (parent,)
        made = Axis(name, kind, parents=parents, operation=operator, operands=(left, right))
    state.anonymous[key] = made
    return made


def _texts(axis: Axis) -> bool | None:
    """True for elements that are texts, False for numbers, None where the data decides."""
    if has_numbers(axis):
        return False
    return True if axis.labels and all(isinstance(x, str) for x in axis.labels) else None


def common_parent(left: Axis, right: Axis) -> Axis | None:
    """The nearest axis that both are subsets of."""
    axis = left
    while not right.descends_from(axis):
        if axis.kind is not AxisKind.SUBSET or len(axis.parents) != 1:
            return None
        axis = axis.parents[0]
    return axis


def axes_of(
    state: State, context: Context, nodes: Sequence[ast.Expr]
) -> Generator[Request, Value | None, Axes | None]:
    """The axes of a declaration."""
    found: list[Axis] = []
    wrong = False
    for node in nodes:
        axis = yield from axis_of(state, context, node)
        if axis is None:
            wrong = True
        else:
            found.append(axis)
    return None if wrong else tuple(found)
