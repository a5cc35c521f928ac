"""Iterators and their conditions: comprehensions, families of constraints, lets and followers.

A condition never unrolls anything. What it says about one iterator makes a subset axis; what it
says about several makes one flat axis of index tuples; what it says about an iterator from outside
makes the flat axis carry that one too, and the result is summed back onto it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from bilevelpy.diagnostics import Label
from bilevelpy.sema.axes import axis_of
from bilevelpy.sema.expressions.binder_names import check_names, check_width, points_of
from bilevelpy.sema.expressions.reductions import COMPREHENSIONS, reduce_over
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.scope import Context, Local, Request, State, Steps, closest
from bilevelpy.sema.values import (
    Iterator,
    Iterators,
    Point,
    Value,
    elementwise,
    move,
    multiply,
    ordered,
    plain,
    spread,
)
from bilevelpy.syntax import ast


@dataclass(frozen=True, slots=True)
class Bound:
    """What a binder list gives: the context of its body, the axes it runs over, and outer iterators
    it absorbed.

    ``scattered`` maps each absorbed outer iterator to its position, a function of the one flat
    iterator ``flat``. ``mask`` is a condition that was kept as such (for reductions that have no
    scatter form).
    """

    context: Context
    iters: Iterators
    flat: Iterator | None = None
    scattered: tuple[tuple[Iterator, Value], ...] = ()
    mask: Value | None = None


BoundSteps = Generator[Request, "Value | None", "Bound | None"]


def bind(state: State, context: Context, node: ast.Generators, mode: str) -> BoundSteps:
    """Bind the iterators of ``node``.

    ``mode`` is "sum" (outer iterators of a condition are absorbed), "mask" (they stay, as a mask)
    or "family" (an outer iterator in a condition is an error).
    """
    names: dict[str, Local] = {}
    raw: list[Iterator] = []
    wrong = False
    for binder in node.binders:
        axis = yield from axis_of(state, context.bind(names), binder.set)
        if not check_names(state, context, binder, names):
            wrong = True
        if axis is not None and not check_width(state, context, binder, axis):
            axis = None
        if axis is None:
            wrong = True
            names.update(dict.fromkeys(binder.names))
            continue
        iterator = state.iterator(binder.names[0], axis, binder.name_spans[0])
        raw.append(iterator)
        names.update(points_of(state, binder.names, plain(state.builder, iterator)))
    inner = context.bind(names)
    conjuncts: list[Value] = []
    for item in _conjuncts(node.condition):
        value = yield item, inner.data("a condition reads data only")
        if value is None:
            wrong = True
        elif value.axes:
            state.error(
                "BLV0314",
                item.span,
                f"axes {axes_text(value.axes)}",
                context=context,
                what="a condition",
                axes=axes_text(value.axes),
            )
            wrong = True
        else:
            conjuncts.append(value)
    if wrong:
        # The body is still visited, so that its own errors are found: its iterators are poisoned.
        return Bound(context.bind(dict.fromkeys(names)), ())
    if not conjuncts:
        return Bound(inner, tuple(raw))
    return _restrict(state, context, node, raw, conjuncts, mode)


def _conjuncts(condition: ast.Expr | None) -> list[ast.Expr]:
    if condition is None:
        return []
    found: list[ast.Expr] = []
    stack = [condition]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Boolean) and item.operator == "and":
            stack.extend(reversed(item.operands))
        else:
            found.append(item)
    return found


def _restrict(
    state: State,
    context: Context,
    node: ast.Generators,
    raw: list[Iterator],
    conjuncts: list[Value],
    mode: str,
) -> Bound | None:
    """Apply conditions to iterators; see the module's text for the forms."""
    builder = state.builder
    inner = set(raw)
    outer = ordered({i for c in conjuncts for i in c.iters if i not in inner})
    if outer and mode == "family":
        assert node.condition is not None
        state.error(
            "BLV0322",
            node.condition.span,
            f"reads `{outer[0].name}`",
            context=context,
            secondary=[Label(outer[0].span, "bound here")] if outer[0].span else [],
            iterator=outer[0].name,
            hint="iterate over both here, or write `if ... then ... else` in the expression",
        )
        return None
    mask: Value | None = None
    if outer and mode == "mask":
        reading = [c for c in conjuncts if any(i in outer for i in c.iters)]
        conjuncts = [c for c in conjuncts if c not in reading]
        mask = _conjunction(state, reading)
        outer = ()
    groups = _groups(raw, conjuncts, outer)
    stage: dict[Iterator, Value] = {}
    iters: list[Iterator] = []
    flat: Iterator | None = None
    scattered: list[tuple[Iterator, Value]] = []
    for members in groups:
        belonging = [
            c
            for c in conjuncts
            if any(i in members for i in c.iters) or (not c.iters and members is groups[0])
        ]
        if not belonging:
            iters.extend(members)
            continue
        parents = tuple(i.axis for i in members)
        condition = spread(builder, _conjunction(state, belonging), members, ())
        assert node.condition is not None
        name = f"{' * '.join(a.name for a in parents)} where {state.text(node.condition.span)}"
        axis = builder.subset_axis(name, parents, condition, node.span)
        names = (
            members[0].name if len(members) == 1 else "(" + ", ".join(i.name for i in members) + ")"
        )
        made = state.iterator(names, axis, node.span)
        iters.append(made)
        for k, member in enumerate(members):
            stage[member] = Value(builder.component(axis, k), (made,))
        absorbed = [i for i in members if i in outer]
        if absorbed:
            flat = made
            scattered = [(i, stage[i]) for i in absorbed]
    body = _body_context(state, context, node, raw, stage)
    if mask is not None:
        mask = move(builder, mask, stage)
    return Bound(body, ordered(set(iters)), flat, tuple(scattered), mask)


def _conjunction(state: State, values: list[Value]) -> Value:
    return values[0] if len(values) == 1 else elementwise(state.builder, "and", values, None)


def _groups(raw: list[Iterator], conjuncts: list[Value], outer: Iterators) -> list[Iterators]:
    """Iterators that conditions tie together; all outer iterators are in one group."""
    groups: list[set[Iterator]] = [{i} for i in raw]
    if outer:
        groups.append(set(outer))
    for value in conjuncts:
        touched = [g for g in groups if any(i in g for i in value.iters)]
        if len(touched) > 1:
            groups = [g for g in groups if g not in touched]
            groups.append(set().union(*touched))
    alone = [g for g in groups if not any(i in raw for i in g)]
    if alone:
        # Conditions that read outer iterators only: they rule out all of the sum, through any one
        # of its iterators.
        groups = [g for g in groups if g not in alone]
        groups[0] = groups[0].union(*alone)
    return [ordered(g) for g in groups]


def _body_context(
    state: State,
    context: Context,
    node: ast.Generators,
    raw: list[Iterator],
    stage: dict[Iterator, Value],
) -> Context:
    names: dict[str, Local] = {}
    for binder, iterator in zip(node.binders, raw, strict=True):
        if iterator not in stage:
            point = plain(state.builder, iterator)
        else:
            position = stage[iterator]
            made = position.iters[0]
            # A subset of one axis: the iterator runs plainly over the subset, which knows its
            # parent.
            single = len(made.axis.parents) == 1
            point = plain(state.builder, made) if single else Point(iterator.axis, position)
        names.update(points_of(state, binder.names, point))
    outside = {i: v for i, v in stage.items() if i not in raw}
    # Conditions further out are about iterators that are no longer there.
    moved = replace(context, moves=(*context.moves, outside), guards=()) if outside else context
    return moved.bind(names)


def comprehension(state: State, context: Context, node: ast.Comprehension) -> Steps:
    """`sum(e for i in I where c)` and the other reductions."""
    known = node.function in COMPREHENSIONS
    if not known:
        guess = closest(node.function, COMPREHENSIONS)
        state.error(
            "BLV0219",
            node.function_span,
            "reduces nothing",
            context=context,
            name=node.function,
            notes=("these do: " + ", ".join(f"`{n}`" for n in COMPREHENSIONS),),
            hint=f"did you mean `{guess}`?"
            if guess and node.function not in ("exp", "log")
            else None,
        )
    mode = "sum" if COMPREHENSIONS.get(node.function, "sum") == "sum" else "mask"
    bound = yield from bind(state, context, node.generators, mode)
    if bound is None:
        return None
    body = yield node.body, bound.context
    if body is None or not known or not bound.iters:
        return None
    if body.axes:
        state.error(
            "BLV0314",
            node.body.span,
            f"axes {axes_text(body.axes)}",
            context=context,
            what="the body of a comprehension",
            axes=axes_text(body.axes),
            hint="index every axis (`x[i, j]`), or reduce it first",
        )
        return None
    if bound.flat is None:
        return reduce_over(state.builder, node.function, body, bound.iters, bound.mask, node.span)
    return _scatter(state, node, bound, body)


def _scatter(state: State, node: ast.Comprehension, bound: Bound, body: Value) -> Value:
    """Sum over a flat axis back onto the outer iterators it absorbed."""
    builder, flat = state.builder, bound.flat
    assert flat is not None
    inner = {"sum": None, "mean": None, "norm1": "abs", "sumsq": "square", "norm2": "square"}[
        node.function
    ]
    if inner is not None:
        body = elementwise(builder, inner, [body], node.span)

    def onto(value: Value) -> Value:
        others = tuple(i for i in bound.iters if i is not flat)
        value = reduce_over(builder, "sum", value, others, None, node.span) if others else value
        rest = tuple(i for i in value.iters if i is not flat)
        operand = spread(builder, value, (flat, *rest), ())
        index = [position.expr for _, position in bound.scattered]
        outer = tuple(i for i, _ in bound.scattered)
        summed = builder.scatter_sum(operand, index, tuple(i.axis for i in outer), node.span)
        have = (*outer, *rest)
        iters = ordered(set(have))
        source = tuple(have.index(i) for i in iters)
        return Value(builder.align(summed, source, tuple(i.axis for i in iters)), iters)

    result = onto(body)
    if node.function == "mean":
        count = onto(Value(builder.fill(1.0, (flat.axis,)), (flat,)))
        return multiply(builder, [result, elementwise(builder, "recip", [count], None)], node.span)
    return elementwise(builder, "sqrt", [result], node.span) if node.function == "norm2" else result
