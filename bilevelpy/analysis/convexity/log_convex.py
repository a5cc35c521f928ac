"""Functions whose logarithm is convex: softplus and logsumexp, however they are written.

``log g`` is convex where g is log-convex (S. Boyd and L. Vandenberghe, Convex Optimization, 2004,
section 3.5.2)::

    exp(convex),  cosh(affine),  1/affine > 0,  constants >= 0
    sums and maxima of such functions, their products, their powers with exponents >= 0

A sum of exponentials is convex, and so disciplined rules call its logarithm, a concave function of
it, neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms

# Sums within sums beyond this depth are not looked into.
DEEPEST = 60


def is_log_convex(
    forms: Forms,
    signs: Signs,
    node: ir.Expr,
    stand_in: Callable[[ir.Expr], Any],
    depth: int = 0,
) -> bool:
    """Whether the logarithm of a node is convex in the moving variables; ``stand_in`` gives
    arguments of exponentials as cvxpy's expressions.
    """
    if node not in forms.scope.moving:
        return signs.of(node) in "+0"
    if depth > DEEPEST:
        return False

    def holds(part: ir.Expr) -> bool:
        return is_log_convex(forms, signs, part, stand_in, depth + 1)

    match node:
        case ir.Apply(function="exp"):
            return bool(stand_in(node.operands[0]).is_convex())
        case ir.Apply(function="cosh"):
            return forms.is_affine(node.operands[0])
        case ir.Apply(function="recip"):
            below = node.operands[0]
            return forms.is_affine(below) and signs.of(below) == "+"
        case ir.Apply(function="add" | "maximum"):
            return all(holds(o) for o in node.operands)
        case ir.Apply(function="square"):
            return holds(node.operands[0])
        case ir.Apply(function="pow"):
            base, exponent = node.operands
            fixed = exponent not in forms.scope.moving
            return fixed and signs.of(exponent) in "+0" and holds(base)
        case ir.Einsum():
            return all(holds(o) for o in node.operands)
        case ir.Reduce(function="sum" | "max"):
            return holds(node.operand)
        case ir.Align() | ir.Gather() | ir.ScatterSum():
            return holds(node.children[0])
        case _:
            return False
