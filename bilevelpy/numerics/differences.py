"""Second-order products as differences of gradients: an oracle for methods without Hessians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor
Product = Callable[[Vec], Vec]

# Displacements relative to 1 + |y|: rounding and truncation are about equal there.
STEP = 1e-5


class GradientOracle:
    """The oracle with ``H v ~ (f_y(y + e v) - f_y(y - e v)) / (2 e)`` and ``f_xy v`` likewise.

    Two gradients a product, none of second order; exact for f quadratic in y.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def __getattr__(self, name: str) -> Any:
        return getattr(self.oracle, name)

    def hvp(self, x: Vec, y: Vec) -> Product:
        """``v -> f_yy v``."""
        return _along(lambda z: self.oracle.grad_f(x, z), y, y)

    def cross(self, x: Vec, y: Vec) -> Product:
        """``v -> f_xy v``."""
        return _along(lambda z: self.oracle.grad_f_x(x, z), y, x)

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``."""
        H, J = self.hvp(x, y), self.cross(x, y)
        return lambda v: (H(v), J(v))

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy, a column a product."""
        H = self.hvp(x, y)
        A = torch.stack([H(e) for e in torch.eye(y.numel(), dtype=torch.float64)])
        return 0.5 * (A + A.T)


def _along(gradient: Product, y: Vec, like: Vec) -> Product:
    def product(v: Vec) -> Vec:
        size = norm(v)
        if size == 0.0:
            return torch.zeros_like(like)
        e = STEP * (1.0 + norm(y)) / size
        return (gradient(y + e * v) - gradient(y - e * v)) / (2.0 * e)

    return product
