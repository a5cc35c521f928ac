"""Functions that are written out: ``log(1 + exp(z))`` is softplus, ``1/(1 + exp(-z))`` the sigmoid.

The named ones are computed without overflow, and are known to be convex; what is written out is
neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.build import Builder

# The outermost function of what is looked at.
WRITTEN = frozenset({"log", "log1p", "recip"})


def recognised(
    builder: Builder, function: str, operand: Expr, span: Span | None = None
) -> Expr | None:
    """The same value by a function with a name, None where there is none::

    log(c + exp(z)) = log(c) + softplus(z - log(c)),    c > 0
    log(exp(a) + exp(b)) = a + softplus(b - a)
    log(sum(exp(v))) = logsumexp(v)
    log(sigmoid(z)) = -softplus(-z)
    log(1 - sigmoid(z)) = -softplus(z)
    log(exp(z)) = z
    log(1/z) = -log(z)
    log(exp(a) z) = a + log(z)
    log1p(exp(z)) = softplus(z)
    1/(1 + exp(z)) = sigmoid(-z)
    1/exp(z) = exp(-z)
    """
    inner = _argument("exp", operand)
    if function == "log1p":
        return None if inner is None else builder.apply("softplus", inner, span=span)
    pair = _pair(operand)
    exponent = None if pair is None else _argument("exp", pair[0])
    if function == "recip" and inner is not None:
        return builder.apply("exp", builder.scale(-1.0, inner), span=span)
    if function == "recip":
        if pair is None or exponent is None or pair[1] != 1.0:
            return None
        return builder.apply("sigmoid", builder.scale(-1.0, exponent), span=span)
    if inner is not None:
        return inner
    if pair is not None and exponent is not None and isinstance(pair[1], float) and pair[1] > 0.0:
        shift = builder.const(math.log(pair[1]))
        soft = builder.apply("softplus", builder.sub(exponent, shift), span=span)
        return builder.add((shift, soft), span)
    if pair is not None and exponent is not None and not isinstance(pair[1], float):
        other = _argument("exp", pair[1])
        if other is not None and other.axes == exponent.axes:
            soft = builder.apply("softplus", builder.sub(other, exponent), span=span)
            return builder.add((exponent, soft), span)
    return _of_sums(builder, operand, pair, span)


def _of_sums(
    builder: Builder, operand: Expr, pair: tuple[Expr, Expr | float] | None, span: Span | None
) -> Expr | None:
    """Logarithms of sums and products of exponentials, of sigmoids and of quotients."""
    if isinstance(operand, ir.Einsum):
        return _of_product(builder, operand, span)
    if isinstance(operand, ir.Reduce) and operand.function == "sum":
        exponents = _argument("exp", operand.operand)
        if exponents is not None:
            return builder.reduce("logsumexp", exponents, operand.dims, span)
    below = _argument("recip", operand)
    if below is not None:
        return builder.scale(-1.0, builder.apply("log", below, span=span), span)
    score = _argument("sigmoid", operand)
    if score is not None:
        soft = builder.apply("softplus", builder.scale(-1.0, score), span=span)
        return builder.scale(-1.0, soft, span)
    if pair is not None and pair[1] == 1.0:
        rest = _argument("neg", pair[0])
        score = None if rest is None else _argument("sigmoid", rest)
        if score is not None:
            return builder.scale(-1.0, builder.apply("softplus", score, span=span), span)
    return None


def _of_product(builder: Builder, product: ir.Einsum, span: Span | None) -> Expr | None:
    """The logarithm of a product entry by entry, all but one of whose factors are exponentials."""
    if any(s not in ((), product.output) for s in product.subscripts):
        return None
    exponents = [_argument("exp", factor) for factor in product.operands]
    rest = [f for f, e in zip(product.operands, exponents, strict=True) if e is None]
    if len(rest) > 1 or len(rest) == len(exponents):
        return None
    logs = [builder.apply("log", factor, span=span) for factor in rest]
    return builder.add([*(e for e in exponents if e is not None), *logs], span)


def _argument(function: str, node: Expr) -> Expr | None:
    """The operand of a node that applies a function."""
    applied = isinstance(node, ir.Apply) and node.function == function
    return node.children[0] if applied else None


def _pair(node: Expr) -> tuple[Expr, Expr | float] | None:
    """The terms of a sum of two, a number last and as such."""
    if not (isinstance(node, ir.Apply) and node.function == "add" and len(node.operands) == 2):
        return None
    first, second = node.operands
    if isinstance(first, ir.Const):
        first, second = second, first
    return first, second.value if isinstance(second, ir.Const) else second
