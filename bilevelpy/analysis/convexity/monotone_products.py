"""Products of functions of one argument that rise together.

Where f and g are convex, nowhere negative and nowhere falling functions of one number t, so is
their product: ``(f g)'' = f'' g + 2 f' g' + f g'' >= 0``. Costs like ``v (1 + 0.15 (v / c)^4)`` are
of this kind, entry by entry, with any affine v that is nowhere negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms

# Functions that rise wherever they have a value, and those that rise from 0 on.
_RISING = frozenset({"exp", "expm1", "log", "log1p", "sqrt", "softplus", "relu"})
_RISING_FROM_0 = frozenset({"square", "cosh"})


def common_argument(forms: Forms, signs: Signs, factors: Sequence[ir.Expr]) -> ir.Expr | None:
    """The affine expression of which all factors are nowhere falling functions, none of them
    negative anywhere; None where there is no such.
    """
    if any(signs.of(f) not in "+0" for f in factors):
        return None
    return _same([_argument(forms, signs, f) for f in factors])


def _argument(forms: Forms, signs: Signs, node: ir.Expr) -> ir.Expr | None:
    """What a node is a nowhere falling function of, entry by entry."""
    moving = [o for o in node.children if o in forms.scope.moving]
    found: ir.Expr | None = None
    if isinstance(node, ir.Einsum):
        found = _product(forms, signs, node, moving)
    elif isinstance(node, ir.Apply) and _rises(signs, node):
        found = _same([_argument(forms, signs, o) for o in moving])
    if found is None and forms.is_affine(node) and signs.of(node) in "+0":
        return node
    return found


def _rises(signs: Signs, node: ir.Apply) -> bool:
    if node.function == "add" or node.function in _RISING:
        return True
    if node.function in _RISING_FROM_0:
        return signs.of(node.operands[0]) in "+0"
    if node.function == "pow":
        base, exponent = node.operands
        return signs.measured.bounds(exponent)[0] >= 0 and signs.of(base) in "+0"
    return False


def _product(
    forms: Forms, signs: Signs, node: ir.Einsum, moving: Sequence[ir.Expr]
) -> ir.Expr | None:
    """A product entry by entry, with factors beside it that are nowhere negative."""
    for operand, subscript in zip(node.operands, node.subscripts, strict=True):
        if operand in moving:
            if subscript != node.output:
                return None
        elif signs.of(operand) not in "+0":
            return None
    if node.contracts:
        return None
    if len(moving) > 1:
        return common_argument(forms, signs, moving)
    return _argument(forms, signs, moving[0])


def _same(found: Sequence[ir.Expr | None]) -> ir.Expr | None:
    first = found[0] if found else None
    return first if all(f is first for f in found) else None
