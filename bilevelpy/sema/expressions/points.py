"""Elements of related axes: subsets, their parents, and the parts of pairs."""

from __future__ import annotations

from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.scope import State
from bilevelpy.sema.values import Iterator, Point, Value, take


def parts_of(axis: Axis) -> tuple[Axis, ...]:
    """The axes that a pair of ``axis`` consists of (none if its elements are no pairs)."""
    while axis.kind is AxisKind.SUBSET and len(axis.parents) == 1:
        axis = axis.parents[0]
    return axis.parents if axis.kind in (AxisKind.PAIRS, AxisKind.SUBSET) else ()


def ancestors(axis: Axis) -> list[Axis]:
    """``axis`` and the axes it is a subset of, the nearest first."""
    found = [axis]
    while found[-1].kind is AxisKind.SUBSET and len(found[-1].parents) == 1:
        found.append(found[-1].parents[0])
    return found


def climb(state: State, point: Point, target: Axis) -> Iterator | Value | None:
    """The position in ``target`` of an element of a related axis: up to the common parent, then
    down.
    """
    if point.axis is target:
        return point.iterator or point.position
    builder = state.builder
    up, down = ancestors(point.axis), ancestors(target)
    common = next((a for a in up if any(a is b for b in down)), None)
    if common is None:
        root = up[-1]
        loose = root.kind is AxisKind.SIZE or (root.kind is AxisKind.RANGE and ".." in root.name)
        counted = down[-1].kind in (AxisKind.DIM, AxisKind.SIZE)
        if (loose and target.is_numeric) or (root.kind is AxisKind.RANGE and counted):
            coordinate = take(
                builder, Value(builder.coordinate(point.axis)), [point.iterator or point.position]
            )
            return Value(builder.locate(target, (coordinate.expr,), True), coordinate.iters)
        return None
    position = point.position
    for axis in up[: up.index(common)]:
        position = take(builder, Value(builder.component(axis, 0)), [_run(position, axis, state)])
    for axis in reversed(down[: down.index(common)]):
        position = Value(builder.locate(axis, (position.expr,), False), position.iters)
    return position


def _run(position: Value, axis: Axis, state: State) -> Iterator | Value:
    """The iterator behind a plain position, else the position."""
    if position.expr is state.builder.position(axis) and len(position.iters) == 1:
        return position.iters[0]
    return position


def part(state: State, point: Point, k: int) -> Point | None:
    """Component ``k`` of an element that is a pair."""
    pairs = ancestors(point.axis)[-1]
    position = climb(state, point, pairs)
    if position is None:
        return None
    component = take(state.builder, Value(state.builder.component(pairs, k)), [position])
    return Point(pairs.parents[k], component)


def subset_hint(one: Axis, other: Axis) -> str | None:
    """How the declaration is written, where one set lists labels that the other has; how subscripts
    are, where elements of ``one`` are pairs of those of ``other``; None where neither is known.
    """
    if len(one.parents) > 1 and other in one.parents:
        names = ", ".join("ijklmn"[: len(one.parents)])
        return f"elements of `{one.name}` have {len(one.parents)} parts: `[{names}]`"
    for part, whole in ((one, other), (other, one)):
        if not all(a.kind is AxisKind.LABELS and a.labels for a in (part, whole)):
            continue
        if set(part.labels or ()) <= set(whole.labels or ()):
            # The ends of listed pairs are sets of their own, which have no name in the model.
            pairs, dot, _ = part.name.rpartition(".")
            if "." not in whole.name:
                within = f"{whole.name} * {whole.name}" if dot else whole.name
                named = f"`set {pairs if dot else part.name} within {within} = ...`"
                return f"{named} makes these labels elements of {whole.name}"
    return None
