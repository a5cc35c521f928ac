"""The adjoint system and the assembly of dPhi/dx, shared by the implicit backends.

With the response y(x) on a face with tangent projector P (the identity for a free lower level)::

    P (H + C) P u = P dF/dy,     dPhi/dx = dF/dx - f_xy u

H = f_yy, C the curvature of active balls and of matrices of low rank. At a fixed point ``y = P_Y(y
- s f_y)`` this equals the adjoint of projected unrolling, ``(I - (I - s H) P'^T) w = dF/dy`` with
``u = s P'^T w``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import conjugate_gradients, norm
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.krylov import offered, on_face
from bilevelpy.numerics.lower.newton import FRESH
from bilevelpy.numerics.lower.preconditioner import PairPreconditioner

Vec = torch.Tensor
Operator = Callable[[Vec], Vec]

# Iterations after which a residual of this size is taken for rounding.
FEW, ROUNDING = 25, 1e-9
# What is new in an adjoint since the point before is known to this part of it: near minima
# hypergradients are differences that an old one, good enough by its residual, leaves as they were.
NEW = 0.1
# A tangent part below this fraction of dF/dy is what rounding has left of it.
NOTHING = 1e-15


@dataclass(frozen=True, slots=True)
class Adjoint:
    """The adjoint u, ``f_xy u``, the relative residual of its system, and whether curvature was
    negative.
    """

    u: Vec
    cross: Vec
    residual: float
    products: int
    negative_curvature: bool = False


def dense_adjoint(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    face: Face,
    gF_y: Vec,
    curvature: DenseCurvature,
    *,
    tol: float = 1e-11,
    u0: Vec | None = None,
) -> Adjoint:
    """Conjugate gradients preconditioned by the factor of the lower solve, on the true Hessian at
    (x, y), from an earlier adjoint ``u0``.

    A fresh factor takes one product, which shows the residual; one that is a few steps old some
    more.
    """
    d = face.project(gF_y)
    size = norm(d)
    if size <= NOTHING * norm(gF_y):
        return Adjoint(torch.zeros_like(d), torch.zeros_like(x), 0.0, 0)
    # The lower level was solved another way:
    if curvature.H is None and curvature.lent is None:
        curvature.refresh(oracle, x, y)
    curvature.settle(face)
    H = on_face(oracle.hvp(x, y), face)
    u, rest, goal, products = torch.zeros_like(d), d, tol * size, 0
    if u0 is not None and bool(u0.any()):
        u, products = face.project(u0), 1
        rest = d - H(u)
        goal = max(min(goal, NEW * norm(rest)), 1e-14 * size)
    for limit in (FEW, 2 * oracle.m + 10):
        solution = conjugate_gradients(
            H,
            rest,
            tol=goal,
            max_iter=limit,
            preconditioner=None if curvature.negative else curvature.solve,
        )
        u, products = u + solution.u, products + solution.products
        curvature.rent += max(0, solution.products - FRESH)
        if solution.converged or solution.residual <= ROUNDING * size:
            break
        rest, products = d - H(u), products + 1
    negative = solution.negative_curvature or curvature.negative
    cross = oracle.cross(x, y)(u)
    return Adjoint(u, cross, solution.residual / size, products, negative)


def krylov_adjoint(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    face: Face,
    gF_y: Vec,
    *,
    tol: float,
    change: float = 0.0,
    u0: Vec | None = None,
    preconditioner: Operator | None = None,
    shared: PairPreconditioner | None = None,
    max_iter: int = 1000,
) -> Adjoint:
    """Conjugate gradients, warm started, to the relative residual ``tol``.

    ``change`` asks in addition for this fraction of the residual at the start: the part of u that
    is new since the last point is then known to that accuracy, however small it is. ``shared`` is
    a preconditioner that also learns from this run; where none is given, the oracle is asked for
    one.
    """
    d = face.project(gF_y)
    size = norm(d)
    if size <= NOTHING * norm(gF_y):
        return Adjoint(torch.zeros_like(d), torch.zeros_like(x), 0.0, 0)
    if shared is None and preconditioner is None and face.is_whole:
        preconditioner = offered(oracle, x, y)
    H = on_face(oracle.hvp(x, y), face)
    start, rhs, extra = None, d, 0
    if u0 is not None and bool(u0.any()):
        start = face.project(u0)
        rhs = d - H(start)
        extra = 1
        if not norm(rhs) < size:  # a bad guess (the first steps): start from zero
            start, rhs = None, d
    goal = max(min(tol * size, change * norm(rhs) if change else tol * size), 1e-14 * size)
    solution = conjugate_gradients(
        H,
        rhs,
        tol=goal,
        max_iter=max_iter,
        preconditioner=(shared or preconditioner) if face.is_whole else None,
        observe=shared.observe if shared is not None and face.is_whole else None,
    )
    if shared is not None:
        shared.learn()
    u = solution.u if start is None else start + solution.u
    cross = oracle.cross(x, y)(u)
    return Adjoint(
        u, cross, solution.residual / size, solution.products + extra, solution.negative_curvature
    )
