"""Calls: functions of the language, inlined `def`s, externs and duals."""

from __future__ import annotations

from collections.abc import Generator

from bilevelpy.diagnostics import Label
from bilevelpy.ir.atoms import CALLS
from bilevelpy.ir.types import Axes
from bilevelpy.sema.axes import axis_of
from bilevelpy.sema.expressions.duals import dual
from bilevelpy.sema.expressions.functions import BUILTINS
from bilevelpy.sema.lookup import axes_text, shape_text, wrong_arguments
from bilevelpy.sema.names import resolve
from bilevelpy.sema.scope import TOP, Call, Context, Declaration, Kind, Local, Request, State, Steps
from bilevelpy.sema.values import Point, Value, spread, union
from bilevelpy.syntax import ast

READS = ("file", "csv", "json")
# How much text the functions of one model may grow to when they are inlined.
MAX_EXPANSION = 20_000
MAX_WIDTH = 20_000
# What is a function elsewhere: name -> how it is written here.
ELSEWHERE = {
    "ln": "the natural logarithm is `log(x)`",
    "log10": "write `log(x) / log(10)`",
    "log2": "write `log(x) / log(2)`",
    **dict.fromkeys(("pow", "power"), "a power is written `x^p`"),
    **dict.fromkeys(("transpose", "t"), "the transpose is written `A'`"),
    "matmul": "a product of matrices is written `A @ B`",
    "average": "did you mean `mean`?",
    **dict.fromkeys(("len", "size", "length"), "the size of an axis is `card(S)`"),
}


def call(state: State, context: Context, node: ast.Call) -> Steps:
    """The value of `function(arguments)`."""
    name = node.function
    if name == "dual":
        return dual(state, context, node)
    if name in READS:
        state.error("BLV0228", node.span, "a read", context=context, name=name)
        return None
    if name in ("ones", "zeros", "eye", "card"):
        return (yield from _from_axes(state, context, node))
    builtin = BUILTINS.get(name)
    if builtin is not None:
        arguments = yield from _builtin_arguments(
            state, context, node, builtin.parameters, builtin.most
        )
        if arguments is None:
            return None
        return builtin.apply(state, context, node, arguments)
    found = resolve(state, context, name)
    if isinstance(found, Declaration) and found.kind is Kind.DEF:
        return (yield from _inline(state, context, node, found))
    if isinstance(found, Declaration) and found.kind is Kind.EXTERN:
        return (yield from _extern(state, context, node, found))
    for argument in (*node.arguments, *(k.value for k in node.keywords)):
        yield argument, context
    if isinstance(found, Declaration) and name not in context.names:
        what = str(found.kind)
        hint = (
            f"a subscript is written `{name}[...]`"
            if found.kind in (Kind.PARAM, Kind.VAR, Kind.LET)
            else None
        )
        state.error(
            "BLV0217",
            node.function_span,
            f"this is {what}",
            context=context,
            secondary=[Label(found.span, "declared here")],
            hint=hint,
            name=name,
        )
    elif name not in state.missing:
        defs = [d.name for d in state.top.values() if d.kind in (Kind.DEF, Kind.EXTERN)]
        guess = state.guess(name, [*CALLS, *defs])
        state.error(
            "BLV0217",
            node.function_span,
            "neither of the language nor declared in this file",
            context=context,
            hint=ELSEWHERE.get(name)
            or (
                f"did you mean `{guess}`?"
                if guess
                else "functions are declared with `def` or `extern`"
            ),
            name=name,
        )
    return None


def _builtin_arguments(
    state: State, context: Context, node: ast.Call, least: int, most: int | None
) -> Generator[Request, Value | None, list[Value] | None]:
    """Evaluate positional arguments of a function of the language, and `d =` of huber."""
    arguments = list(node.arguments)
    wrong = False
    for keyword in node.keywords:
        if node.function == "huber" and keyword.name == "d" and len(arguments) == 1:
            arguments.append(keyword.value)
        else:
            label = f"no argument called `{keyword.name}`"
            wrong_arguments(state, context, node, CALLS[node.function][0], label, None)
            wrong = True
    values: list[Value] = []
    for argument in arguments:
        value = yield argument, context
        if value is None:
            wrong = True
        else:
            values.append(value)
    if len(arguments) < least or (most is not None and len(arguments) > most):
        if not wrong or len(values) == len(arguments):
            count = len(arguments)
            label = f"{count} argument{'s' if count != 1 else ''}"
            wrong_arguments(state, context, node, CALLS[node.function][0], label, None)
        wrong = True
    return None if wrong else values


def _from_axes(state: State, context: Context, node: ast.Call) -> Steps:
    """`ones(n, m)`, `zeros(n)`, `eye(n)`, `card(S)`: arguments are axes."""
    axes = []
    for argument in node.arguments:
        axis = yield from axis_of(state, context, argument)
        axes.append(axis)
    if any(a is None for a in axes):
        return None
    found: Axes = tuple(a for a in axes if a is not None)
    single = node.function in ("eye", "card")
    if node.keywords or not found or (single and len(found) != 1):
        count = len(found)
        label = f"{count} argument{'s' if count != 1 else ''}"
        wrong_arguments(state, context, node, CALLS[node.function][0], label, None)
        return None
    builder = state.builder
    if node.function == "card":
        return Value(builder.size(found[0], node.span))
    if node.function == "eye":
        return Value(builder.eye(found[0], node.span))
    return Value(builder.fill(1.0 if node.function == "ones" else 0.0, found, node.span))


# --- def
# -------------------------------------------------------------------------------------------------


def _inline(state: State, context: Context, node: ast.Call, found: Declaration) -> Steps:
    """The body of a `def` with its arguments put in."""
    definition: ast.DefDecl = found.node
    signature = f"{found.name}({', '.join(definition.parameters)})"
    named = {k.name: k.value for k in node.keywords}
    given: dict[str, ast.Expr] = dict(zip(definition.parameters, node.arguments, strict=False))
    extra = len(node.arguments) > len(definition.parameters)
    if extra or set(named) - set(definition.parameters) or set(named) & set(given):
        wrong_arguments(state, context, node, signature, "these arguments do not fit", found.span)
        return None
    given |= named
    absent = [p for p in definition.parameters if p not in given]
    if absent:
        wrong_arguments(state, context, node, signature, f"`{absent[0]}` is missing", found.span)
        return None
    names: dict[str, Local] = {}
    for parameter in definition.parameters:
        names[parameter] = yield from _argument(state, context, given[parameter])
    if any(v is None for v in names.values()) or found in state.circular:
        return None
    # A name that the body may read is fixed by the function, so equal arguments give equal values.
    key = (found, tuple(_identity(v) for v in names.values()))
    if key in state.inlined:
        return state.inlined[key]
    state.expansion += 1
    if state.expansion > MAX_EXPANSION or state.expanded_too_far:
        _too_far(state, node)
        return None
    shown = ", ".join(f"`{p}` {_described(v)}" for p, v in names.items())
    trail = (
        *context.trail[:8],
        Call(found.name, node.span, f"called with {shown}" if shown else ""),
    )
    inner = Context(
        TOP, names, reads_only="a function reads its arguments and data only", trail=trail
    )
    value = yield definition.body, inner
    if value is not None:
        # Deep chains multiply terms: what they grow to counts as well as how often they are
        # inlined.
        state.expansion += len(value.expr.children) if len(trail) > 8 else 0
        if len(value.expr.children) > MAX_WIDTH:
            _too_far(state, node)
            value = None
    state.inlined[key] = value
    return value


def _too_far(state: State, node: ast.Call) -> None:
    if not state.expanded_too_far:
        state.expanded_too_far = True
        state.error("BLV0227", node.span, "inlined here", name=node.function, limit=MAX_EXPANSION)


def _argument(
    state: State, context: Context, node: ast.Expr
) -> Generator[Request, Value | None, Local]:
    """An argument of a `def`: iterators, dims and sets keep what they are, so that the body can use
    them so.
    """
    if isinstance(node, ast.Name):
        local = context.names.get(node.name)
        if isinstance(local, Point):
            return state.point(context, local)
        found = resolve(state, context, node.name)
        if isinstance(found, Declaration) and found.kind in (Kind.DIM, Kind.SET):
            return found
    return (yield node, context)


def _identity(local: Local) -> object:
    if isinstance(local, Value):
        return id(local.expr), local.iters
    if isinstance(local, Point):
        return "point", id(local.axis), id(local.position.expr), local.position.iters
    return id(local)


def _described(local: Local) -> str:
    if isinstance(local, Point):
        return f"an element of {local.axis.name}"
    if isinstance(local, Declaration):
        return str(local.kind)
    return axes_text(local.axes) if local is not None and local.axes else "a scalar"


# --- extern
# ----------------------------------------------------------------------------------------------


def _extern(state: State, context: Context, node: ast.Call, found: Declaration) -> Steps:
    """A call of a function that is handed over at binding."""
    values: list[Value | None] = []
    for argument in node.arguments:
        value = yield argument, context
        values.append(value)
    signature = f"{found.name}({', '.join(a.name for a in found.node.arguments)})"
    if node.keywords or len(values) != len(found.node.arguments):
        wrong_arguments(state, context, node, signature, f"{len(values)} arguments", found.span)
        return None
    declared = state.externs.get(found.name)
    if declared is None or any(v is None for v in values):
        return None
    operands = [v for v in values if v is not None]
    wrong = False
    for value, wanted, item in zip(operands, declared.arguments, node.arguments, strict=True):
        if value.axes != wanted.axes:
            state.error(
                "BLV0307",
                item.span,
                shape_text(value.axes),
                context=context,
                secondary=[Label(found.node.span, "declared here")],
                name=f"{found.name}({wanted.name})",
                expected=shape_text(wanted.axes),
                found=shape_text(value.axes),
            )
            wrong = True
    if wrong:
        return None
    if context.reads_only and not context.trail:
        state.error(
            "BLV0221",
            node.span,
            "an extern function",
            context=context,
            name=found.name,
            where=context.reads_only,
        )
        return None
    # An operand either carries all iterators of the call (the call is repeated along them) or none.
    iters = union(operands)
    nodes = [spread(state.builder, v, iters, v.axes) if v.iters else v.expr for v in operands]
    axes = (*(i.axis for i in iters), *declared.result)
    return Value(state.builder.extern(found.name, nodes, axes, node.span), iters)
