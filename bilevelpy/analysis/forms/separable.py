"""Axes over which a lower objective falls into independent blocks, and data axes that objectives
sum over.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bilevelpy.analysis.forms.scope import Scope, make_scope, names_of
from bilevelpy.analysis.forms.terms import split
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import BoundProgram, Level, Variable
from bilevelpy.ir.types import Axis, DomainKind
from bilevelpy.ir.walk import place, postorder

# How a node relates to the elements of one axis.
FREE = "free"  # reads no moving variable
SUMMED = "summed"  # a sum over the elements, each part reading its own element only
MIXED = "mixed"  # elements meet


@dataclass(frozen=True, slots=True)
class Along:
    """Entry ``a`` along dimension ``dim`` reads variables at element ``a`` only; at ``index[a]``
    where there is one: entries of a sum whose `where` reads an outer iterator are pairs.
    """

    dim: int
    index: ir.Expr | None = None


State = str | Along


def block_axes(bound: BoundProgram, lowers: tuple[Level, ...]) -> Fact[tuple[str, ...]]:
    """The axes that every lower variable has and over which f and the constraints split."""
    variables = [v for level in lowers for v in level.variables]
    shared = [
        a
        for a in (variables[0].axes if variables else ())
        if all(v.axes.count(a) == 1 for v in variables)
    ]
    found = [axis for axis in shared if all(_level_splits(bound, level, axis) for level in lowers)]
    names = tuple(a.name for a in found)
    if names:
        reason = f"no term of f joins variables of different elements of {', '.join(names)}"
        return Fact(names, Evidence.PROVED, reason, found[0].span)
    if len(lowers) > 1:
        return Fact((), Evidence.PROVED, "the followers are blocks; no axis splits all of them")
    return Fact(
        (), Evidence.PROVED, "no axis of the lower variables splits f into independent blocks"
    )


def block_count(bound: BoundProgram, lowers: tuple[Level, ...]) -> int:
    """How many blocks :func:`block_axes` finds."""
    names = block_axes(bound, lowers).value
    axes = {a.name: a for level in lowers for v in level.variables for a in v.axes}
    return prod(bound.data.sizes[axes[name]] for name in names)


def _level_splits(bound: BoundProgram, level: Level, axis: Axis) -> bool:
    if not all(_domain_splits(v, level, axis) for v in level.variables):
        return False
    roots = [level.objective, *(t for c in level.constraints for t in c.terms)]
    scope = make_scope(bound, roots, names_of([level]), frozenset())
    states = _states(scope, roots, axis)
    whole = states[level.objective]
    if whole == MIXED or (isinstance(whole, Along) and whole.index is not None):
        return False
    return all(
        isinstance(states[t], Along) or states[t] == FREE
        for c in level.constraints
        for t in c.terms
    )


def _domain_splits(variable: Variable, level: Level, axis: Axis) -> bool:
    """Whether elements of the axis lie in sets of their own: a simplex, ball or matrix is one
    object.
    """
    match variable.domain.kind:
        case DomainKind.SIMPLEX:
            return variable.axes[-1] is not axis
        case DomainKind.BALL:
            return axis in level.family
        case DomainKind.PSD:
            return axis not in variable.axes[-2:]
    return True


def _states(scope: Scope, roots: list[ir.Expr], axis: Axis) -> dict[ir.Expr, State]:
    states: dict[ir.Expr, State] = {}
    for node in postorder(roots):
        states[node] = _state(node, axis, states) if node in scope.moving else FREE
    return states


def _state(node: ir.Expr, axis: Axis, states: dict[ir.Expr, State]) -> State:
    inner = [states[c] for c in node.children]
    moving = [s for s in inner if s != FREE]
    match node:
        case ir.VarRef():
            return Along(node.axes.index(axis)) if node.axes.count(axis) == 1 else MIXED
        case ir.Apply():
            if all(isinstance(s, Along) for s in moving) and len(set(moving)) == 1:
                return moving[0]
            linear = node.function in ("add", "neg")
            return SUMMED if linear and all(s == SUMMED for s in moving) else MIXED
        case ir.Einsum():
            labels = {
                (subscript[s.dim], s.index) if isinstance(s, Along) else (s, None)
                for s, subscript in zip(inner, node.subscripts, strict=True)
                if s != FREE
            }
            if len(labels) != 1:
                return MIXED
            label, index = labels.pop()
            if isinstance(label, str):
                return SUMMED if label == SUMMED and len(moving) == 1 else MIXED
            return Along(node.output.index(label), index) if label in node.output else SUMMED
        case ir.Align():
            state = moving[0]
            if isinstance(state, Along):
                return Along(node.source.index(state.dim), state.index)
            return state
        case ir.Reduce():
            return _reduced(node, moving[0])
        case ir.MapLast():
            state = moving[0]
            return state if isinstance(state, Along) and state.dim != node.rank - 1 else MIXED
        case ir.Matrix():
            state = moving[0]
            return state if isinstance(state, Along) and state.dim < node.rank else MIXED
        case ir.Diag():
            state = moving[0]
            return state if isinstance(state, Along) and state.dim < node.rank - 2 else MIXED
        case ir.Gather():
            state = moving[0]
            if not isinstance(state, Along):
                return MIXED
            index = node.index[state.dim]
            if index is not None:
                return Along(0, index) if state.index is None and index.rank == 1 else MIXED
            kept = [d for d, i in enumerate(node.index) if i is None]
            return Along(node.rank - len(kept) + kept.index(state.dim), state.index)
        case ir.ScatterSum():
            return _scattered(node, moving[0])
        case _:
            return MIXED


def _reduced(node: ir.Reduce, state: State) -> State:
    if state == SUMMED:
        return SUMMED if node.function == "sum" else MIXED
    if not isinstance(state, Along):
        return MIXED
    if state.dim in node.dims:
        return SUMMED if node.function == "sum" else MIXED
    return Along(state.dim - sum(d < state.dim for d in node.dims), state.index)


def _scattered(node: ir.ScatterSum, state: State) -> State:
    """Pairs that come back to the element that they read."""
    if not isinstance(state, Along):
        return MIXED
    if state.dim > 0:
        return Along(state.dim - 1 + len(node.index), state.index)
    return Along(node.index.index(state.index)) if state.index in node.index else MIXED


def finite_sums(
    scope: Scope,
    objectives: list[ir.Expr],
    own_axes: frozenset[Axis],
    other_axes: frozenset[Axis] = frozenset(),
) -> Fact[tuple[str, ...]]:
    """The axes, none of a variable of the level, that the moving terms of an objective are summed
    over.

    One that variables of the other level have (``other_axes``) counts where data lie along it in
    what moves: the losses of rows that have weights or targets above are such a sum, the penalties
    of groups are not.
    """
    found = _summed(scope, objectives, own_axes, other_axes)
    if not found:
        return Fact((), Evidence.PROVED, "no term is a sum over a data axis")
    sizes = ", ".join(f"{a.name} ({scope.size(a)} terms)" for a in found)
    return Fact(
        tuple(a.name for a in found),
        Evidence.PROVED,
        f"a sum over {sizes}",
        place(next(iter(found.values()))),
    )


def longest_sum(
    scope: Scope,
    objectives: list[ir.Expr],
    own_axes: frozenset[Axis],
    other_axes: frozenset[Axis] = frozenset(),
) -> int:
    """How many terms the longest of :func:`finite_sums` has; 0 where there is none."""
    found = _summed(scope, objectives, own_axes, other_axes)
    return max((scope.size(axis) for axis in found), default=0)


def _summed(
    scope: Scope,
    objectives: list[ir.Expr],
    own_axes: frozenset[Axis],
    other_axes: frozenset[Axis],
) -> dict[Axis, ir.Expr]:
    """The axes that are summed over, each with a term that is."""
    found: dict[Axis, ir.Expr] = {}
    for objective in objectives:
        for term in split(scope, objective):
            for axis in term.axes:
                if axis in own_axes:
                    continue
                if axis not in other_axes or _has_data(term.core, axis):
                    found.setdefault(axis, term.root)
    return found


def _has_data(core: ir.Expr, axis: Axis) -> bool:
    """Whether data over the axis occur in an expression."""
    return any(isinstance(n, ir.ParamRef) and axis in n.axes for n in postorder([core]))
