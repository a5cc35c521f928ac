"""Step lengths and metrics for stochastic methods, from a small part of the data.

A *pilot* is the same bilevel problem on a random part of the rows. It is solved to good accuracy
where the run stands, and its curvatures there serve the run: those of f for y and u, those of
``Phi(x) = F(x, y(x))`` for x. Both are fixed linear changes of variables, so that whatever is known
of a method in the Euclidean metric holds in these; the condition numbers become those of the
difference between the part and the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import Cholesky, cholesky, norm
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.lipschitz import Accurate, accurate, power_iteration

Vec = torch.Tensor
Operator = Callable[[Vec], Vec]

# Largest lower level whose pilot Hessian is factorised, largest upper level whose curvature is
# found column by column.
DENSE_Y, DENSE_X = 1000, 60
# Curvatures of Phi below this fraction of the largest are raised to it: steps along flat and
# downward directions stay finite.
FLOOR = 1e-2
# Relative step of differences of hypergradients.
DIFFERENCE = 1e-4


@dataclass(slots=True)
class Metric:
    """Maps of gradients to steps, and the curvatures that are left in them.

    Those of y and of x are positive definite; in the metric f_yy of a batch has curvatures up to
    ``top``, f_yy of all rows from about ``low``; ``bend`` is the largest curvature of Phi.
    """

    lower: Cholesky | None
    low: float
    top: float
    curvature: Vec | None = None
    bend: float = 1.0
    factor: Cholesky | None = None

    def y(self, g: Vec) -> Vec:
        """The step of a gradient in y; itself where the metric is Euclidean."""
        return g if self.lower is None else self.lower.solve(g)

    def step_x(self, domain: ProductSet, x: Vec, h: Vec, t: float) -> Vec:
        """``x - t B^-1 h``, projected; on a box only the entries that are not held by their bound
        are coupled (two-metric projection).
        """
        if self.curvature is None:
            return domain.project(x - t * h)
        if domain.is_free:
            assert self.factor is not None
            return domain.project(x - t * self.factor.solve(h))
        face = domain.face(x, h)
        d = h.clone()
        if face.only_fixes or face.is_whole:
            free = face.free
            if free is None:
                free = torch.ones_like(x, dtype=torch.bool)
            index = free.nonzero().squeeze(1)
            factor = cholesky(self.curvature[index][:, index]) if index.numel() else None
            d = torch.zeros_like(h)
            if factor is not None:
                d[index] = factor.solve(h[index])
            return domain.project(x - t * d)
        return domain.project(x - (t / self.bend) * h)


def lower_metric(pilot: Oracle, x: Vec, y: Vec) -> Cholesky | None:
    """The factor of f_yy of the pilot for few lower variables, else None."""
    if pilot.m > DENSE_Y:
        return None
    factor = cholesky(pilot.hessian(x, y))
    return factor if factor is not None and factor.relative_ridge <= 1e-8 else None


def curvature_range(
    whole: Oracle,
    batches: list[Oracle],
    x: Vec,
    y: Vec,
    lower: Cholesky | None,
    rng: torch.Generator,
) -> tuple[float, float]:
    """Smallest curvature of ``whole`` and largest of the batches, in the metric of a factor, or as
    they are.
    """
    if lower is None:
        low, _ = extreme_eigenvalues(whole.hvp(x, y), whole.m, rng)
        tops = [extreme_eigenvalues(b.hvp(x, y), b.m, rng, steps=8)[1] for b in batches]
        return max(low, 0.0), max(tops)
    metric = lower.solve
    tops = [_largest(metric, b.hvp(x, y), b.m, rng) for b in batches]
    # The spectrum of M H lies in [low, top]: the smallest is found as the largest of top - M H.
    H = whole.hvp(x, y)
    top = _largest(metric, H, whole.m, rng)
    shifted = _largest(lambda v: v, lambda v: 1.02 * top * v - metric(H(v)), whole.m, rng)
    return max(1.02 * top - shifted, 0.0), max(tops)


def _largest(metric: Operator, H: Operator, m: int, rng: torch.Generator) -> float:
    """Largest eigenvalue of ``M H`` by twelve steps of power iteration."""
    v = torch.randn(m, generator=rng, dtype=torch.float64)
    size = 0.0
    for _ in range(12):
        v = v / max(norm(v), 1e-300)
        v = metric(H(v))
        size = norm(v)
        if not size > 0.0 or not math.isfinite(size):
            return 0.0
    return size


def upper_curvature(pilot: Oracle, x: Vec, start: Accurate) -> Vec | None:
    """``|d2Phi|`` of the pilot by differences of hypergradients, small eigenvalues raised; None
    where that is too dear or not finite.
    """
    n = x.numel()
    if n > DENSE_X:
        return None
    e = DIFFERENCE * (1.0 + norm(x) / math.sqrt(n))
    moved = (x + e * d for d in torch.eye(n, dtype=torch.float64))
    columns = [accurate(pilot, z, start.y, start.u).h - start.h for z in moved]
    B = torch.stack(columns) / e
    if not bool(torch.isfinite(B).all()):
        return None
    values, vectors = torch.linalg.eigh(0.5 * (B + B.T))
    size = values.abs()
    top = float(size.max())
    if not top > 0.0:
        return None
    found: Vec = (vectors * size.clamp_min(FLOOR * top)) @ vectors.T
    return found


def upper_bend(pilot: Oracle, x: Vec, start: Accurate, rng: torch.Generator) -> float:
    """Largest curvature of Phi on the pilot."""
    return power_iteration(lambda z: accurate(pilot, z, start.y, start.u).h, x, rng)


# A metric is left where curvature or hypergradient differ by this fraction from what it says.
TRUSTED = 0.5
SHRINKS = 12


def trust_radius(oracle: Oracle, pilot: Oracle, metric: Metric, x: Vec, start: Accurate) -> float:
    """Distance from x within which the curvatures at x describe the pilot.

    Tried on shorter and shorter steps ``-B^-1 h``: the product of f_yy with u may change by half
    its size, the hypergradient by half its size more than B says.
    """
    here = pilot.hvp(x, start.y)(start.u)
    t = 1.0
    for _ in range(SHRINKS):
        there = metric.step_x(oracle.domain_x, x, start.h, t)
        d = there - x
        length = norm(d)
        if not length > 0.0:
            return math.inf
        moved = pilot.hvp(there, start.y)(start.u)
        smooth = norm(moved - here) <= TRUSTED * norm(here)
        if smooth and math.isfinite(norm(moved)):
            if metric.curvature is None:
                return length
            new = accurate(pilot, there, start.y, start.u, tol=1e-3)
            if norm(new.h - start.h - metric.curvature @ d) <= TRUSTED * norm(start.h):
                return length
        t *= 0.5
    return length
