"""``a f + b F`` in the place of the lower objective, with its second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Relative step of the differences of upper gradients.
DIFFERENCE = 1e-5


class Blended:
    """The problem of an oracle whose lower objective is ``a f + b F``; the weights may change
    during a run.

    F enters the second derivatives by central differences of its gradients, exact for quadratic F:
    two upper gradients a product. ``size`` is the scale of y that their step is relative to, that
    of the point plus 1 where it is 0.
    """

    def __init__(self, oracle: Oracle, a: float, b: float, size: float = 0.0) -> None:
        self.oracle, self.a, self.b, self.size = oracle, a, b, size
        self.n, self.m, self.x0, self.y0 = oracle.n, oracle.m, oracle.x0, oracle.y0
        self.domain_x, self.domain_y = oracle.domain_x, oracle.domain_y
        self.counts: Counts = oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign
        self.F, self.grad_F, self.value_grad_F = oracle.F, oracle.grad_F, oracle.value_grad_F

    def f(self, x: Vec, y: Vec) -> float:
        """``a f + b F``."""
        return self.a * self.oracle.f(x, y) + self.b * self.oracle.F(x, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """Its derivative in y."""
        return self.a * self.oracle.grad_f(x, y) + self.b * self.oracle.grad_F(x, y)[1]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """Its derivative in x."""
        return self.a * self.oracle.grad_f_x(x, y) + self.b * self.oracle.grad_F(x, y)[0]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and derivative in y."""
        f, f_y = self.oracle.value_grad_f(x, y)
        F, _, F_y = self.oracle.value_grad_F(x, y)
        return self.a * f + self.b * F, self.a * f_y + self.b * F_y

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (a f_yy + b F_yy) v, (a f_xy + b F_xy) v``."""
        below, above = self.oracle.pullback(x, y), self.upper(x, y)

        def product(v: Vec) -> tuple[Vec, Vec]:
            (h, j), (H, J) = below(v), above(v)
            return self.a * h + self.b * H, self.a * j + self.b * J

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> (a f_yy + b F_yy) v``."""
        below, above = self.oracle.hvp(x, y), self.upper(x, y)
        return lambda v: self.a * below(v) + self.b * above(v)[0]

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> (a f_xy + b F_xy) v``."""
        below, above = self.oracle.cross(x, y), self.upper(x, y)
        return lambda v: self.a * below(v) + self.b * above(v)[1]

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """``a f_yy + b F_yy``: two upper gradients a column."""
        above = self.upper(x, y)
        upper = torch.stack([above(e)[0] for e in torch.eye(self.m, dtype=torch.float64)])
        return self.a * self.oracle.hessian(x, y) + self.b * 0.5 * (upper + upper.T)

    def upper(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (F_yy v, F_xy v)``."""

        def product(v: Vec) -> tuple[Vec, Vec]:
            size = norm(v)
            if size == 0.0:
                return torch.zeros_like(y), torch.zeros_like(x)
            e = DIFFERENCE * (self.size or 1.0 + norm(y)) / size
            up, down = self.oracle.grad_F(x, y + e * v), self.oracle.grad_F(x, y - e * v)
            return (up[1] - down[1]) / (2.0 * e), (up[0] - down[0]) / (2.0 * e)

        return product
