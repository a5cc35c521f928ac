"""Strong-convexity moduli from the text: curvature of separable terms times the least value of
their coefficients.

A term ``c * g(a)`` summed over entries, with ``a = s * v + b`` entry by entry for a whole lower
variable v, adds ``min(c) * min(s)^2 * inf g''`` to the modulus in v. The modulus of f is the least
over its variables, provided that every other term is convex.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bilevelpy.analysis.bounds.least import SHAVE, lower_bound
from bilevelpy.analysis.bounds.ranges import Ranges
from bilevelpy.analysis.convexity.diagonal import diagonal, diagonal_product
from bilevelpy.analysis.convexity.quadratic import least_eigenvalue, quadratic_form
from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.analysis.forms.terms import Term
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Level
from bilevelpy.system.deadline import check

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Share:
    """What a term adds to the modulus in one variable."""

    variable: Key
    value: float
    term: Term


def shares(scope: Scope, ranges: Ranges, terms: Iterable[Term]) -> list[Share]:
    """The shares of all terms that have one."""
    found = []
    for term in terms:
        check()
        share = _share(scope, ranges, term)
        if share is not None and share.value > 0:
            found.append(share)
    return found


def proved_modulus(levels: Iterable[Level], found: list[Share]) -> float:
    """The least total share over the variables: 0 where one has none."""
    keys = [(level.name, v.name) for level in levels for v in level.variables]
    totals = dict.fromkeys(keys, 0.0)
    for share in found:
        totals[share.variable] = totals.get(share.variable, 0.0) + share.value
    least = min((totals[key] for key in keys), default=0.0)
    return least * (1 - SHAVE) if math.isfinite(least) else 0.0


def _share(scope: Scope, ranges: Ranges, term: Term) -> Share | None:
    if term.selects:
        return None
    sign, least = term.sign, 1.0
    for factor in term.factors:
        low = lower_bound(ranges, factor)
        if low <= 0:
            sign, low = -sign, -ranges.bounds(factor)[1]
        least *= max(low, 0.0)
    square = _square_of_variable(scope, ranges, term.core, concave=sign < 0)
    if square is None or least <= 0:
        return None
    variable, curvature = square
    return Share((variable.level, variable.name), least * curvature, term)


def _square_of_variable(
    scope: Scope, ranges: Ranges, core: ir.Expr, concave: bool
) -> tuple[ir.VarRef, float] | None:
    """A variable and the least second derivative of the core (or of its negative) in it."""
    product = diagonal_product(scope, ranges, core)
    if product is not None and isinstance(core, ir.Einsum):
        variable, (low, high) = product
        scale = float(np.min(-high)) if concave else float(np.min(low))
        for factor in core.operands:
            if factor not in scope.moving:
                scale *= max(ranges.bounds(factor)[0], 0.0)
        return variable, 2.0 * scale
    form = None if concave else quadratic_form(scope, core)
    if form is not None:
        affine = diagonal(scope, ranges, form.vector)
        if affine is not None:
            scale = max(least_eigenvalue(scope, form.matrix), 0.0)
            for factor in form.factors:
                scale *= max(ranges.bounds(factor)[0], 0.0)
            return affine.variable, 2.0 * scale * affine.steepness**2
    curved = _curvature(core, ranges, concave)
    if curved is None:
        return None
    inner, curvature = curved
    affine = diagonal(scope, ranges, inner)
    return None if affine is None else (affine.variable, curvature * affine.steepness**2)


def _curvature(core: ir.Expr, ranges: Ranges, concave: bool) -> tuple[ir.Expr, float] | None:
    """The operand of a separable core and the least second derivative of ``core`` (``-core`` if
    ``concave``).
    """
    if not isinstance(core, ir.Apply):
        return None
    inner = core.operands[0]
    if core.function == "entr" and concave:
        high = ranges.bounds(inner)[1]
        return inner, 1.0 / high if 0 < high < math.inf else 0.0
    if concave:
        return None
    if core.function == "square":
        if isinstance(inner, ir.Reduce) and inner.function == "norm2":
            return inner.operand, 2.0
        return inner, 2.0
    if (
        core.function == "pow"
        and isinstance(core.operands[1], ir.Const)
        and core.operands[1].value == 2
    ):
        return inner, 2.0
    if core.function == "cosh":
        return inner, 1.0
    if core.function == "exp":
        return inner, math.exp(min(ranges.bounds(inner)[0], 700.0))
    return None
