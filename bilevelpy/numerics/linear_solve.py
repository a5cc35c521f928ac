"""Solvers of ``H u = d`` for a symmetric H known by its products, or dense."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.blas import dtrsv
from scipy.linalg.lapack import dpotrf, dpotrs

Vec = torch.Tensor
Operator = Callable[[Vec], Vec]


# Sums of squares outside these bounds have lost entries to overflow or underflow.
HUGE, MINUTE = 1e300, 1e-280


def unit(size: int, place: int) -> Vec:
    """A unit vector: those of many rows at once would be a matrix that fills the memory."""
    vector = torch.zeros(size, dtype=torch.float64)
    vector[place] = 1.0
    return vector


def norm(v: Vec) -> float:
    """Euclidean norm as a float."""
    square: float = torch.dot(v, v).item()
    if MINUTE < square < HUGE:
        return math.sqrt(square)
    return float(torch.linalg.vector_norm(v))


def dot(a: Vec, b: Vec) -> float:
    """Inner product as a float."""
    value: float = torch.dot(a, b).item()
    return value


# Curvatures below this fraction of the largest one met are rounding: H is singular along them.
SINGULAR = 1e-14


@dataclass(frozen=True, slots=True)
class LinearSolution:
    """``u`` with its residual norm ``||H u - d||``, the products used, and whether ``p'Hp <= 0``
    was met.
    """

    u: Vec
    residual: float
    products: int
    converged: bool
    negative_curvature: bool = False


def conjugate_gradients(
    H: Operator,
    d: Vec,
    *,
    tol: float,
    max_iter: int,
    u0: Vec | None = None,
    preconditioner: Operator | None = None,
    observe: Callable[[Vec, Vec], None] | None = None,
) -> LinearSolution:
    """Preconditioned conjugate gradients until ``||H u - d|| <= tol`` (absolute).

    The iterate and the residual are updated first and tested afterwards, so the returned ``u`` is
    the newest one (an exit before the update returns 0 for ``H = I``). A direction with ``p'Hp <=
    0`` ends the solve at the current iterate. Cost: one product per iteration, one more where
    ``u0`` is given.

    Parameters
    ----------
    H
        ``v -> H v``.
    d
        Right-hand side, shape (m,).
    tol, max_iter
        Absolute residual to reach and the largest number of iterations.
    u0
        Start; zero where None.
    preconditioner
        ``r -> M r`` with M positive definite, close to the inverse of H.
    observe
        Called with every direction p and its product H p.
    """
    products = 0
    if u0 is None:
        u, r = torch.zeros_like(d), d
    else:
        u, r = u0, d - H(u0)
        products = 1
    residual = norm(r)
    if residual <= tol:
        return LinearSolution(u, residual, products, True)
    z = r if preconditioner is None else preconditioner(r)
    p, rz, top = z, dot(r, z), 0.0
    for _ in range(max_iter):
        Hp = H(p)
        products += 1
        pHp = dot(p, Hp)
        bend = pHp / max(dot(p, p), 1e-300)
        top = max(top, bend)
        if not bend > SINGULAR * top:
            negative = bend < -SINGULAR * top
            return LinearSolution(u, residual, products, False, negative_curvature=negative)
        if observe is not None:
            observe(p, Hp)
        a = rz / pHp
        u = u + a * p
        r = r - a * Hp
        residual = norm(r)
        if residual <= tol:
            return LinearSolution(u, residual, products, True)
        z = r if preconditioner is None else preconditioner(r)
        rz_next = dot(r, z)
        if not rz_next > 0:  # rounding, or a preconditioner that is not positive definite
            break
        p = z + (rz_next / rz) * p
        rz = rz_next
    return LinearSolution(u, residual, products, False)


def fixed_point(
    H: Operator, d: Vec, *, step: float, iterations: int, tol: float = 0.0
) -> LinearSolution:
    """``v <- (I - s H) v + d`` from 0, ``u = s v``: the partial sums of the Neumann series; one
    product each.
    """
    v = torch.zeros_like(d)
    products = 0
    residual = norm(d)
    for _ in range(iterations):
        if residual <= tol:
            break
        r = d - H(step * v) if products else d
        v = v + r
        products += 1
        residual = norm(r)
    return LinearSolution(step * v, residual, products, residual <= tol)


def neumann(H: Operator, d: Vec, *, step: float, iterations: int) -> LinearSolution:
    """``u = s sum_{q=0}^{Q} (I - s H)^q d``; Q products, biased by ``(I - s H)^{Q+1}``."""
    term, total = d, d
    for _ in range(iterations):
        term = term - step * H(term)
        total = total + term
    # d - H u equals the next term of the series; its size is bounded by the last one that was
    # formed.
    return LinearSolution(step * total, norm(term), iterations, False)


def richardson(
    H: Operator, d: Vec, *, u0: Vec, step: float, iterations: int, tol: float = 0.0
) -> LinearSolution:
    """``u <- u - s (H u - d)`` from ``u0`` (the inner loop of AmIGO-GD); one product per
    iteration.
    """
    u, residual, products = u0, float("inf"), 0
    for _ in range(iterations):
        r = H(u) - d
        products += 1
        residual = norm(r)
        if residual <= tol:
            return LinearSolution(u, residual, products, True)
        u = u - step * r
    return LinearSolution(u, residual, products, False)


def normal_equations(H: Operator, d: Vec, *, u0: Vec, tol: float, max_iter: int) -> LinearSolution:
    """Conjugate gradients on ``H (H u - d) = 0``: least squares where H is singular or indefinite.

    Two products per iteration; stops on ``||H r|| <= tol ||H d||``-like progress of the normal
    residual.
    """
    u, r = u0, d - H(u0)
    s = H(r)
    products, p, ss = 2, s, dot(s, s)
    goal = tol * max(norm(s), 1e-300)
    for _ in range(max_iter):
        if norm(r) <= tol or ss <= goal * goal * 1e-4:
            break
        q = H(p)
        qq = dot(q, q)
        if not qq > 0:
            break
        a = ss / qq
        u, r = u + a * p, r - a * q
        s = H(r)
        products += 2
        ss_next = dot(s, s)
        p = s + (ss_next / ss) * p
        ss = ss_next
    residual = norm(r)
    return LinearSolution(u, residual, products, residual <= tol)


# From this size on two triangular solves of BLAS take a third of LAPACK's time for one vector.
LONG = 100


def by_factor(L: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(L L')^-1 b`` for a vector or the columns of a matrix."""
    if b.ndim == 1 and len(b) >= LONG:
        half = dtrsv(L, b, lower=1)
        found: np.ndarray = dtrsv(L, half, lower=1, trans=1, overwrite_x=1)
        return found
    found, _ = dpotrs(L, b, lower=1)
    return found


@dataclass(frozen=True, slots=True)
class Cholesky:
    """``L L' = A + ridge D`` with the diagonal D of A, or its largest entry; the ridge is 0 unless
    A is singular or indefinite to working accuracy.

    ``L`` is LAPACK's factor as it stores it; calls of LAPACK cost a tenth of torch's where A is
    small.
    """

    L: np.ndarray
    relative_ridge: float

    def solve(self, v: Vec) -> Vec:
        """``(A + ridge D)^{-1} v``."""
        if v.numel() == 0:
            return v.clone()
        return torch.from_numpy(by_factor(self.L, v.numpy()))


EPS = float(np.finfo(float).eps)
# Ridges tried in turn, in parts of every diagonal entry; those that rounding explains, and, beyond
# them, parts of the largest entry. Beyond the last one A is called indefinite.
RIDGES = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 1e2)
ROUNDED = tuple(relative for relative in RIDGES if relative <= 1e-6)
# Diagonal entries below this part of the largest are 0: their inverses would overflow.
NOTHING = 1e-200


def cholesky(A: Vec) -> Cholesky | None:
    """Factorise a symmetric A, adding the smallest ridge that works; None where A holds non-finite
    entries.

    Every row is measured by its own diagonal entry first, as a factor is the same in all units of
    the variables: penalties and features of very different sizes are no reason for a ridge.
    """
    # LAPACK reads columns: the transpose of a symmetric matrix is the matrix itself.
    matrix = A.numpy().T
    if matrix.size == 0:
        return Cholesky(matrix, 0.0)
    diagonal = np.abs(matrix.diagonal())
    top = float(diagonal.max())
    if not top < float("inf"):
        return None
    top = top or float(np.abs(matrix).max()) or 1.0
    own = np.where(diagonal > NOTHING * top, diagonal, top)
    lost = 4.0 * EPS * math.sqrt(len(own))
    for scale, ridges in ((own, ROUNDED), (np.full(len(own), top), RIDGES)):
        for relative in ridges:
            B = matrix if relative == 0.0 else matrix + np.diag(relative * scale)
            L, info = dpotrf(B, lower=1, clean=0)
            # A pivot at rounding level has no correct digit: treat it as a failure.
            if info == 0 and bool((L.diagonal() ** 2 > lost * scale).all()):
                return Cholesky(L, relative)
    return None


@dataclass(frozen=True, slots=True)
class PseudoInverse:
    """Spectral inverse on the range of a singular matrix: answers stay in the range instead of
    growing without bound.
    """

    values: Vec
    vectors: Vec
    relative_ridge: float = 0.0

    def solve(self, v: Vec) -> Vec:
        """``A^+ v``."""
        return self.vectors @ (self.values * (self.vectors.T @ v))


def pseudo_inverse(A: Vec) -> PseudoInverse:
    """Invert the eigenvalues above 1e-13 of the largest, drop the rest; in units that make all
    diagonal entries 1, for what is small in others is no reason to drop it.
    """
    own = A.diagonal().abs()
    top = own.max()
    root = torch.where(own > NOTHING * top, own, top.clamp_min(NOTHING)).sqrt()
    values, vectors = torch.linalg.eigh(A / root / root[:, None])
    keep = values > 1e-13 * values.abs().max()
    return PseudoInverse(
        torch.where(keep, 1.0 / values.where(keep, torch.ones_like(values)), 0.0),
        vectors / root[:, None],
    )
