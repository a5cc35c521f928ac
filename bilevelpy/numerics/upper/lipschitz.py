"""Lipschitz constants by differences of gradients, where no step length is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import krylov_adjoint
from bilevelpy.numerics.lower.krylov import newton_cg

Vec = torch.Tensor

TIGHT = 1e-7
STEPS = 4
# Power iterations approach L from below.
MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Accurate:
    """Response, adjoint and hypergradient at some x."""

    y: Vec
    u: Vec
    h: Vec


def accurate(
    oracle: Oracle, x: Vec, y: Vec, u: Vec | None = None, *, tol: float = TIGHT
) -> Accurate:
    """Solve lower level and adjoint to the relative accuracy ``tol``."""
    f, g = oracle.value_grad_f(x, y)
    first = oracle.domain_y.projected_gradient_norm(y, g)
    lower = newton_cg(oracle, x, y, tol=tol * first, start=(f, g))
    gF_x, gF_y = oracle.grad_F(x, lower.y)
    adjoint = krylov_adjoint(oracle, x, lower.y, lower.face, gF_y, tol=tol, u0=u)
    return Accurate(lower.y, adjoint.u, gF_x - adjoint.cross)


def power_iteration(
    gradient: Callable[[Vec], Vec], z: Vec, rng: torch.Generator, *, steps: int = STEPS
) -> float:
    """Largest curvature (in absolute value) at z by differences of gradients, ``steps + 1``
    gradients in all.
    """
    base = gradient(z)
    v = torch.randn(z.numel(), generator=rng, dtype=torch.float64)
    radius = 1e-4 * max(norm(z), 1.0)
    top = 0.0
    for _ in range(steps):
        size = norm(v)
        if not size > 0.0 or not math.isfinite(size):
            break
        v = v / size
        v = (gradient(z + radius * v) - base) / radius
        top = max(top, norm(v)) if math.isfinite(norm(v)) else top
    return MARGIN * top


def upper_lipschitz(oracle: Oracle, x: Vec, start: Accurate, rng: torch.Generator) -> float:
    """The curvature of ``Phi(x) = F(x, y(x))`` at x; each of the hypergradients takes a lower and
    an adjoint solve.
    """

    def gradient(z: Vec) -> Vec:
        return accurate(oracle, z, start.y, start.u).h

    return power_iteration(gradient, x, rng)
