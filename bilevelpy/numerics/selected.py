"""The lower solution that is best for the leader: ``f + w F`` with a small weight w in the place
of f.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.linear_solve import dot, norm

Vec = torch.Tensor

# Relative step of the differences of upper gradients.
DIFFERENCE = 1e-5
# The weight makes the curvature of F this fraction of that of f: small, for the response moves by
# about as much; but the leader's choice must stay above rounding, and conjugate gradients must
# still end.
WEIGHT, WEIGHT_LARGE = 1e-8, 1e-5


class Selected:
    """The problem of an oracle whose lower objective is ``f + w F``.

    Where f has many minimisers and F tells them apart, this one has the one that the leader
    prefers, up to O(w) [Liu2020]_; where it has one, that moves by O(w) only. F enters the second
    derivatives by central differences of its gradients, exact for quadratic F.
    """

    def __init__(self, oracle: Oracle, weight: float, size: float) -> None:
        self.oracle, self.weight = oracle, weight
        self.n, self.m, self.x0, self.y0 = oracle.n, oracle.m, oracle.x0, oracle.y0
        self.domain_x, self.domain_y = oracle.domain_x, oracle.domain_y
        self.counts: Counts = oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign
        self.F, self.grad_F, self.value_grad_F = oracle.F, oracle.grad_F, oracle.value_grad_F
        self._step = DIFFERENCE * (size or 1.0)

    def f(self, x: Vec, y: Vec) -> float:
        """``f + w F``."""
        return self.oracle.f(x, y) + self.weight * self.oracle.F(x, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """Its derivative in y."""
        return self.oracle.grad_f(x, y) + self.weight * self.oracle.grad_F(x, y)[1]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """Its derivative in x."""
        return self.oracle.grad_f_x(x, y) + self.weight * self.oracle.grad_F(x, y)[0]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and derivative in y."""
        f, f_y = self.oracle.value_grad_f(x, y)
        F, _, F_y = self.oracle.value_grad_F(x, y)
        return f + self.weight * F, f_y + self.weight * F_y

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy + w F_yy) v, (f_xy + w F_xy) v``."""
        below, above, w = self.oracle.pullback(x, y), self._upper(x, y), self.weight

        def product(v: Vec) -> tuple[Vec, Vec]:
            (h, j), (H, J) = below(v), above(v)
            return h + w * H, j + w * J

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> (f_yy + w F_yy) v``."""
        below, above, w = self.oracle.hvp(x, y), self._upper(x, y), self.weight
        return lambda v: below(v) + w * above(v)[0]

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> (f_xy + w F_xy) v``."""
        below, above, w = self.oracle.cross(x, y), self._upper(x, y), self.weight
        return lambda v: below(v) + w * above(v)[1]

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """``f_yy + w F_yy``: two upper gradients a column."""
        above = self._upper(x, y)
        upper = torch.stack([above(e)[0] for e in torch.eye(self.m, dtype=torch.float64)])
        return self.oracle.hessian(x, y) + self.weight * 0.5 * (upper + upper.T)

    def _upper(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (F_yy v, F_xy v)``."""

        def product(v: Vec) -> tuple[Vec, Vec]:
            size = norm(v)
            if size == 0.0:
                return torch.zeros_like(y), torch.zeros_like(x)
            e = self._step / size
            up, down = self.oracle.grad_F(x, y + e * v), self.oracle.grad_F(x, y - e * v)
            return (up[1] - down[1]) / (2.0 * e), (up[0] - down[0]) / (2.0 * e)

        return product


def weight_for(oracle: Oracle, x: Vec, y: Vec, bend: float, size: float, large: bool) -> float:
    """The weight of F beside f: :data:`WEIGHT` in the units of both.

    Curvatures are compared along the gradient of F in y, where that exists; of an F that is linear
    in y the slope over the ``size`` of y is.
    """
    F_y = oracle.grad_F(x, y)[1]
    slope = norm(F_y)
    v = F_y / slope if slope > 0.0 else torch.ones_like(y) / max(oracle.m, 1) ** 0.5
    curved = abs(dot(v, Selected(oracle, 0.0, size)._upper(x, y)(v)[0]))
    reference = max(curved, slope / (size or 1.0))
    share = WEIGHT_LARGE if large else WEIGHT
    return share * (bend or 1.0) / reference if reference > 0.0 else share * (bend or 1.0)
