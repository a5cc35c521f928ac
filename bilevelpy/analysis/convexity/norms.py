"""Roots of sums of squares: ``sqrt(c + sum w_k a_k^2)`` with affine ``a_k`` is a Euclidean norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.analysis.convexity.quadratic import is_psd_form
from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms


def is_sum_of_squares(forms: Forms, signs: Signs, node: ir.Expr) -> bool:
    """Whether a node is a sum of squares of affine expressions and of a number that is not
    negative, so that its root is convex (disciplined rules see a concave function of a convex one).
    """
    if node not in forms.scope.moving:
        return signs.of(node) in ("+", "0")
    match node:
        case ir.Apply(function="square"):
            return forms.is_affine(node.operands[0])
        case ir.Apply(function="add"):
            return all(is_sum_of_squares(forms, signs, o) for o in node.operands)
        case ir.Einsum():
            moving = [o for o in node.operands if o in forms.scope.moving]
            fixed = tuple(o for o in node.operands if o not in forms.scope.moving)
            positive = not fixed or signs.product(fixed) in ("+", "0")
            if len(moving) == 1:
                return positive and is_sum_of_squares(forms, signs, moving[0])
            if not all(forms.is_affine(o) for o in moving):
                return False
            return is_psd_form(forms.scope, signs, node) or (positive and _is_square(forms, node))
        case ir.Reduce(function="sum") | ir.Align() | ir.Gather() | ir.ScatterSum():
            return is_sum_of_squares(forms, signs, node.children[0])
        case _:
            return False


def _is_square(forms: Forms, node: ir.Einsum) -> bool:
    """Whether the moving factors are one expression twice, entry by entry."""
    moving = [
        (o, s)
        for o, s in zip(node.operands, node.subscripts, strict=True)
        if o in forms.scope.moving
    ]
    return len(moving) == 2 and moving[0] == moving[1]
