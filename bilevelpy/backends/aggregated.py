"""``phi = (1 - mu) f + mu F`` as the lower objective: strongly convex in y wherever F is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Relative step of the differences of upper gradients.
DIFFERENCE = 1e-5


def upper_products(oracle: Oracle, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
    """``v -> (F_yy v, F_xy v)`` by a central difference of upper gradients: two of them a
    product.
    """

    def product(v: Vec) -> tuple[Vec, Vec]:
        size = norm(v)
        if size == 0.0:
            return torch.zeros_like(y), torch.zeros_like(x)
        e = DIFFERENCE * (1.0 + norm(y)) / size
        up, down = oracle.grad_F(x, y + e * v), oracle.grad_F(x, y - e * v)
        return (up[1] - down[1]) / (2.0 * e), (up[0] - down[0]) / (2.0 * e)

    return product


class Aggregated:
    """The problem of an oracle with phi in the place of f; ``mu`` may change during a run."""

    def __init__(self, oracle: Oracle, mu: float) -> None:
        self.oracle = oracle
        self.mu = mu
        self.n, self.m, self.x0, self.y0 = oracle.n, oracle.m, oracle.x0, oracle.y0
        self.domain_x, self.domain_y, self.counts = oracle.domain_x, oracle.domain_y, oracle.counts
        self.F_sign = self.f_sign = 1.0
        self.F, self.grad_F, self.value_grad_F = oracle.F, oracle.grad_F, oracle.value_grad_F

    def f(self, x: Vec, y: Vec) -> float:
        """phi."""
        return (1.0 - self.mu) * self.oracle.f(x, y) + self.mu * self.oracle.F(x, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """phi_y."""
        return (1.0 - self.mu) * self.oracle.grad_f(x, y) + self.mu * self.oracle.grad_F(x, y)[1]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """phi_x."""
        return (1.0 - self.mu) * self.oracle.grad_f_x(x, y) + self.mu * self.oracle.grad_F(x, y)[0]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """phi and phi_y."""
        f, f_y = self.oracle.value_grad_f(x, y)
        F, _, F_y = self.oracle.value_grad_F(x, y)
        return (1.0 - self.mu) * f + self.mu * F, (1.0 - self.mu) * f_y + self.mu * F_y

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (phi_yy v, phi_xy v)``."""
        lower, upper = self.oracle.pullback(x, y), upper_products(self.oracle, x, y)

        def product(v: Vec) -> tuple[Vec, Vec]:
            (h, j), (H, J) = lower(v), upper(v)
            return (1.0 - self.mu) * h + self.mu * H, (1.0 - self.mu) * j + self.mu * J

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> phi_yy v``."""
        lower, upper = self.oracle.hvp(x, y), upper_products(self.oracle, x, y)
        return lambda v: (1.0 - self.mu) * lower(v) + self.mu * upper(v)[0]

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> phi_xy v``."""
        lower, upper = self.oracle.cross(x, y), upper_products(self.oracle, x, y)
        return lambda v: (1.0 - self.mu) * lower(v) + self.mu * upper(v)[1]

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """phi_yy."""
        product = self.hvp(x, y)
        return torch.stack([product(e) for e in torch.eye(self.m, dtype=torch.float64)])
