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
from typing import Any

import numpy as np

from bilevelpy.analysis.diagonal import diagonal, diagonal_product
from bilevelpy.analysis.quadratic import least_eigenvalue, quadratic_form
from bilevelpy.analysis.ranges import Range, Ranges
from bilevelpy.analysis.scope import Scope
from bilevelpy.analysis.terms import Term
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Level
from bilevelpy.ir.walk import fold, postorder
from bilevelpy.patience import check

# Rounding in interval arithmetic is far below this; proved moduli are rounded down by it.
SHAVE = 1e-12
# Pieces of a domain on which an expression that reads a variable several times is bounded.
PIECES = 4096
# Polynomials of higher degree are left to the pieces: exact root isolation stays below some
# milliseconds.
POLYNOMIAL_DEGREE = 8
POLYNOMIAL_NODES = 40

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


def lower_bound(ranges: Ranges, node: ir.Expr) -> float:
    """The least value of an expression over the domains of what it reads, rounded down.

    Interval arithmetic is exact where each variable is read once. Where a scalar function of one
    variable reads it several times, polynomials are minimised exactly by sympy and everything else
    on pieces of the domain.
    """
    low = ranges.bounds(node)[0]
    refined = low
    variable = _repeated_variable(node)
    if (
        variable is not None
        and math.isfinite(ranges.bounds(variable)[0])
        and math.isfinite(ranges.bounds(variable)[1])
    ):
        exact = _polynomial_minimum(ranges, node, variable)
        refined = exact if exact is not None else _minimum_on_pieces(ranges, node, variable)
    return max(low, refined)


def _repeated_variable(node: ir.Expr) -> ir.VarRef | None:
    """The only variable of an entry-wise expression that reads it more than once."""
    leaves = [n for n in postorder(node) if isinstance(n, ir.VarRef)]
    simple = all(
        isinstance(n, ir.Const | ir.Fill | ir.VarRef | ir.Apply | ir.ParamRef | ir.Align | ir.Size)
        or (isinstance(n, ir.Einsum) and not n.contracts)
        for n in postorder(node)
    )
    # A tensor that is permuted or read at two places is not the same entry twice.
    if (
        len(leaves) != 1
        or not simple
        or any(isinstance(n, ir.Align) and n.operand.rank for n in postorder(node))
    ):
        return None
    reads = fold(node, lambda n, inner: float(n is leaves[0]) + sum(inner))
    return leaves[0] if reads > 1 and _same_entries(node) else None


def _same_entries(node: ir.Expr) -> bool:
    """Whether products stand position by position."""
    for n in postorder(node):
        if isinstance(n, ir.Einsum) and any(s and s != n.output for s in n.subscripts):
            return False
    return True


def _minimum_on_pieces(ranges: Ranges, node: ir.Expr, variable: ir.VarRef) -> float:
    low, high = ranges.bounds(variable)
    edges = np.linspace(low, high, PIECES + 1)
    piece: Range = (edges[:-1], edges[1:])
    split = Ranges(ranges.bound, ranges.use_data, {variable: piece})
    return split.bounds(node)[0]


def _polynomial_minimum(ranges: Ranges, node: ir.Expr, variable: ir.VarRef) -> float | None:
    """The exact minimum over the variable's interval; None where the node is no small polynomial
    with known numbers.
    """
    if (
        any(isinstance(n, ir.ParamRef) for n in postorder(node))
        or sum(1 for _ in postorder(node)) > POLYNOMIAL_NODES
    ):
        return None
    if fold(node, _degree) > POLYNOMIAL_DEGREE:
        return None
    import sympy

    symbol = sympy.Symbol("v", real=True)

    def visit(n: ir.Expr, inner: tuple[Any, ...]) -> Any:
        if any(i is None for i in inner):
            return None
        match n:
            case ir.VarRef():
                return symbol
            case ir.Const() | ir.Fill():
                return sympy.Rational(n.value)
            case ir.Size():
                return sympy.Integer(ranges.bound.data.sizes[n.axis])
            case ir.Align():
                return inner[0]
            case ir.Apply(function="add"):
                return sympy.Add(*inner)
            case ir.Apply(function="neg"):
                return -inner[0]
            case ir.Apply(function="square"):
                return inner[0] ** 2
            case ir.Apply(function="recip") if inner[0].is_number and inner[0] != 0:
                return 1 / inner[0]
            case ir.Apply(function="pow") if (
                inner[1].is_Integer and 0 <= inner[1] <= POLYNOMIAL_DEGREE
            ):
                return inner[0] ** inner[1]
            case ir.Einsum():
                return sympy.Mul(*inner)
            case _:
                return None

    formula = fold(node, visit)
    if formula is None:
        return None
    polynomial = sympy.Poly(formula, symbol)
    low, high = (sympy.Rational(b) for b in ranges.bounds(variable))
    ends = [low, high]
    stationary = (
        [r for r in sympy.real_roots(polynomial.diff(symbol)) if low < r < high]
        if polynomial.degree() > 1
        else []
    )
    values = [
        float(sympy.N(polynomial.as_expr().subs(symbol, p), 30)) for p in (*ends, *stationary)
    ]
    least = min(values)
    return least - SHAVE * max(1.0, abs(least))


def _degree(node: ir.Expr, inner: tuple[float, ...]) -> float:
    """The degree of a polynomial expression, infinite for every other function; kept small before
    sympy expands it.
    """
    match node:
        case ir.VarRef():
            return 1
        case ir.Apply(function="square"):
            return 2 * inner[0]
        case ir.Apply(function="pow", operands=(_, ir.Const(value=value))):
            return value * inner[0] if inner[0] else 0
        case ir.Einsum():
            return sum(inner)
        case ir.Apply(function="add" | "neg") | ir.Align():
            return max(inner)
        case _:
            return math.inf if any(inner) else 0
