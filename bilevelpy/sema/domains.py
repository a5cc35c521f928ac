"""Domains, and what is given for declared axes: bounds, starts, defaults."""

from __future__ import annotations

import math

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.emptiness import NAMES, REASONS, is_empty
from bilevelpy.ir.types import FREE, Axes, Domain, DomainKind
from bilevelpy.sema.axes import counted
from bilevelpy.sema.expressions.elaborate import evaluate
from bilevelpy.sema.lookup import axes_text, shape_text
from bilevelpy.sema.names import DOMAIN_ONLY, decided, known_size
from bilevelpy.sema.scope import Context, State, closest
from bilevelpy.sema.values import Iterators, Value, spread
from bilevelpy.syntax import ast

DOMAINS = ("simplex", "ball", "psd", "binary", "integers")
# What others call domains: name in lower case -> what is meant.
SPELT = {
    **dict.fromkeys(("nonnegative", "nonneg", "positive"), "[0, inf]"),
    **dict.fromkeys(("real", "reals", "r", "free", "continuous"), "[-inf, inf]"),
    **dict.fromkeys(("bool", "boolean", "bin"), "binary"),
}


def domain_of(
    state: State, context: Context, node: ast.Domain | None, axes: Axes, iters: Iterators
) -> Domain | None:
    """The domain after `in`; ``axes`` are all axes of what is declared, the first ones those of
    ``iters``.
    """
    if node is None:
        return FREE
    inner = context.data(DOMAIN_ONLY)
    if isinstance(node, ast.Interval):
        return _interval(
            state, inner, node.low, node.high, axes, iters, DomainKind.INTERVAL, node.span
        )
    own = axes[len(iters) :]
    counts = {"simplex": 0, "psd": 0, "binary": 0, "ball": 1, "integers": 2}
    if node.name not in counts:
        unknown_word(state, node.span, node.name, "a domain", ("[lo, hi]", *DOMAINS))
        return None
    if len(node.arguments) != counts[node.name]:
        forms = {"ball": "ball(radius)", "integers": "integers(low, high)"}
        state.error(
            "BLV0218",
            node.span,
            f"{len(node.arguments)} arguments",
            name=node.name,
            hint=f"it is written `{forms.get(node.name, node.name)}`",
        )
        return None
    if node.name == "integers":
        low, high = node.arguments
        return _interval(state, inner, low, high, axes, iters, DomainKind.INTEGERS, node.span)
    if node.name == "binary":
        return Domain(
            DomainKind.BINARY, state.builder.const(0.0), state.builder.const(1.0), span=node.span
        )
    if node.name == "psd" and (len(own) != 2 or own[0] is not own[1]):
        need = "a matrix with the same axis twice"
        _misfit(state, node.span, "needs a matrix", "psd", need, own)
        return None
    if node.name in ("simplex", "ball") and not own:
        _misfit(state, node.span, "needs an axis", node.name, "a vector or a tensor", own)
        return None
    radius: ir.Expr | None = None
    if node.name == "ball":
        value = evaluate(state, inner, node.arguments[0])
        if value is None:
            return None
        if value.axes:
            place, axes_found = node.arguments[0].span, f"axes {axes_text(value.axes)}"
            _misfit(state, place, axes_found, "ball", "a number as its radius", value.axes)
            return None
        if isinstance(value.expr, ir.Const) and value.expr.value < 0:
            state.error(
                "BLV0312",
                node.span,
                "holds nothing",
                what="a ball",
                low="0",
                high=f"{value.expr.value:g}",
            )
        radius = spread(state.builder, value, iters, ()) if value.iters else value.expr
    return Domain(DomainKind(node.name), radius=radius, span=node.span)


def _misfit(state: State, span: Span, label: str, name: str, need: str, found: Axes) -> None:
    """Report a domain of something with other axes than it needs."""
    text = axes_text(found) if found else "a scalar"
    state.error("BLV0323", span, label, name=name, need=need, found=text)


def _interval(
    state: State,
    context: Context,
    low: ast.Expr,
    high: ast.Expr,
    axes: Axes,
    iters: Iterators,
    kind: DomainKind,
    span: Span,
) -> Domain | None:
    bounds: list[ir.Expr | None] = []
    for node in (low, high):
        value = evaluate(state, context, node)
        if value is None:
            return None
        if not state.builder.is_data(value.expr):
            decided(state, context, node, context.reads_only)
            return None
        bound = fitted(
            state, context, value, axes, node.span, state.text(node.span), "bound", span, iters
        )
        if bound is None:
            return None
        bounds.append(bound)
    lower, upper = bounds
    if isinstance(lower, ir.Const) and isinstance(upper, ir.Const):
        crossed = lower.value > upper.value
        ends = lower.value, upper.value
        if kind is DomainKind.INTEGERS:
            ends = -_floor(-lower.value), _floor(upper.value)
        if is_empty(*ends):
            state.error(
                "BLV0312",
                span,
                "holds nothing" if crossed else REASONS[kind],
                what=NAMES[kind],
                low=f"{lower.value:g}",
                high=f"{upper.value:g}",
                hint="the smaller bound comes first" if crossed else None,
            )
            return None
    if kind is DomainKind.INTERVAL:
        lower = None if isinstance(lower, ir.Const) and lower.value == float("-inf") else lower
        upper = None if isinstance(upper, ir.Const) and upper.value == float("inf") else upper
        if lower is None and upper is None:
            return Domain(DomainKind.FREE, span=span)
    return Domain(kind, lower, upper, span=span)


def _floor(number: float) -> float:
    return math.floor(number) if math.isfinite(number) else number


def fitted(
    state: State,
    context: Context,
    value: Value,
    axes: Axes,
    span: Span,
    name: str,
    what: str,
    place: Span,
    iters: Iterators = (),
) -> ir.Expr | None:
    """A default, start or bound for ``axes`` (the first ones those of ``iters``): a scalar, or of
    these axes.

    A literal array has no axes of its own: it takes those of what it is given to, if its shape can
    be theirs.
    """
    own = axes[len(iters) :]
    node = value.expr
    if isinstance(node, ir.Array) and len(node.axes) == len(own):
        for literal, axis in zip(node.axes, own, strict=True):
            have, want = known_size(literal), known_size(axis)
            if want is not None and have != want:
                shape = " x ".join(str(known_size(a)) for a in node.axes)
                state.error(
                    "BLV0313",
                    span,
                    f"{shape} values",
                    context=context,
                    secondary=[
                        Label(place, f"the axis `{axis.name}` has {counted(want, 'element')}")
                    ],
                    name=name,
                    what=what,
                    found=f"{shape} values",
                    expected=f"axes {axes_text(own)}",
                )
                return None
        node = state.builder.array(node.values, own, span)
        value = Value(node)
    if value.axes and value.axes != own:
        state.error(
            "BLV0313",
            span,
            f"axes {axes_text(value.axes)}",
            context=context,
            secondary=[Label(place, shape_text(own))],
            name=name,
            what=what,
            found=f"axes {axes_text(value.axes)}",
            expected=shape_text(own),
        )
        return None
    if not value.expr.axes:
        return value.expr
    return spread(state.builder, value, iters, own)


def unknown_word(state: State, span: Span, name: str, what: str, known: tuple[str, ...]) -> None:
    """Report a word that is none of a short list."""
    guess = SPELT.get(name.lower()) or closest(name, known)
    listed = ", ".join(f"`{k}`" for k in known)
    state.error(
        "BLV0224",
        span,
        "not known",
        notes=(f"known: {listed}",),
        hint=f"did you mean `{guess}`?" if guess else None,
        name=name,
        what=what,
    )
