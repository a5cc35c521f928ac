"""``F + c (f - v)`` minimised over x and y together, for a first-order lower value v and growing
c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bilevelpy.backends.weighted import Inner
from bilevelpy.lowering.domains import ProductSet
from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.hypergradient import Adjoint
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.response import Accuracy, Point, Response
from bilevelpy.numerics.upper import UpperState, advance, begin, measure
from bilevelpy.numerics.upper_lipschitz import power_iteration

Vec = torch.Tensor

RAISE, RAISES = 10.0, 9
# The first weight makes y differ from the lower solution by about this fraction.
APART = 0.1
# Distance of y from the lower solution, in tolerances, at which the penalty counts as exact.
CLOSE = 3.0


def product_set(one: ProductSet, two: ProductSet) -> ProductSet:
    """The product of two sets."""
    moved = [replace(b, start=b.start + one.dim) for b in two.blocks]
    return ProductSet([*one.blocks, *moved], one.dim + two.dim)


class Joint:
    """What the upper optimizer asks of an oracle, for the variables ``w = (x, y)``."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.n, self.m = oracle.n + oracle.m, oracle.m
        self.domain_x = product_set(oracle.domain_x, oracle.domain_y)
        self.domain_y = oracle.domain_y
        self.counts: Counts = oracle.counts

    def f(self, w: Vec, y: Vec) -> float:
        """The lower objective."""
        return self.oracle.f(w[: self.oracle.n], y)


@dataclass(slots=True)
class JointPenalty(Response):
    """Value and gradient of ``F + c (f - v)`` at w.

    ``gamma`` = 0: v is the value function ``min f(x, .)``, reached from y; else the Moreau envelope
    ``min_theta f(x, theta) + |theta - y|^2 / (2 gamma)``. Both are differentiated by the envelope
    theorem.
    """

    base: Any = None
    rng: torch.Generator = field(default_factory=torch.Generator)
    weight: float = 1.0
    gamma: float = 0.0
    settled: bool = False
    raises: int = 0
    inner: Inner | None = None

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``F + c (f - v)``; the lower solution kept is the minimiser in v."""
        oracle, n = self.base, self.base.n
        u, y = x[:n], x[n:]
        if self.inner is None:
            self.inner = Inner(y, self.rng)
        self.inner.y = y
        level = max(self.accuracy.level / max(self.weight, 1.0), 1e-14)
        problem: Any = Proximal(oracle, y, self.gamma) if self.gamma else oracle
        lower = self.inner.solve(problem, u, 1.0, 0.0, level)
        self.scale = max(self.scale, self.inner.scale)
        if not math.isfinite(lower.f) or lower.ended == "unbounded":
            return Point(x, lower, math.nan, math.nan, torch.zeros_like(x), torch.zeros_like(y))
        F, F_x, F_y = oracle.value_grad_F(u, y)
        f, f_y = oracle.value_grad_f(u, y)
        if self.gamma:
            f_y = f_y - (y - lower.y) / self.gamma
        push = oracle.grad_f_x(u, lower.y) - oracle.grad_f_x(u, y), -f_y
        cross = self.weight * torch.cat(push)
        adjoint = Adjoint(torch.zeros_like(y), cross, math.nan, 0)
        value = F + self.weight * (f - lower.f)
        return Point(x, lower, F, value, torch.cat([F_x, F_y]), F_y, adjoint)

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """The gradient, whose parts the value has brought along."""
        assert point.adjoint is not None
        return replace(point, gradient=point.gF_x - point.adjoint.cross)


class Proximal:
    """``f(x, theta) + |theta - y|^2 / (2 gamma)`` as a lower objective in theta."""

    def __init__(self, oracle: Oracle, y: Vec, gamma: float) -> None:
        self.oracle, self.y, self.gamma = oracle, y, gamma
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, theta: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, g = self.oracle.value_grad_f(x, theta)
        d = theta - self.y
        return f + float(d @ d) / (2.0 * self.gamma), g + d / self.gamma

    def grad_f(self, x: Vec, theta: Vec) -> Vec:
        """Gradient."""
        return self.oracle.grad_f(x, theta) + (theta - self.y) / self.gamma


def start_joint(
    oracle: Oracle, x: Vec, y: Vec, tol: float, rng: torch.Generator, *, weight: float, gamma: float
) -> UpperState:
    """The first point; weight 0 means one that grows, from a first one on the scale of both
    objectives.
    """
    settled = weight > 0
    z = Inner(y, rng).solve(oracle, x, 1.0, 0.0, 1e-3).y
    if not settled:
        top = power_iteration(lambda at: oracle.grad_f(x, at), z, rng)
        size = max(norm(z), norm(y)) or 1.0
        weight = norm(oracle.grad_F(x, z)[1]) / max(APART * top * size, 1e-300) or 1.0
    unused: Any = None
    accuracy = Accuracy(level=1e-5, change=1.0, floor=min(1e-3 * tol, 1e-7))
    joint: Any = Joint(oracle)
    response = JointPenalty(
        joint,
        unused,
        unused,
        accuracy,
        base=oracle,
        rng=rng,
        weight=weight,
        gamma=gamma,
        settled=settled,
    )
    return raised(begin(response, torch.cat([x, z]), z, 0.0), tol)


def step_joint(state: UpperState, tol: float) -> UpperState:
    """A step on (x, y); a larger weight where the present one is solved."""
    return raised(advance(state), tol)


def raised(state: UpperState, tol: float) -> UpperState:
    """Raise the weight until y and the lower solution agree, or the limit is reached."""
    response = state.response
    assert isinstance(response, JointPenalty)
    while state.finish is None and not response.settled and state.stationarity() <= tol:
        z = state.point.y
        apart = norm(state.point.x[response.base.n :] - z)
        if response.raises >= RAISES or apart <= CLOSE * tol * max(norm(z), 1e-300):
            response.settled = True
            break
        response.raises += 1
        response.weight *= RAISE
        new = response.again(state.point)
        if new.gradient is None:
            break
        state.point = new
        state.memory.reset()
    return state


def measure_joint(oracle: Oracle, state: UpperState) -> Measure:
    """The state with x alone, and the lower solution as y."""
    m = measure(state)
    x, y = m.x[: oracle.n], m.y
    F = oracle.F(x, y) if math.isfinite(m.F) else m.F
    f, g = oracle.value_grad_f(x, y)
    residual = oracle.domain_y.projected_gradient_norm(y, g)
    return replace(m, x=x, y=y, F=F, f=f, lower_residual=residual)
