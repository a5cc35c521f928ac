"""Minimisers of ``a f + b F`` over y, by gradients alone: the inner problems of the value-function
methods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.krylov import lbfgs
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.quasi_newton import BFGS
from bilevelpy.numerics.upper.lipschitz import power_iteration

Vec = torch.Tensor

# Iterations of a solve: one for every part of the accuracy that is asked for, within these bounds.
LEAST, MOST = 100, 3000
# Residuals below this part of the largest one are rounding.
FINEST = 1e-14


class Weighted:
    """``f := a f + b F`` in the place of the lower objective, for first-order solvers."""

    def __init__(self, oracle: Oracle, a: float, b: float) -> None:
        self.oracle = oracle
        self.a, self.b = a, b
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and gradient in y."""
        value, g = 0.0, torch.zeros_like(y)
        if self.a:
            f, f_y = self.oracle.value_grad_f(x, y)
            value, g = self.a * f, self.a * f_y
        if self.b:
            F, _, F_y = self.oracle.value_grad_F(x, y)
            value, g = value + self.b * F, g + self.b * F_y
        return value, g

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """Gradient in y."""
        g = self.a * self.oracle.grad_f(x, y)
        return g + self.b * self.oracle.grad_F(x, y)[1] if self.b else g


@dataclass(slots=True)
class Inner:
    """One inner problem with what it remembers: its last minimiser and its curvature pairs."""

    y: Vec
    rng: torch.Generator
    memory: BFGS = field(default_factory=lambda: BFGS(0.0, 20, rescale=True))
    scale: float = 0.0
    part: float = math.inf

    def solve(self, oracle: Oracle, x: Vec, a: float, b: float, level: float) -> LowerSolution:
        """Minimise from the last minimiser until the residual is ``level`` of the largest one seen,
        and ``part`` of that at the start, if that is less; rough solves end early on hard problems,
        at the point that they have reached.
        """
        problem = cast(Oracle, Weighted(oracle, a, b))
        f, g = problem.value_grad_f(x, self.y)
        if not math.isfinite(f):
            return finish(oracle.domain_y, self.y, f, g, 0, "nonfinite")
        if self.memory.scale == 0.0:
            top = power_iteration(lambda z: problem.grad_f(x, z), self.y, self.rng)
            self.memory.scale = 1.0 / top if top > 0 else 1.0
        first = oracle.domain_y.projected_gradient_norm(self.y, g)
        self.scale = max(self.scale, first)
        level = max(min(level, self.part * first / self.scale), FINEST) if self.scale > 0 else level
        found = lbfgs(
            problem,
            x,
            self.y,
            tol=level * self.scale,
            max_iter=min(MOST, max(LEAST, math.ceil(1.0 / max(level, 1.0 / MOST)))),
            memory=self.memory,
            start=(f, g),
        )
        if found.usable or found.ended == "limit":
            self.y = found.y
        return found

    def descend(self, oracle: Oracle, x: Vec, a: float, b: float, step: float, steps: int) -> Vec:
        """``steps`` projected gradient steps of a fixed length from the last point."""
        problem = Weighted(oracle, a, b)
        for _ in range(steps):
            self.y = oracle.domain_y.project(self.y - step * problem.grad_f(x, self.y))
        return self.y

    def value_gradient(self, oracle: Oracle, x: Vec) -> tuple[float, Vec]:
        """f and the gradient in y whose zero is the solution for a = 1, b = 0."""
        return oracle.value_grad_f(x, self.y)

    def value(self, oracle: Oracle, x: Vec) -> float:
        """f at the minimiser."""
        return oracle.f(x, self.y)

    def slope(self, oracle: Oracle, x: Vec) -> Vec:
        """What f at the minimiser changes by with x, by the envelope theorem."""
        return oracle.grad_f_x(x, self.y)

    def restart(self, y: Vec) -> None:
        """Begin again at y."""
        self.y = y
        self.memory.reset()

    def reset(self) -> None:
        """Forget curvature pairs of another weight."""
        self.memory.reset()
