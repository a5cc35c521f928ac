"""Quadratic forms that the text or the data shows to be positive semidefinite: what disciplined
rules cannot see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.analysis.probing import eigenvalues
from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import DomainKind
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.scope import Scope


def is_psd(scope: Scope, signs: Signs, matrix: ir.Expr) -> bool:
    """Whether a fixed matrix (last two dimensions) is positive semidefinite by its form."""
    match matrix:
        case ir.ParamRef():
            return scope.bound.program.params[matrix.name].domain.kind is DomainKind.PSD
        case ir.VarRef():
            level = scope.bound.program.level(matrix.level)
            return any(
                v.name == matrix.name and v.domain.kind is DomainKind.PSD for v in level.variables
            )
        case ir.Eye():
            return True
        case ir.Diag():
            return signs.of(matrix.operand) in ("+", "0")
        case ir.Apply(function="add"):
            return all(is_psd(scope, signs, o) for o in matrix.operands)
        case ir.Align(source=(1, 0)):
            return is_psd(scope, signs, matrix.operand)
        case ir.Einsum() if matrix.rank == 2:
            return _is_gram(matrix) or _is_scaled(scope, signs, matrix)
    return False


def _is_gram(matrix: ir.Einsum) -> bool:
    """``A' A`` or ``A A'``: one operand twice, contracted with itself."""
    if len(matrix.operands) != 2 or matrix.operands[0] is not matrix.operands[1]:
        return False
    first, second = matrix.subscripts
    swap = dict(zip(matrix.output, reversed(matrix.output), strict=True))
    return tuple(swap.get(s, s) for s in first) == second


def _is_scaled(scope: Scope, signs: Signs, matrix: ir.Einsum) -> bool:
    """Nonnegative scalars times one semidefinite matrix."""
    tensors = [o for o in matrix.operands if o.axes]
    scalars = tuple(o for o in matrix.operands if not o.axes)
    if matrix.contracts or len(tensors) != 1 or tensors[0].axes != matrix.axes:
        return False
    return signs.product(scalars) in ("+", "0") and is_psd(scope, signs, tensors[0])


@dataclass(frozen=True, slots=True)
class QuadraticForm:
    """``c a' M a``, entry by entry over batch axes: ``a`` moves, ``M`` and the factors c do not."""

    vector: ir.Expr
    matrix: ir.Expr
    factors: tuple[ir.Expr, ...]


def quadratic_form(scope: Scope, node: ir.Expr) -> QuadraticForm | None:
    """The form of a product of two moving factors, None where it has another one.

    A product over pairs holds ``a``, ``M`` and ``a``; a matrix product holds ``a`` and ``M a``.
    """
    if not isinstance(node, ir.Einsum):
        return None
    moving = [
        (o, s) for o, s in zip(node.operands, node.subscripts, strict=True) if o in scope.moving
    ]
    if len(moving) != 2:
        return None
    if moving[0][0] is moving[1][0]:
        return _over_pairs(scope, node, moving[0][0], moving[0][1], moving[1][1])
    fixed = tuple(o for o in node.operands if o not in scope.moving)
    for (a, labels), (image, outer) in (moving, moving[::-1]):
        matrix = _image_of(scope, image, outer, a, labels)
        if matrix is not None:
            return QuadraticForm(a, matrix, fixed)
    return None


def _over_pairs(
    scope: Scope, node: ir.Einsum, a: ir.Expr, left: tuple[int, ...], right: tuple[int, ...]
) -> QuadraticForm | None:
    """``sum_pq a_p M_pq a_q``: the two places of ``a`` differ in one index each, which M has."""
    apart = [(p, q) for p, q in zip(left, right, strict=True) if p != q]
    if len(apart) != 1 or any(len(set(s)) < len(s) for s in (left, right)):
        return None
    pair = set(apart[0])
    beside = [
        (o, s) for o, s in zip(node.operands, node.subscripts, strict=True) if o not in scope.moving
    ]
    matrices = [o for o, s in beside if len(s) == 2 and set(s) == pair]
    others = tuple(o for o, s in beside if not pair & set(s))
    if len(matrices) != 1 or len(others) != len(beside) - 1 or pair & set(node.output):
        return None
    return QuadraticForm(a, matrices[0], others)


def is_psd_form(scope: Scope, signs: Signs, node: ir.Einsum) -> bool:
    """Whether ``node`` is a quadratic form of a semidefinite matrix with factors >= 0.

    That ``a`` is affine is the caller's check.
    """
    form = quadratic_form(scope, node)
    return (
        form is not None
        and signs.product(form.factors) in ("+", "0")
        and (is_psd(scope, signs, form.matrix) or least_eigenvalue(scope, form.matrix) >= 0)
    )


def least_eigenvalue(scope: Scope, matrix: ir.Expr) -> float:
    """The least eigenvalue of the symmetric part of a matrix of data, rounded down.

    Zero where it lies within rounding of zero, ``-inf`` where the matrix reads variables or where
    nothing is known at a reasonable cost.
    """
    if matrix not in scope.eigenvalues:
        scope.eigenvalues[matrix] = _least_eigenvalue(scope, matrix)
    return scope.eigenvalues[matrix]


def _least_eigenvalue(scope: Scope, matrix: ir.Expr) -> float:
    names = [n.name for n in postorder(matrix) if isinstance(n, ir.ParamRef)]
    reads = any(isinstance(n, ir.VarRef | ir.DualRef | ir.ExternCall) for n in postorder(matrix))
    known = all(name in scope.bound.data.arrays for name in names)
    contracts = any(isinstance(n, ir.Einsum) and n.contracts for n in postorder(matrix))
    large = max(scope.size(axis) for axis in matrix.axes) > eigenvalues.WHOLE
    if reads or not known or matrix.rank != 2 or (large and contracts):
        return -math.inf
    run = Interpreter(scope.bound.data)
    run.run([matrix])
    value = run.known(matrix)
    if not is_sparse(value):
        shape = tuple(scope.size(axis) for axis in matrix.axes)
        value = np.broadcast_to(np.asarray(value, dtype=float), shape)
    return eigenvalues.least_eigenvalue(value)


def _image_of(
    scope: Scope, image: ir.Expr, outer: tuple[int, ...], a: ir.Expr, labels: tuple[int, ...]
) -> ir.Expr | None:
    """The matrix M where ``image`` is ``M a`` and stands beside ``a`` index by index."""
    if (
        not isinstance(image, ir.Einsum)
        or len(image.operands) != 2
        or len(set(labels)) < len(labels)
    ):
        return None
    by_moving = sorted(
        zip(image.operands, image.subscripts, strict=True), key=lambda p: p[0] in scope.moving
    )
    (matrix, over), (vector, along) = by_moving
    if vector is not a or matrix in scope.moving or matrix.rank != 2 or over[0] == over[1]:
        return None
    summed = [s for s in over if s not in image.output]
    if len(summed) != 1 or summed[0] not in along:
        return None
    kept = over[0] if over[1] == summed[0] else over[1]
    # Each dimension of the image comes from a dimension of a: the matrix's free index replaces the
    # summed one.
    origin = tuple(along.index(summed[0] if s == kept else s) for s in image.output)
    return matrix if tuple(labels[d] for d in origin) == outer else None
