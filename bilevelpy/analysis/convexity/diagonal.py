"""Expressions of the form ``s * v + b``, entry by entry over all entries of one variable v."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelpy.analysis.bounds.ranges import Range, Ranges, magnitude, times
from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.ir import expr as ir

ONE: Range = (np.asarray(1.0), np.asarray(1.0))


@dataclass(frozen=True, slots=True)
class Diagonal:
    """The variable and the range of the slopes s."""

    variable: ir.VarRef
    slope: Range

    @property
    def steepness(self) -> float:
        """The least |s|."""
        return float(np.min(magnitude(self.slope)[0]))


def diagonal(scope: Scope, ranges: Ranges, node: ir.Expr) -> Diagonal | None:
    """The form of a node, None where it has another one."""
    match node:
        case ir.VarRef():
            return Diagonal(node, ONE) if node in scope.moving else None
        case ir.Apply(function="neg"):
            return _scaled(diagonal(scope, ranges, node.operands[0]), (-ONE[0], -ONE[1]))
        case ir.Apply(function="add"):
            moving = [o for o in node.operands if o in scope.moving]
            return diagonal(scope, ranges, moving[0]) if len(moving) == 1 else None
        case ir.Align():
            return diagonal(scope, ranges, node.operand)
        case ir.Einsum() if not node.contracts:
            moving = [o for o in node.operands if o in scope.moving]
            repeated = any(len(set(s)) < len(s) for s in node.subscripts)
            if len(moving) != 1 or repeated:
                return None
            found = diagonal(scope, ranges, moving[0])
            for factor in node.operands:
                if factor not in scope.moving:
                    found = _scaled(found, ranges.of(factor))
            return found
    return None


def _scaled(found: Diagonal | None, factor: Range) -> Diagonal | None:
    return None if found is None else Diagonal(found.variable, times(found.slope, factor))


def diagonal_product(scope: Scope, ranges: Ranges, node: ir.Expr) -> tuple[ir.VarRef, Range] | None:
    """The variable and the range of ``s1 s2`` where a product is ``(s1 v + b1)(s2 v + b2)``, entry
    by entry.

    Its quadratic part is ``s1 s2 v^2``; the rest is affine in v. Fixed factors are left to the
    caller.
    """
    if not isinstance(node, ir.Einsum):
        return None
    pairs = zip(node.operands, node.subscripts, strict=True)
    moving = [(o, s) for o, s in pairs if o in scope.moving]
    if len(moving) != 2 or moving[0][1] != moving[1][1]:
        return None
    if len(set(moving[0][1])) < len(moving[0][1]):
        return None
    first, second = (diagonal(scope, ranges, o) for o, _ in moving)
    if first is None or second is None or first.variable is not second.variable:
        return None
    if not _aligned(moving[0][0]) or not _aligned(moving[1][0]):
        return None
    return first.variable, times(first.slope, second.slope)


def _aligned(node: ir.Expr) -> bool:
    """Whether an affine expression carries its variable's dimensions in their own order, so that
    two of them match.
    """
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, ir.Align) and top.operand.rank:
            return False
        if isinstance(top, ir.Einsum) and any(s and s != top.output for s in top.subscripts):
            return False
        if isinstance(top, ir.Apply | ir.Einsum):
            stack.extend(top.children)
    return True
