"""The order in which axes and params get their values: what something needs comes first."""

from __future__ import annotations

from collections.abc import Sequence

from bilevelpy.ir.expr import Expr
from bilevelpy.ir.types import Axis
from bilevelpy.ir.walk import params as params_of
from bilevelpy.sema.binding.shapes import axis_roots, node_axes
from bilevelpy.sema.binding.state import State

Thing = Axis | str
"""An axis, or the name of a param."""


def ordered(state: State, things: Sequence[Thing]) -> list[Thing]:
    """The things, each after all that it needs; cycles are reported and left out."""
    done: list[Thing] = []
    mark: dict[Thing, int] = {}
    for start in things:
        path: list[Thing] = []
        stack: list[tuple[Thing, bool]] = [(start, False)]
        while stack:
            thing, leave = stack.pop()
            if leave:
                path.pop()
                mark[thing] = 2
                done.append(thing)
                continue
            if mark.get(thing) == 1:
                _cycle(state, path[path.index(thing) :])
            if thing in mark:
                continue
            mark[thing] = 1
            path.append(thing)
            stack.append((thing, True))
            stack.extend((n, False) for n in reversed(needs(state, thing)) if mark.get(n) != 2)
    return done


def needs(state: State, thing: Thing) -> list[Thing]:
    """What must be known before ``thing``."""
    roots: list[Expr] = []
    if isinstance(thing, str):
        param = state.program.params[thing]
        found: dict[Thing, None] = dict.fromkeys(param.axes)
        if isinstance(param.default, Expr) and thing not in state.given:
            roots = [param.default]
    else:
        found = dict.fromkeys((*thing.parents, *thing.operands))
        roots = axis_roots(thing)
    found.update(dict.fromkeys(node_axes(roots)))
    found.update(dict.fromkeys(n for n in sorted(params_of(roots)) if n in state.program.params))
    return list(found)


def _cycle(state: State, members: Sequence[Thing]) -> None:
    if any(m in state.failed for m in members):
        return
    state.failed.update(members)
    names = [f"`{m}`" if isinstance(m, str) else f"`{m.name}`" for m in members]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    first = members[0]
    span = state.program.params[first].span if isinstance(first, str) else first.span
    state.report(
        "BLV0417",
        span,
        "part of the circle",
        names=text,
        hint="give one of them a value of its own, or bind it from outside",
    )
