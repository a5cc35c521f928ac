"""Subscripts: relabelling where an iterator runs plainly over the declared axis, static gathers for
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from bilevelpy.diagnostics import Fix, Label
from bilevelpy.sema.expressions.elements import Subscript, element, pair
from bilevelpy.sema.expressions.points import climb, parts_of, subset_hint
from bilevelpy.sema.members import member_declaration
from bilevelpy.sema.names import decided, declared_value, place_of
from bilevelpy.sema.scope import Context, Declaration, State, Steps
from bilevelpy.sema.values import Iterator, Point, Value, take
from bilevelpy.syntax import ast

Spec = Iterator | Value | None


def index(state: State, context: Context, node: ast.Index) -> Steps:
    """`base[subscripts]`."""
    subscripts: list[Subscript] | None = []
    inner = context.data("a subscript reads data only")
    for item in node.subscripts:
        content: Point | str | Value | None = None
        if isinstance(item, ast.Name) and isinstance(local := context.names.get(item.name), Point):
            content = state.point(context, local)
        elif isinstance(item, ast.String):
            content = item.value
        elif item is not None:
            content = yield item, inner
            if content is not None and not state.builder.is_data(content.expr):
                decided(state, context, item, "a subscript reads data only")
                content = None
            if content is None:
                subscripts = None
                continue
        if subscripts is not None:
            subscripts.append(Subscript(item, item.span if item else node.span, content))
    own = _own_element(state, context, node, subscripts)
    if own is not None:
        value, used = own
        subscripts = subscripts[used:] if subscripts is not None else None
    else:
        value = yield node.base, context
    if value is None or subscripts is None:
        return None
    if own is not None and not subscripts:
        return value
    spec = _match(state, context, node, value, subscripts)
    if spec is None:
        return None
    return take(state.builder, value, [*(None for _ in value.iters), *spec], node.span)


def _own_element(
    state: State, context: Context, node: ast.Index, subscripts: list[Subscript] | None
) -> tuple[Value | None, int] | None:
    """`firm.q[i]` inside `lower firm[i in FIRM]` is the follower's own variable, not another's."""
    base = node.base
    if not isinstance(base, ast.Member) or not isinstance(base.base, ast.Name) or not context.own:
        return None
    if base.base.name != context.level or subscripts is None or len(subscripts) < len(context.own):
        return None
    for iterator, item in zip(context.own, node.subscripts, strict=False):
        local = context.names.get(item.name) if isinstance(item, ast.Name) else None
        if not isinstance(local, Point) or local.iterator is not iterator:
            return None
    found = member_declaration(state, context, base)
    if not isinstance(found, Declaration):
        return None
    return declared_value(state, context, found, base.span), len(context.own)


def _match(
    state: State, context: Context, node: ast.Index, value: Value, subscripts: Sequence[Subscript]
) -> list[Spec] | None:
    """Give every positional axis its subscript, or its subscripts where its elements are pairs."""
    extra = len(subscripts) - len(value.axes)
    groups: list[list[Subscript]] = []
    rest = list(subscripts)
    for axis in value.axes:
        count = len(parts_of(axis))
        whole = (
            rest
            and isinstance(rest[0].content, Point)
            and climb(state, rest[0].content, axis) is not None
        )
        if count > 1 and extra >= count - 1 and not whole:
            groups.append(rest[:count])
            extra -= count - 1
        else:
            groups.append(rest[:1])
        rest = rest[len(groups[-1]) :]
    if rest or any(not g for g in groups):
        _count(state, context, node, value, len(subscripts))
        return None
    result: list[Spec] = []
    wrong = False
    for position, (axis, group) in enumerate(zip(value.axes, groups, strict=True)):
        found = pair(state, context, axis, group) if len(group) > 1 else None
        if len(group) == 1:
            subscript = group[0]
            if subscript.content is None:
                result.append(None)
                continue
            found = element(state, context, axis, subscript)
            if found is None and isinstance(subscript.content, Point) and not wrong:
                _wrong_axis(state, context, node, value, groups, position)
        if found is None:
            wrong = True
        result.append(found)
    return None if wrong else result


def _count(state: State, context: Context, node: ast.Index, value: Value, found: int) -> None:
    place = place_of(state, context, node.base)
    name = state.text(node.base.span)
    axes = ", ".join(a.name for a in value.axes)
    state.error(
        "BLV0304",
        node.span,
        f"{found} subscript{'s' if found != 1 else ''}",
        context=context,
        secondary=[Label(place, f"axes ({axes})" if axes else "a scalar")] if place else [],
        hint="a whole axis is kept with `:`" if 0 < found < len(value.axes) else None,
        name=name,
        axes=f"{len(value.axes)} {'axis' if len(value.axes) == 1 else 'axes'}"
        if axes
        else "no axes",
        found=found,
    )


def _wrong_axis(
    state: State,
    context: Context,
    node: ast.Index,
    value: Value,
    groups: list[list[Subscript]],
    position: int,
) -> None:
    """An element of one axis where another is declared; propose an order of the subscripts that
    fits.
    """
    items = [g[0] for g in groups]
    texts = [state.text(s.span) if s.node is not None else ":" for s in items]
    point = items[position].content
    assert isinstance(point, Point)
    over = [
        (t, s.content.axis)
        for s, t in zip(items, texts, strict=True)
        if isinstance(s.content, Point)
    ]
    label = ", ".join(f"`{t}` {'' if k else 'runs '}over {a.name}" for k, (t, a) in enumerate(over))
    name = state.text(node.base.span)
    order = _fitting_order(state, value, items)
    fix = None
    if order is not None and all(len(g) == 1 for g in groups):
        first, last = items[0].span, items[-1].span
        replacement = ", ".join(texts[k] for k in order)
        if all(s.node is not None for s in items):
            fix = Fix(f"write `{name}[{replacement}]`", first.to(last), replacement)
    place = place_of(state, context, node.base)
    spans = [s.span for s in items if s.node is not None]
    state.error(
        "BLV0305",
        spans[0].to(spans[-1]),
        label,
        context=context,
        secondary=[
            Label(
                place,
                "axes in this order" if len(items) > 1 else f"declared over {value.axes[0].name}",
            )
        ]
        if place
        else [],
        fix=fix,
        hint=None if fix else subset_hint(value.axes[position], point.axis),
        position=position + 1,
        name=name,
        found=value.axes[position].name,
        expected=point.axis.name,
    )


def _fitting_order(state: State, value: Value, items: Sequence[Subscript]) -> list[int] | None:
    order: list[int] = []
    for axis in value.axes:
        for k, item in enumerate(items):
            fits = isinstance(item.content, Point) and climb(state, item.content, axis) is not None
            if k not in order and fits:
                order.append(k)
                break
        else:
            return None
    return order
