"""Curvature that is seen at once: functions of one affine argument, and quadratics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.analysis.bounds.signs import SIGN_PRODUCT, Signs
from bilevelpy.analysis.convexity.diagonal import diagonal_product
from bilevelpy.analysis.convexity.quadratic import is_psd_form
from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.forms.form import Forms

# Functions whose curvature is the same on their whole domain.
_CURVED = {
    "square": "+",
    "exp": "+",
    "softplus": "+",
    "abs": "+",
    "relu": "+",
    "logsumexp": "+",
    "log": "-",
    "sqrt": "-",
}


def plain_sign(forms: Forms, signs: Signs, core: ir.Expr) -> str:
    """The curvature of a function of one affine argument, or of a quadratic, that needs no other
    rules: "+" convex, "-" concave or "?".
    """
    if isinstance(core, ir.Apply) and len(core.operands) == 1:
        return _CURVED.get(core.function, "?") if forms.is_affine(core.operands[0]) else "?"
    if isinstance(core, ir.Reduce):
        return _CURVED.get(core.function, "?") if forms.is_affine(core.operand) else "?"
    if not isinstance(core, ir.Einsum) or not is_affine_product(forms, core):
        return "?"
    if is_psd_form(forms.scope, signs, core):
        return "+"
    fixed = signs.product(tuple(o for o in core.operands if o not in forms.scope.moving))
    for ranges in (signs.declared, signs.measured):
        product = diagonal_product(forms.scope, ranges, core)
        if product is None:
            return "?"
        low, high = float(product[1][0].min()), float(product[1][1].max())
        if low >= 0 or high <= 0:
            return SIGN_PRODUCT[("+" if low >= 0 else "-") + fixed]
    return "?"


def is_affine_product(forms: Forms, core: ir.Expr) -> bool:
    """Whether the core is a product of two moving affine factors: no disciplined rule applies to
    it.
    """
    if not isinstance(core, ir.Einsum):
        return False
    moving = [o for o in core.operands if o in forms.scope.moving]
    return len(moving) == 2 and all(forms.is_affine(o) for o in moving)
