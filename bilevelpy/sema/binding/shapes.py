"""How axes look from the data: their parts, their words, their elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bilevelpy.ir.expr import Component, Coordinate, Expr, LabelPosition, Locate, Position, Size
from bilevelpy.ir.program import Program
from bilevelpy.ir.types import Axes, Axis, AxisKind
from bilevelpy.ir.walk import level_roots, postorder, program_roots


def parts_of(axis: Axis) -> tuple[Axis, ...]:
    """The sets whose labels make up an element of ``axis``: one, or several for pairs."""
    if axis.kind is AxisKind.PAIRS or (axis.kind is AxisKind.SUBSET and len(axis.parents) > 1):
        return tuple(part for parent in axis.parents for part in parts_of(parent))
    if axis.kind is AxisKind.SUBSET:
        parts = parts_of(axis.parents[0])
        if len(parts) > 1:  # elements of a subset of pairs are pairs
            return parts
    return (axis,)


def components(axes: Axes) -> tuple[Axis, ...]:
    """The sets of a key over ``axes``, pairs taken apart."""
    return tuple(part for axis in axes for part in parts_of(axis))


def axes_text(axes: Iterable[Axis]) -> str:
    """Axes as users write them: ``(n, p)``, "a scalar" without any."""
    names = [a.name for a in axes]
    return "(" + ", ".join(names) + ")" if names else "a scalar"


def node_axes(roots: Iterable[Expr]) -> Iterator[Axis]:
    """Every axis that the nodes below the roots mention."""
    for node in postorder(roots):
        yield from node.axes
        if isinstance(node, Size | Position | Coordinate | Component | LabelPosition | Locate):
            yield node.axis


def axis_roots(axis: Axis) -> list[Expr]:
    """The expressions that define an axis."""
    return [e for e in (axis.size, axis.low, axis.high, axis.condition) if e is not None]


def program_axes(program: Program) -> list[Axis]:
    """Every axis that the program uses, those that others are made of included."""
    roots = program_roots(program)
    start: list[Axis] = list(node_axes(roots))
    for param in program.params.values():
        start += param.axes
    for level in program.levels:
        start += level.family
        start += [a for v in level.variables for a in v.axes]
        start += [a for c in level.constraints for a in c.axes]
        start += list(node_axes(level_roots(level)))
    for extern in program.externs.values():
        start += [a for argument in extern.arguments for a in argument.axes]
        start += extern.result
    return closure(start)


def closure(start: Sequence[Axis]) -> list[Axis]:
    """The axes and all that they are made of, each once."""
    seen: dict[Axis, None] = {}
    stack = list(reversed(start))
    while stack:
        axis = stack.pop()
        if axis in seen:
            continue
        seen[axis] = None
        stack += [*axis.parents, *axis.operands, *node_axes(axis_roots(axis))]
    return list(seen)
