"""Quadratic forms that the text shows to be positive semidefinite: what disciplined rules cannot
see.
"""

from __future__ import annotations

from bilevelpy.analysis.scope import Scope
from bilevelpy.analysis.signs import Signs
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import DomainKind


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


def is_psd_form(scope: Scope, signs: Signs, node: ir.Einsum) -> bool:
    """Whether ``node`` is ``c a' M a`` (entry by entry over batch axes), a affine by the caller's
    check, M semidefinite.

    The canonical form contracts pairs: one operand is ``a``, the other ``M a`` (or ``a M``).

    """
    moving = [
        (o, s) for o, s in zip(node.operands, node.subscripts, strict=True) if o in scope.moving
    ]
    fixed = tuple(o for o in node.operands if o not in scope.moving)
    if len(moving) != 2 or signs.product(fixed) not in ("+", "0"):
        return False
    for (a, labels), (image, outer) in (moving, moving[::-1]):
        if _is_image(scope, signs, image, outer, a, labels):
            return True
    return False


def _is_image(
    scope: Scope,
    signs: Signs,
    image: ir.Expr,
    outer: tuple[int, ...],
    a: ir.Expr,
    labels: tuple[int, ...],
) -> bool:
    """Whether ``image`` is ``M a`` with M semidefinite, and stands beside ``a`` index by index."""
    if (
        not isinstance(image, ir.Einsum)
        or len(image.operands) != 2
        or len(set(labels)) < len(labels)
    ):
        return False
    by_moving = sorted(
        zip(image.operands, image.subscripts, strict=True), key=lambda p: p[0] in scope.moving
    )
    (matrix, over), (vector, along) = by_moving
    if vector is not a or matrix in scope.moving or matrix.rank != 2 or over[0] == over[1]:
        return False
    summed = [s for s in over if s not in image.output]
    if len(summed) != 1 or summed[0] not in along:
        return False
    kept = over[0] if over[1] == summed[0] else over[1]
    # Each dimension of the image comes from a dimension of a: the matrix's free index replaces the
    # summed one.
    origin = tuple(along.index(summed[0] if s == kept else s) for s in image.output)
    return tuple(labels[d] for d in origin) == outer and is_psd(scope, signs, matrix)
