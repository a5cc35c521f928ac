"""The names that generators bind."""

from __future__ import annotations

from bilevelpy.diagnostics import Label
from bilevelpy.ir.types import Axis
from bilevelpy.sema.axes import counted
from bilevelpy.sema.expressions.points import part, parts_of
from bilevelpy.sema.scope import Context, Declaration, Local, State
from bilevelpy.sema.values import Point
from bilevelpy.syntax import ast


def points_of(state: State, names: tuple[str, ...], point: Point) -> dict[str, Local]:
    """What the names of a binder stand for: the element, or the parts of a pair."""
    if len(names) == 1:
        return {names[0]: point}
    return {name: part(state, point, k) for k, name in enumerate(names)}


def check_names(
    state: State, context: Context, binder: ast.Binder, names: dict[str, Local]
) -> bool:
    """Report a name that is taken."""
    for k, (name, span) in enumerate(zip(binder.names, binder.name_spans, strict=True)):
        taken: Label | None = None
        if name in names or name in binder.names[:k]:
            taken = Label(binder.name_spans[0], "bound in this list already")
        elif name in context.names:
            local = context.names[name]
            place = local.iterator.span if isinstance(local, Point) and local.iterator else None
            taken = Label(place or span, "bound here already")
        else:
            own = state.lowers.get(context.level, {}).get(name) or state.top.get(name)
            # A function sees its arguments and data only, so names of the levels are no danger to
            # it.
            if isinstance(own, Declaration) and not (context.trail and own.level != "top"):
                taken = Label(own.span, f"{own.kind}")
        if taken is not None:
            state.error(
                "BLV0203",
                span,
                "an iterator of the same name",
                context=context,
                secondary=[taken],
                hint="rename the iterator",
                name=name,
            )
            return False
    return True


def check_width(state: State, context: Context, binder: ast.Binder, axis: Axis) -> bool:
    """Report other names than one, or one for each part of a pair."""
    width = len(parts_of(axis)) or 1
    if len(binder.names) in (1, width):
        return True
    state.error(
        "BLV0317",
        binder.span,
        f"{len(binder.names)} names",
        context=context,
        secondary=[
            Label(
                axis.span,
                f"{'pairs' if width == 2 else 'plain elements' if width == 1 else f'{width} each'}",
            )
        ]
        if axis.span
        else [],
        axis=axis.name,
        width=counted(width, "part"),
        found=counted(len(binder.names), "name"),
    )
    return False
