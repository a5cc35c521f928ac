"""``F + c G`` for the doubly regularised gap function G of a constrained lower level [Yao2024b]_,
minimised over x, y and the multipliers z for growing c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from bilevelpy.backends.constrained.first_order import multiplier_set, solved
from bilevelpy.backends.value_function.joint import JointPenalty, begun, measure_joint
from bilevelpy.backends.value_function.joint_space import Joint, upper_unit
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Point
from bilevelpy.numerics.rows.multipliers import Scaled
from bilevelpy.numerics.upper.optimizer import UpperState

Vec = torch.Tensor


def start_gap(
    oracle: Oracle,
    w: tuple[Vec, Vec, Vec],
    rows: Scaled,
    constants: tuple[float, float, float],
    *,
    weight: float,
    tol: float,
    rng: torch.Generator,
) -> UpperState:
    """The first point, from ``w = (x, y, z)``; ``constants`` are g1, g2 and the bound of
    multipliers.
    """
    g1, g2, bound = constants
    x, y, _ = w
    joint = Joint(oracle, multiplier_set(rows, bound), upper_unit(oracle, x, y))
    return begun(Gap, joint, w, y, tol, rng=rng, weight=weight, gamma=g1, rows=rows, gamma2=g2)


def measure_gap(oracle: Oracle, state: UpperState) -> Measure:
    """Read the state; at the end y is the lower solution at its x."""
    response = state.response
    assert isinstance(response, Gap)
    m = measure_joint(oracle, state)
    if response.settled or state.finish is not None:
        z = state.point.x[oracle.n + oracle.m :]
        m = solved(oracle, m, response.rows, z, response.rng)
    return m


@dataclass(slots=True)
class Gap(JointPenalty):
    """Value and gradient of ``F + c G`` at ``w = (x, y, z)``."""

    rows: Scaled = field(kw_only=True)
    gamma2: float = 1.0

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``F + c G``; the lower solution kept is the minimiser over t."""
        oracle, n, m, rows = self.base, self.base.n, self.base.m, self.rows
        joint = self.oracle
        assert isinstance(joint, Joint)
        u, y, z = joint.upper(x), x[n : n + m], x[n + m :]
        lower = self.below(Regularised(oracle, rows, y, z, self.gamma), u, y)
        if not math.isfinite(lower.f) or lower.ended == "unbounded":
            return Point(x, lower, math.nan, math.nan, torch.zeros_like(x), torch.zeros_like(y))
        F, F_x, F_y = oracle.value_grad_F(u, y)
        f, f_y = oracle.value_grad_f(u, y)
        zeta = rows.project(z + self.gamma2 * rows.values(u, y))
        here, there = rows.vjp(u, y)(zeta), rows.vjp(u, lower.y)(z)
        push = (
            joint.unit * (oracle.grad_f_x(u, lower.y) + there[0] - oracle.grad_f_x(u, y) - here[0]),
            (y - lower.y) / self.gamma - f_y - here[1],
            rows.values(u, lower.y) - (zeta - z) / self.gamma2,
        )
        adjoint = Adjoint(torch.zeros_like(y), self.weight * torch.cat(push), math.nan, 0)
        gap = f + float(zeta @ zeta - z @ z) / (2.0 * self.gamma2) - lower.f
        full = torch.cat([joint.unit * F_x, F_y, torch.zeros_like(z)])
        return Point(x, lower, F, F + self.weight * gap, full, F_y, adjoint)

    def apart(self, point: Point) -> float:
        """Distance of y from t and from its constraints, relative to the size of t."""
        n, m, rows = self.base.n, self.base.m, self.rows
        assert isinstance(self.oracle, Joint)
        x, y, z = self.oracle.upper(point.x), point.x[n : n + m], point.x[n + m :]
        short = rows.shortfall(rows.values(x, y), z, self.gamma2)
        return (norm(y - point.y) + short) / max(norm(point.y), 1e-300)


class Regularised:
    """``f(x, t) + z'c(x, t) + |t - y|^2 / (2 gamma)`` as a lower objective in t."""

    def __init__(self, oracle: Oracle, rows: Scaled, y: Vec, z: Vec, gamma: float) -> None:
        self.oracle, self.rows, self.y, self.z, self.gamma = oracle, rows, y, z, gamma
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, t: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, g = self.oracle.value_grad_f(x, t)
        d = t - self.y
        more = float(self.z @ self.rows.values(x, t)) + float(d @ d) / (2.0 * self.gamma)
        return f + more, g + self.rows.vjp(x, t)(self.z)[1] + d / self.gamma

    def grad_f(self, x: Vec, t: Vec) -> Vec:
        """Gradient."""
        push = self.rows.vjp(x, t)(self.z)[1]
        return self.oracle.grad_f(x, t) + push + (t - self.y) / self.gamma
