"""Lower levels over semidefinite matrices with affine rows, and their adjoint.

Clarabel's interior-point method finds y with the multipliers l of the rows J. Its limit is read off
``P_K(y - G)`` with ``G = grad f + J'l``, the gradient of the Lagrangian: at a solution the positive
part of ``Y - G`` is Y and the negative one is minus G. Newton's method on the face of that point
gives the last digits, and its matrix is that of the adjoint system::

    [ P (H + C) P   P J' ] [u]   [ P dF/dy ]
    [ J P           0    ] [w] = [    0    ]      dPhi/dx = dF/dx - (f + l'c)_xy u - c_x' w

with the tangent projector P and the curvature C of the face, and the rows that are tight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.lowering.domains.faces import Face
from bilevelpy.numerics.cones.newton import response_pair
from bilevelpy.numerics.cones.semidefinite import row_matrix
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Accuracy, Point
from bilevelpy.numerics.lower.solve import LowerSolution

Vec = torch.Tensor

# Newton steps at most.
STEPS = 12
# A Newton step below this fraction of y is rounding; a residual below this fraction of the
# gradient's parts is a solution.
FINEST, SOLVED = 1e-13, 1e-8
# Rows with a slack above this (relative to y) that the rest of the solution breaks are infeasible.
BROKEN = 1e-7
# Rows taken for slack that are violated by more than this (relative to y) are tight after all; how
# often that is looked at.
MISSED, PASSES = 1e-10, 3


@dataclass(frozen=True, slots=True)
class ConicSolution:
    """y with the multipliers of all rows, which of them are tight, and the Jacobian of these."""

    lower: LowerSolution
    multipliers: Vec
    active: Vec
    jacobian: Vec


def solve_conic(oracle: Any, x: Vec, start: Vec) -> ConicSolution | None:
    """The response at x; ``start`` is where derivatives are taken first. None: no solution."""
    oracle.counts.lower_solves += 1
    raw = response_pair(oracle, x, start)
    if raw is None:
        return None
    y, multipliers = raw.y, raw.multipliers
    values, J = row_matrix(oracle, x, y)
    active = torch.zeros(0, dtype=torch.bool)
    if J.shape[0]:
        squares = torch.linalg.vector_norm(J, dim=1).square().clamp(min=1e-300)
        active = oracle.g.equality | (multipliers > -values * raw.unit / squares)
    y = oracle.domain_y.project(y - oracle.grad_f(x, y) - J[active].T @ multipliers[active])
    prices = multipliers[active]
    for _ in range(PASSES):
        y, prices = _newton(oracle, x, y, prices, active, J[active])
        # A row with next to no price is told from a slack one by what it is without it.
        missed = ~active & (oracle.g.values(x, y) > MISSED * max(norm(y), 1e-300))
        if not active.numel() or not bool(missed.any()):
            break
        known = torch.zeros(active.numel(), dtype=y.dtype)
        known[active] = prices
        active = active | missed
        prices = known[active]
    return _finished(oracle, x, y, prices, active, J[active])


def _newton(oracle: Any, x: Vec, y: Vec, prices: Vec, active: Vec, J: Vec) -> tuple[Vec, Vec]:
    """Newton's method on the face, with the rows J as equations: y and their multipliers."""
    H = oracle.hessian(x, y)
    last = math.inf
    for _ in range(STEPS):
        g = oracle.grad_f(x, y)
        face = oracle.domain_y.face(y, g + J.T @ prices)
        off = oracle.g.values(x, y)[active] if J.shape[0] else y.new_zeros(0)
        z = _saddle(H, face, J, torch.cat([-face.project(g), -off])[:, None])[:, 0]
        v, new = face.project(z[: y.numel()]), z[y.numel() :]
        size = norm(v)
        y, prices = oracle.domain_y.project(y + v), new
        if size <= FINEST * max(norm(y), 1e-300) or size >= last:
            break
        last = size
    return y, prices


def _finished(
    oracle: Any, x: Vec, y: Vec, prices: Vec, active: Vec, J: Vec
) -> ConicSolution | None:
    f, g = oracle.value_grad_f(x, y)
    G = g + J.T @ prices
    face = oracle.domain_y.face(y, G)
    residual = oracle.domain_y.projected_gradient_norm(y, G)
    # Inside the cone the gradient vanishes: its parts do not.
    size = norm(g) + norm(J.T @ prices) + norm(oracle.hvp(x, y)(y))
    multipliers = torch.zeros(active.numel(), dtype=y.dtype)
    multipliers[active] = prices
    if active.numel():
        lengths = torch.linalg.vector_norm(row_matrix(oracle, x, y)[1], dim=1).clamp(min=1e-300)
        broken = oracle.g.violation(x, y) / lengths
        wrong = (multipliers < -SOLVED * size) & ~oracle.g.equality
        if float(broken.max()) > BROKEN * max(norm(y), 1.0) or bool(wrong.any()):
            return None
    ended = "reached" if residual <= SOLVED * max(size, 1e-300) else "limit"
    if not (math.isfinite(f) and math.isfinite(residual)):
        return None
    return ConicSolution(LowerSolution(y, f, G, residual, face, 1, ended), multipliers, active, J)


def conic_adjoint(oracle: Any, x: Vec, found: ConicSolution, gF_y: Vec) -> Adjoint:
    """The adjoint u; ``cross`` holds all that dF/dx is reduced by."""
    d = found.lower.face.project(gF_y)
    u, w, cross = (part[0] for part in _adjoints(oracle, x, found, d[None]))
    rest = _applied(oracle, x, found, u, w) - d
    return Adjoint(u, cross, norm(rest) / max(norm(d), 1e-300), 1)


def along_response(oracle: Any, x: Vec, found: ConicSolution, slopes: Vec) -> Vec:
    """``c_y(x) dy/dx`` (k, n) of k functions with derivatives ``slopes`` (k, m) in y: one factor
    for all of them.
    """
    return -_adjoints(oracle, x, found, found.lower.face.project(slopes))[2]


def _applied(oracle: Any, x: Vec, found: ConicSolution, u: Vec, w: Vec) -> Vec:
    """The first rows of the adjoint system at (u, w)."""
    lower = found.lower
    bent = oracle.hvp(x, lower.y)(u) + lower.face.bend(u) + found.jacobian.T @ w
    applied: Vec = lower.face.project(bent)
    return applied


def _adjoints(oracle: Any, x: Vec, found: ConicSolution, d: Vec) -> tuple[Vec, Vec, Vec]:
    """The solutions u, w of the system for every row of ``d``, and what dF/dx is reduced by."""
    y, face, J = found.lower.y, found.lower.face, found.jacobian
    rhs = torch.cat([d.T, d.new_zeros(J.shape[0], d.shape[0])])
    z = _saddle(oracle.hessian(x, y), face, J, rhs).T
    u, w = face.project(z[:, : y.numel()].contiguous()), z[:, y.numel() :]
    product = oracle.cross(x, y)
    cross = torch.stack([product(one) for one in u])
    if J.shape[0]:
        back = oracle.g.vjp(x, y)
        weights = torch.zeros(d.shape[0], found.active.numel(), dtype=y.dtype)
        weights[:, found.active] = w
        cross = cross + torch.stack(
            [back(a)[0] + _mixed(oracle, x, found, b) for a, b in zip(weights, u, strict=True)]
        )
    return u, w, cross


def _mixed(oracle: Any, x: Vec, found: ConicSolution, u: Vec) -> Vec:
    """``(l'c)_xy u``: a difference, exact for rows that are affine in y."""
    size = norm(u)
    if size == 0.0:
        return torch.zeros_like(x)
    y, e = found.lower.y, (1.0 + norm(found.lower.y)) / size
    up, down = (oracle.g.vjp(x, y + s * e * u)(found.multipliers)[0] for s in (0.5, -0.5))
    mixed: Vec = (up - down) / e
    return mixed


def _saddle(H: Vec, face: Face, J: Vec, rhs: Vec) -> Vec:
    """The solutions of the system on the face for the columns of ``rhs``, of least norm where it is
    singular.
    """
    m, k = H.shape[0], J.shape[0]
    eye = torch.eye(m, dtype=H.dtype)
    inner = face.project(face.project(H + face.bend(eye)).T.contiguous())
    middle = float(H.diagonal().abs().mean()) or 1.0
    top = 0.5 * (inner + inner.T) + middle * (eye - face.project(eye))
    A = face.project(J) if k else J
    M = torch.cat([torch.cat([top, A.T], 1), torch.cat([A, J.new_zeros(k, k)], 1)])
    solved: Vec = torch.linalg.lstsq(M, rhs, driver="gelsd").solution
    return solved


@dataclass(slots=True)
class ConicMethod:
    """The method of a :class:`~bilevelpy.numerics.lower.response.Response`; the last solution is
    kept.
    """

    last: ConicSolution | None = None

    def solve_lower(
        self, oracle: Any, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The response to rounding, whatever is asked for, or one that says that there is none."""
        self.last = solve_conic(oracle, x, y)
        if self.last is None:
            none, face = torch.full_like(y, math.nan), Face(y.numel(), None)
            return LowerSolution(y, math.nan, none, math.nan, face, 0, "nonfinite"), math.nan
        found = self.last.lower
        return found, norm(found.gradient) if math.isfinite(found.f) else math.nan

    def solve_adjoint(
        self, oracle: Any, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """By the factor of the face at the point's response."""
        last = self.last
        if last is None or last.lower is not point.lower:
            last = solve_conic(oracle, point.x, point.y)
        if last is None:
            raise ArithmeticError("the response at this x was found before, and is not found again")
        return conic_adjoint(oracle, point.x, last, point.gF_y)


@dataclass(frozen=True, slots=True)
class ConicAnswer:
    """F at the response to an x, and its derivative."""

    F: float
    gradient: Vec


@dataclass(frozen=True, slots=True)
class ConicResolver:
    """Responses at points that have nothing to do with each other."""

    oracle: Any

    def solved(self, x: Vec, y: Vec) -> LowerSolution | None:
        """The response to x; ``y`` is where derivatives are taken first."""
        found = solve_conic(self.oracle, x, y)
        return None if found is None else found.lower

    def answer(self, x: Vec, y: Vec) -> ConicAnswer | None:
        """F there, and dF/dx along the response."""
        found = solve_conic(self.oracle, x, y)
        if found is None:
            return None
        F, F_x, F_y = self.oracle.value_grad_F(x, found.lower.y)
        return ConicAnswer(F, F_x - conic_adjoint(self.oracle, x, found, F_y).cross)
