"""Derivatives from function values alone: differences along orthonormal or Gaussian directions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor
Function = Callable[[Vec], float]

# Radii relative to 1 + |z|: rounding is eps / r in slopes and eps / r^2 in curvatures.
SLOPE, BEND = 1e-5, 1e-4
# Second differences that grow by this factor as the radius falls by ten show a kink.
KINK = 4.0


def slopes(f: Function, z: Vec, domain: ProductSet, radius: float = SLOPE) -> Vec:
    """Central differences along the axes, within the bounds: 2 values an entry."""
    r = radius * (1.0 + float(z.norm()) / math.sqrt(max(z.numel(), 1)))
    out = torch.zeros_like(z)
    for j in range(z.numel()):
        up, down = z.clone(), z.clone()
        up[j] = min(float(z[j]) + r, float(domain.upper[j]))
        down[j] = max(float(z[j]) - r, float(domain.lower[j]))
        width = float(up[j] - down[j])
        out[j] = (f(up) - f(down)) / width if width > 0 else 0.0
    return out


def curvatures(f: Function, z: Vec, domain: ProductSet, radius: float = BEND) -> Vec:
    """All second differences along the axes, about the nearest point with room for them.

    ``(f(z + r e_i + r e_j) - f(z + r e_i - r e_j) - f(z - r e_i + r e_j) + f(z - r e_i - r e_j)) /
    (4 r^2)``: exact for quadratics. Two values for each diagonal entry, four for each other one.
    """
    r = radius * (1.0 + float(z.norm()) / math.sqrt(max(z.numel(), 1)))
    c = torch.minimum(torch.maximum(z, domain.lower + r), domain.upper - r)
    c = torch.where(domain.upper - domain.lower > 2.0 * r, c, z)
    n, eye, middle = z.numel(), r * torch.eye(z.numel(), dtype=torch.float64), f(c)
    H = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        H[i, i] = (f(c + eye[i]) + f(c - eye[i]) - 2.0 * middle) / r**2
        for j in range(i):
            up = f(c + eye[i] + eye[j]) - f(c + eye[i] - eye[j])
            down = f(c - eye[i] + eye[j]) - f(c - eye[i] - eye[j])
            H[i, j] = H[j, i] = (up - down) / (4.0 * r**2)
    return H


def has_kink(f: Function, z: Vec, domain: ProductSet) -> bool:
    """Whether second differences grow without bound as their radius shrinks."""
    if not z.numel():
        return False
    coarse = float(curvatures(f, z, domain, 10.0 * BEND).abs().max())
    fine = float(curvatures(f, z, domain, BEND).abs().max())
    return not fine <= KINK * max(coarse, 1e-6 * abs(f(z)))


class ValueOracle:
    """The oracle of values alone: everything else is a difference of them.

    Dense: for few variables.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.n, self.m, self.x0, self.y0 = oracle.n, oracle.m, oracle.x0, oracle.y0
        self.domain_x, self.domain_y, self.counts = oracle.domain_x, oracle.domain_y, oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign
        self.F, self.f = oracle.F, oracle.f

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        return (
            slopes(lambda z: self.F(z, y), x, self.domain_x),
            slopes(lambda z: self.F(x, z), y, self.domain_y),
        )

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy."""
        return (self.F(x, y), *self.grad_F(x, y))

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        return slopes(lambda z: self.f(x, z), y, self.domain_y)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        return slopes(lambda z: self.f(z, y), x, self.domain_x)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """f and df/dy."""
        return self.f(x, y), self.grad_f(x, y)

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy."""
        return curvatures(lambda z: self.f(x, z), y, self.domain_y)

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        H = self.hessian(x, y)
        return lambda v: H @ v

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``: the slope in x of ``f(x, y + r v) - f(x, y - r v)``."""

        def product(v: Vec) -> Vec:
            size = float(v.norm())
            if size == 0.0:
                return torch.zeros_like(x)
            r = BEND * (1.0 + float(y.norm())) / size
            up, down = y + r * v, y - r * v

            def along(z: Vec) -> float:
                return (self.f(z, up) - self.f(z, down)) / (2.0 * r)

            return slopes(along, x, self.domain_x, BEND)

        return product

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``."""
        H, J = self.hvp(x, y), self.cross(x, y)
        return lambda v: (H(v), J(v))


class GaussianOracle(ValueOracle):
    """The same from Q fresh Gaussian directions a call: unbiased for the smoothed functions.

    With v ~ N(0, I) and the radius r, by Stein's identities::

        grad f ~ mean (f(y + r v) - f(y - r v)) / (2 r) v
        H u    ~ mean (f(y + r v) + f(y - r v) - 2 f(y)) / (2 r^2) (v (v'u) - u)
        f_xy u ~ mean (f(x + r w, y + r v) + f(x - r w, y - r v) - 2 f(x, y)) / (2 r^2) w (v'u)
    """

    def __init__(self, oracle: Oracle, count: int, radius: float, rng: torch.Generator) -> None:
        super().__init__(oracle)
        self.count, self.radius, self.rng = count, radius, rng

    def _draw(self, size: int) -> list[Vec]:
        return list(
            torch.randn(self.count, size, generator=self.rng, dtype=torch.float64).unbind(0)
        )

    def _slope(self, f: Function, z: Vec) -> Vec:
        r = self.radius
        parts = [(f(z + r * v) - f(z - r * v)) / (2.0 * r) * v for v in self._draw(z.numel())]
        return torch.stack(parts).mean(0)

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy) of the smoothed F."""
        slope = self._slope(lambda w: self.F(w[: self.n], w[self.n :]), torch.cat([x, y]))
        return slope[: self.n], slope[self.n :]

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy of the smoothed f."""
        return self._slope(lambda z: self.f(x, z), y)

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``u -> (f_yy u, f_xy u)`` of the smoothed f, from the same values."""
        r, middle = self.radius, self.f(x, y)
        pairs = list(zip(self._draw(self.n), self._draw(self.m), strict=True))
        bends = [
            (self.f(x, y + r * v) + self.f(x, y - r * v) - 2.0 * middle) / (2.0 * r * r)
            for _, v in pairs
        ]
        mixed = [
            (self.f(x + r * w, y + r * v) + self.f(x - r * w, y - r * v) - 2.0 * middle)
            / (2.0 * r * r)
            for w, v in pairs
        ]

        def product(u: Vec) -> tuple[Vec, Vec]:
            H = [b * (v * (v @ u) - u) for b, (_, v) in zip(bends, pairs, strict=True)]
            J = [b * w * (v @ u) for b, (w, v) in zip(mixed, pairs, strict=True)]
            return torch.stack(H).mean(0), torch.stack(J).mean(0)

        return product
