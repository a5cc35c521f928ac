"""Reductions over iterators and over positional axes, rewritten into the primitives of the IR."""

from __future__ import annotations

import math

from bilevelpy.diagnostics import Span
from bilevelpy.ir.build import Builder
from bilevelpy.sema.values import (
    Iterators,
    Value,
    elementwise,
    full,
    multiply,
    spread,
    sum_over,
    union,
)

# name -> how a condition that reads an outer iterator is handled: absorbed into a sum, or masked.
COMPREHENSIONS = {
    "sum": "sum",
    "mean": "sum",
    "norm1": "sum",
    "sumsq": "sum",
    "norm2": "sum",
    "prod": "mask",
    "max": "mask",
    "min": "mask",
    "logsumexp": "mask",
    "norminf": "mask",
}
_NEUTRAL = {"prod": 1.0, "max": -math.inf, "min": math.inf, "logsumexp": -math.inf, "norminf": 0.0}
_FIRST = {"norm1": "abs", "norminf": "abs", "sumsq": "square"}
_THEN = {"norm1": "sum", "norminf": "max", "sumsq": "sum"}


def reduce_over(
    builder: Builder,
    function: str,
    body: Value,
    iters: Iterators,
    mask: Value | None,
    span: Span | None,
) -> Value:
    """The reduction of a scalar ``body`` over ``iters`` (where ``mask`` holds)."""
    if function in _FIRST:
        body = elementwise(builder, _FIRST[function], [body], span)
    if mask is not None:
        neutral = Value(builder.const(_NEUTRAL[function]))
        body = elementwise(builder, "select", [mask, body, neutral], span)
    function = _THEN.get(function, function)
    if function == "sum":
        return sum_over(builder, body, iters, span)
    if function == "mean":
        sizes = [Value(builder.apply("recip", builder.size(i.axis))) for i in iters]
        return multiply(builder, [*sizes, sum_over(builder, body, iters, span)], span)
    everything = union([body, *(Value(builder.position(i.axis), (i,)) for i in iters)])
    operand = spread(builder, body, everything, ())
    dims = tuple(k for k, i in enumerate(everything) if i in iters)
    rest = tuple(i for i in everything if i not in iters)
    return Value(builder.reduce(function, operand, dims, span), rest)


def reduce_all(builder: Builder, function: str, value: Value, span: Span | None) -> Value:
    """The reduction of all positional axes of ``value``."""
    if function in _FIRST:
        value = elementwise(builder, _FIRST[function], [value], span)
    return full(builder, _THEN.get(function, function), value, span)
