"""Names in use: what they mean where they stand, and who may read whom."""

from __future__ import annotations

import math

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.lookup import SHOWN, Ambiguous, lookup, unknown
from bilevelpy.sema.scope import REPORTS, TOP, UPPER, Context, Declaration, Kind, State
from bilevelpy.sema.values import Point, Value, take
from bilevelpy.syntax import ast

# Why a domain reads no variables, in the words of BLV0221.
DOMAIN_ONLY = "a domain reads data only"


def resolve(state: State, context: Context, name: str) -> Declaration | Ambiguous | None:
    """The declaration behind ``name``; arguments of functions may stand for one."""
    local = context.names.get(name)
    if isinstance(local, Declaration):
        return local
    return lookup(state, context.level, name)


def name_value(state: State, context: Context, node: ast.Name) -> Value | None:
    """The value of a plain name."""
    name = node.name
    if name in context.names:
        local = context.names[name]
        if isinstance(local, Point):
            return number(state, context, state.point(context, local), node.span, name)
        if not isinstance(local, Declaration):
            return None if local is None else state.moved(context, local)
    found = resolve(state, context, name)
    if found is None:
        if name == "pi":
            return Value(state.builder.const(math.pi, node.span))
        _no_such_name(state, context, name, node.span)
        return None
    if isinstance(found, Ambiguous):
        some = found.candidates[:SHOWN]
        choices = [d.place for d in some] + ["..."] * (len(found.candidates) > SHOWN)
        state.error(
            "BLV0213",
            node.span,
            "which one?",
            context=context,
            secondary=[Label(d.span, f"`{d.place}`") for d in some],
            hint="write " + " or ".join(c if c == "..." else f"`{c}`" for c in choices),
            name=name,
        )
        return None
    return declared_value(state, context, found, node.span)


def _no_such_name(state: State, context: Context, name: str, span: Span) -> None:
    for level, table in state.constraints.items():
        if name in table:
            hint = f"its shadow price is `dual({level}.{name})`" if level != UPPER else None
            not_a_value(state, context, table[name], span, hint)
            return
    unknown(state, context, name, span)


def not_a_value(
    state: State, context: Context, found: Declaration, span: Span, hint: str | None
) -> None:
    """Report a name that stands for no value where one is read."""
    state.error(
        "BLV0220",
        span,
        f"this is {found.kind}",
        context=context,
        secondary=[Label(found.span, "declared here")],
        hint=hint,
        name=found.name,
        what=str(found.kind),
    )


def declared_value(state: State, context: Context, found: Declaration, span: Span) -> Value | None:
    """The value of a declared name as ``context`` reads it."""
    if found in state.doubtful:
        return None
    builder = state.builder
    hint: str | None
    match found.kind:
        case Kind.PARAM:
            axes = state.shapes.get(found)
            return None if axes is None else Value(builder.param(found.name, axes, span))
        case Kind.VAR:
            return _variable(state, context, found, span)
        case Kind.LET:
            return _let(state, context, found, span)
        case Kind.DIM:
            axis = state.axes.get(found)
            return None if axis is None else Value(builder.size(axis, span))
        case Kind.SET:
            hint = f"the number of its elements is `card({found.name})`"
        case Kind.DEF | Kind.EXTERN:
            hint = f"call it: `{found.name}({', '.join(_parameters(found))})`"
        case Kind.LEVEL:
            names = [
                d.place for d in state.lowers.get(found.name, {}).values() if d.kind is Kind.VAR
            ]
            hint = "its variables are " + ", ".join(f"`{n}`" for n in names[:4]) if names else None
        case _:
            hint = "reports are evaluated at the end and are not read by anything else"
    not_a_value(state, context, found, span, hint)
    return None


def _parameters(found: Declaration) -> list[str]:
    if found.kind is Kind.DEF:
        return list(found.node.parameters)
    return [a.name for a in found.node.arguments]


def decided(state: State, context: Context, node: ast.Expr, where: str | None) -> None:
    """Report an expression that reads variables where data is asked for."""
    state.error(
        "BLV0221",
        node.span,
        "its value is decided, not given",
        context=context,
        name=state.text(node.span),
        where=where,
    )


def _data_only(state: State, context: Context, found: Declaration, span: Span) -> None:
    state.error(
        "BLV0221",
        span,
        f"this is {found.kind}",
        context=context,
        secondary=[Label(found.span, "declared here")],
        hint="a bound that moves is a constraint: `subject to name: ... <= ...;`"
        if context.reads_only == DOMAIN_ONLY
        else None,
        name=found.place,
        where=context.reads_only,
    )


def _variable(state: State, context: Context, found: Declaration, span: Span) -> Value | None:
    if context.reads_only:
        _data_only(state, context, found, span)
        return None
    axes = state.shapes.get(found)
    if axes is None:
        return None
    own = found.level == context.level and context.level in state.lowers
    if (
        not own
        and found.level in state.lowers
        and context.level in state.lowers
        and not context.nash
    ):
        other_follower(state, context, found, span)
        return None
    value = Value(
        state.builder.var(found.level, found.name, axes, span), context.own if own else ()
    )
    return state.moved(context, value)


def other_follower(state: State, context: Context, found: Declaration, span: Span) -> None:
    """Report a follower that reads a decision taken at the same time by another."""
    reader = state.top[context.level]
    head = state.text(reader.node.head_span)
    family = reader.node.generators is not None
    same = found.level == context.level
    owner = f"another element of `{found.level}`" if same else f"follower `{found.level}`"
    label = f"belongs to {owner}, decided at the same time"
    if (label, reader.node.head_span) in state.games:
        return  # one missing word, however often the other follower is read
    state.games.add((label, reader.node.head_span))
    notes = ["followers that react to each other play a Nash game"]
    if not same:
        notes.append(
            f"a third level, below `{found.level}`, is not part of the language; its optimality "
            f"conditions as constraints of `{found.level}` say the same"
        )
    state.error(
        "BLV0214",
        span,
        label,
        context=context,
        secondary=[
            Label(
                reader.node.head_span,
                "followers of this family are independent"
                if family and same
                else "followers are independent",
            )
        ],
        notes=notes,
        hint=f"say so with `{head} nash {{ ... }}`, or move the coupling to `upper`",
        follower=context.level,
    )


def _let(state: State, context: Context, found: Declaration, span: Span) -> Value | None:
    own = found.level == context.level or (found.level == UPPER and context.level == REPORTS)
    if not own:
        reader = "a function" if context.level == TOP else f"`{context.level}`"
        state.error(
            "BLV0212",
            span,
            f"a `let` of `{found.level}`",
            context=context,
            secondary=[Label(found.span, "declared here")],
            hint=f"write its expression in `{context.level}`, or make it a `def`"
            if context.level in state.lowers
            else None,
            name=found.name,
            owner=found.level,
            reader="a report" if context.level == REPORTS else reader,
        )
        return None
    value = state.lets.get(found)
    if value is None:
        return None
    if context.reads_only and not state.builder.is_data(value.expr):
        _data_only(state, context, found, span)
        return None
    return state.moved(context, value)


def has_numbers(axis: Axis) -> bool:
    """Whether the elements of ``axis`` are numbers."""
    while axis.kind is AxisKind.SUBSET and len(axis.parents) == 1:
        axis = axis.parents[0]
    if axis.kind is AxisKind.LABELS and axis.labels:
        return all(isinstance(label, int | float) for label in axis.labels)
    return axis.is_numeric


def number(state: State, context: Context, point: Point, span: Span, name: str) -> Value | None:
    """The number that an element is."""
    if not has_numbers(point.axis):
        state.error(
            "BLV0309",
            span,
            f"`{name}` runs over {point.axis.name}",
            context=context,
            what=f"an element of {point.axis.name}",
            hint=f'use it as a subscript (`x[{name}]`) or beside a label (`{name} != "a"`)',
        )
        return None
    builder = state.builder
    coordinate = builder.coordinate(point.axis)
    if point.iterator is not None:
        return Value(coordinate, (point.iterator,))
    return take(builder, Value(coordinate), [point.position], span)


def place_of(state: State, context: Context, node: ast.Expr) -> Span | None:
    """Where the name that ``node`` consists of is declared, for secondary labels."""
    if isinstance(node, ast.Transpose):
        return place_of(state, context, node.operand)
    if not isinstance(node, ast.Name) or (
        node.name in context.names and not isinstance(context.names[node.name], Declaration)
    ):
        return None
    found = resolve(state, context, node.name)
    if not isinstance(found, Declaration):
        return None
    return found.node.span if found.kind in (Kind.PARAM, Kind.VAR) else found.span


def known_size(axis: Axis) -> int | None:
    """The number of elements of ``axis`` if the text says it."""
    if axis.labels is not None:
        return len(axis.labels)
    if isinstance(axis.size, ir.Const):
        return int(axis.size.value)
    if isinstance(axis.low, ir.Const) and isinstance(axis.high, ir.Const):
        return max(0, int(axis.high.value - axis.low.value) + 1)
    return None
