"""The least value of an expression over the domains of what it reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bilevelpy.analysis.bounds.ranges import Range, Ranges
from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import fold, postorder

# Rounding in interval arithmetic is far below this; proved moduli are rounded down by it.
SHAVE = 1e-12

# Pieces of a domain on which an expression that reads a variable several times is bounded.
PIECES = 4096
# Polynomials of higher degree, or with more nodes, are left to the pieces: exact root isolation
# stays below some milliseconds.
POLYNOMIAL_DEGREE, POLYNOMIAL_NODES = 8, 40


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
