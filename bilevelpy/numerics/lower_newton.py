"""Newton's method with a dense Hessian whose Cholesky factor is kept until it stops paying."""

from __future__ import annotations

import math

import torch

from bilevelpy.lowering.domains import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import Cholesky, PseudoInverse, cholesky, norm, pseudo_inverse
from bilevelpy.numerics.lower_solve import LowerSolution, armijo, descend, finish

Vec = torch.Tensor

# A ridge above this fraction of the largest diagonal entry means curvature that is negative, not
# just lost.
NEGATIVE = 1e-6


# Up to this size a singular matrix gets its spectral inverse, beyond it a small ridge.
SPECTRAL = 1000


def invert(A: Vec) -> Cholesky | PseudoInverse | None:
    """Cholesky factor, or the spectral inverse of a matrix that is singular but not indefinite."""
    factor = cholesky(A)
    if factor is not None and 0.0 < factor.relative_ridge <= NEGATIVE and A.shape[0] <= SPECTRAL:
        return pseudo_inverse(A)
    return factor


class DenseCurvature:
    """f_yy at some earlier point with its factor on a face: exact where f_yy is constant, else a
    good inverse.

    On a face the matrix is ``P (H + C) P + s (I - P)`` with the tangent projector P and the
    curvature C of active balls; coordinate faces use the free submatrix instead.
    """

    __slots__ = ("H", "constant", "face", "factor", "index")

    def __init__(self, *, constant: bool = False) -> None:
        self.constant = constant
        self.H: Vec | None = None
        self.face: Face | None = None
        self.factor: Cholesky | PseudoInverse | None = None
        self.index: Vec | None = None

    def refresh(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Evaluate the Hessian at (x, y)."""
        self.H = oracle.hessian(x, y)
        self.face = None

    def settle(self, face: Face) -> bool:
        """Factorise on ``face`` unless that is done; False where the Hessian is not finite."""
        if self.face is not None and self.face.same_as(face):
            return self.factor is not None
        H = self.H
        assert H is not None
        self.face, self.index = face, None
        if face.is_whole:
            self.factor = invert(H)
        elif face.only_fixes and face.free is not None:
            self.index = face.free.nonzero().squeeze(1)
            self.factor = invert(H[self.index][:, self.index])
        else:
            eye = torch.eye(H.shape[0], dtype=H.dtype)
            inner = face.project(face.project(H + face.bend(eye)).T.contiguous())
            middle = float(H.diagonal().abs().mean()) or 1.0
            self.factor = invert(0.5 * (inner + inner.T) + middle * (eye - face.project(eye)))
        return self.factor is not None

    def solve(self, v: Vec) -> Vec:
        """Inverse of the curvature on the face, applied to the tangent part of ``v``."""
        factor, face = self.factor, self.face
        assert factor is not None
        assert face is not None
        if face.is_whole:
            return factor.solve(v)
        if self.index is not None:
            out = torch.zeros_like(v)
            out[self.index] = factor.solve(v[self.index])
            return out
        return face.project(factor.solve(face.project(v)))

    @property
    def negative(self) -> bool:
        """Whether the factor needed so large a ridge that the Hessian must have negative
        curvature.
        """
        return self.factor is not None and self.factor.relative_ridge > NEGATIVE


def newton(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    curvature: DenseCurvature,
    *,
    tol: float = 1e-10,
    scale: float = 0.0,
    max_iter: int = 100,
) -> LowerSolution:
    """Minimise f(x, .) by (projected) Newton steps until the next step is below ``tol`` relative
    to y.

    A factor from an earlier point serves as long as its steps contract well (chord steps: one
    gradient each); the first such step from a warm start is the predictor ``y + (dy/dx) dx``.
    Otherwise the Hessian is evaluated anew.

    Parameters
    ----------
    tol
        Largest Newton step, relative to ``max(|y|, scale)``, at which y counts as solved.
    scale
        A size that y is known to have, for responses that pass through 0.
    """
    domain = oracle.domain_y
    oracle.counts.lower_solves += 1
    f, g = oracle.value_grad_f(x, y)
    if not math.isfinite(f):
        return finish(domain, y, f, g, 0, "nonfinite")
    fresh = curvature.constant and curvature.H is not None
    if curvature.H is None:
        curvature.refresh(oracle, x, y)
        fresh = True
    # Chord steps are worth taking while they cost less than the Hessian that they save.
    patience = getattr(oracle, "hessian_price", 3.0 + oracle.m / 50)
    if not fresh and patience < 1.0:
        curvature.refresh(oracle, x, y)
        fresh = True
    last = math.inf
    negative = False
    for iteration in range(max_iter):
        if not curvature.settle(domain.face(y, g)):
            return finish(domain, y, f, g, iteration, "nonfinite")
        p = -curvature.solve(g)
        size = norm(p)
        scale = max(scale, norm(y))
        if not fresh and (curvature.negative or _slow(last, size, tol * scale, patience)):
            curvature.refresh(oracle, x, y)
            curvature.settle(domain.face(y, g))
            fresh = True
            p = -curvature.solve(g)
            size = norm(p)
        negative = curvature.negative
        if size <= tol * scale or size == 0.0:
            return finish(domain, y, f, g, iteration, "reached", negative)
        step = armijo(oracle, x, y, f, g, p) if not fresh else descend(oracle, x, y, f, g, p)
        if step is None and not fresh:
            curvature.refresh(oracle, x, y)
            fresh, last = True, math.inf
            continue
        if step is None:
            return finish(domain, y, f, g, iteration, "rounding", negative)
        if fresh and size >= 0.5 * last and size <= 1e-7 * scale:
            return finish(
                domain, step.y, step.f, step.gradient, iteration + 1, "rounding", negative
            )
        y, f, g = step.y, step.f, step.gradient
        # A shortened step says that the factor does not fit here: 0 asks for a new one.
        last = size if step.length == 1.0 else 0.0
        if not math.isfinite(norm(g)) or f < -1e300 or norm(y) > 1e30:
            return finish(domain, y, f, g, iteration + 1, "unbounded", negative)
        # The factor is now one step old; whether it still serves shows in the next step's size.
        fresh = curvature.constant
    return finish(domain, y, f, g, max_iter, "limit", negative)


def _slow(last: float, size: float, goal: float, patience: float) -> bool:
    """Whether chord steps would need more than ``patience`` further iterations to reach
    ``goal``.
    """
    if last == math.inf or size <= goal:
        return False
    if last == 0.0:
        return True
    ratio = size / last
    return ratio >= 0.5 or math.log(goal / size if goal > 0 else 1e-16) / math.log(ratio) > patience
