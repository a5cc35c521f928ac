"""Weighted absolute values below without kinks: ``y = p - q`` with ``p, q >= 0``.

``s(x, y) + w(x)'|y|`` becomes ``s(x, p - q) + w(x)'(p + q)``, smooth on a box, with the same
minimisers: one of ``p_j``, ``q_j`` is 0 there wherever ``w_j > 0``. What is free on a face is the
support of y, so that implicit differentiation on faces is that of [Bertrand2020]_ on the support.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from bilevelpy.errors import BackendError
from bilevelpy.lowering.absolute import AbsoluteParts, absolute_parts
from bilevelpy.lowering.domains.product import WEAK, Block, Face, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature, invert
from bilevelpy.numerics.scaled import ScaledOracle, Units

Vec = torch.Tensor

# Zeros that are released at a time: at least so many, and at most as many as there are in the
# support (working sets that double).
RELEASED = 10
# Values with gradients that the factor on a support is worth.
PRICE = 4.0


class HalvesSet(ProductSet):
    """The box of ``(p, q)``, where at most one of ``p_j``, ``q_j`` is other than its bound.

    :meth:`project` takes the smaller of both off both, which changes neither y nor raises f.
    """

    __slots__ = ("half",)

    def __init__(self, blocks: Any, dim: int) -> None:
        super().__init__(blocks, dim)
        self.half = dim // 2

    def project(self, z: Vec) -> Vec:
        """Clip to the bounds, and cancel what both halves have above them."""
        clipped = torch.minimum(torch.maximum(z, self.lower), self.upper)
        over = clipped - self.lower
        both = torch.minimum(over[..., : self.half], over[..., self.half :])
        return clipped - torch.cat([both, both], -1) if bool(both.any()) else clipped

    def projected_gradient(self, z: Vec, g: Vec) -> Vec:
        """That of the box, without the other half of entries in the support."""
        return super().projected_gradient(z, g).masked_fill(self._shadowed(z), 0.0)

    def face(self, z: Vec, g: Vec, tol: float = WEAK) -> Face:
        """That of the box, with the other half of the support held and the steepest zeros
        released.
        """
        found = super().face(z, g, tol)
        free = torch.ones(self.dim, dtype=torch.bool) if found.free is None else found.free.clone()
        shadowed = self._shadowed(z)
        free &= ~shadowed
        inside = free & (z > self.lower) & (z < self.upper)
        waiting = (free & ~inside).nonzero().squeeze(1)
        most = max(RELEASED, int(inside.sum()))
        if waiting.numel() > most:
            order = torch.argsort(g[waiting].abs(), descending=True)
            free[waiting[order[most:]]] = False
        return Face(self.dim, None if bool(free.all()) else free, weak=found.weak)

    def _shadowed(self, z: Vec) -> Vec:
        above = z > self.lower
        return torch.cat([above[self.half :], above[: self.half]])


class SplitOracle:
    """An oracle with weighted absolute values below, in the variables ``z = (p, q)``."""

    def __init__(self, parts: AbsoluteParts) -> None:
        o = parts.oracle
        self.parts, self.oracle = parts, o
        self.n, self.m, self.x0 = o.n, 2 * o.m, o.x0
        self.domain_x, self.counts = o.domain_x, o.counts
        self.F_sign, self.f_sign = o.F_sign, o.f_sign
        high = torch.full((o.m,), math.inf, dtype=torch.float64)
        up = torch.where(o.domain_y.upper < math.inf, o.domain_y.upper.clamp(min=0.0), high)
        down = torch.where(o.domain_y.lower > -math.inf, (-o.domain_y.lower).clamp(min=0.0), high)
        zero = torch.zeros(2 * o.m, dtype=torch.float64)
        low = torch.cat([o.domain_y.lower.clamp(min=0.0), (-o.domain_y.upper).clamp(min=0.0)])
        block = Block("box", 0, 1, 2 * o.m, torch.maximum(zero, low), torch.cat([up, down]))
        self.domain_y: ProductSet = HalvesSet([block], 2 * o.m)
        self.y0 = halves(o.y0)
        self.support_only = getattr(o, "predicted", None) is not None
        # Matrices on supports are small.
        self.hessian_price: float = min(getattr(o, "hessian_price", PRICE), PRICE)

    def F(self, x: Vec, z: Vec) -> float:
        """The upper objective."""
        value: float = self.oracle.F(x, joined(z))
        return value

    def f(self, x: Vec, z: Vec) -> float:
        """The lower objective."""
        return self.value_grad_f(x, z)[0]

    def value_grad_F(self, x: Vec, z: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dz."""
        F, F_x, F_y = self.oracle.value_grad_F(x, joined(z))
        return F, F_x, torch.cat([F_y, -F_y])

    def grad_F(self, x: Vec, z: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dz)."""
        return self.value_grad_F(x, z)[1:]

    def value_grad_f(self, x: Vec, z: Vec) -> tuple[float, Vec]:
        """f and df/dz, from those of the model: the derivative of ``|y|`` is sign(y), 0 at 0."""
        y = joined(z)
        f, f_y = self.oracle.value_grad_f(x, y)
        w = self.parts.weights(x)
        s_y = f_y - w * torch.sign(y)
        return f + float(w @ self._slack(z, y)), torch.cat([s_y + w, w - s_y])

    def grad_f(self, x: Vec, z: Vec) -> Vec:
        """df/dz."""
        return self.value_grad_f(x, z)[1]

    def grad_f_x(self, x: Vec, z: Vec) -> Vec:
        """df/dx: of s at y, and of the weights at ``p + q``."""
        y = joined(z)
        at_y: Vec = self.oracle.grad_f_x(x, y)
        return at_y + self.parts.slope_of_weights(x, self._slack(z, y))

    def hvp(self, x: Vec, z: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_zz v``; absolute values have no curvature."""
        product = self.oracle.hvp(x, joined(z))

        def both(v: Vec) -> Vec:
            Hv = product(joined(v))
            return torch.cat([Hv, -Hv])

        return both

    def cross(self, x: Vec, z: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xz v``."""
        y = joined(z)
        product = self.oracle.cross(x, y)
        return lambda v: product(joined(v)) + self._beside(x, y, v)

    def pullback(self, x: Vec, z: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_zz v, f_xz v)``."""
        y = joined(z)
        product = self.oracle.pullback(x, y)

        def both(v: Vec) -> tuple[Vec, Vec]:
            Hv, Jv = product(joined(v))
            return torch.cat([Hv, -Hv]), Jv + self._beside(x, y, v)

        return both

    def hessian(self, x: Vec, z: Vec) -> Vec:
        """f_zz, dense."""
        H = self.inner_hessian(x, z)
        return torch.cat([torch.cat([H, -H], 1), torch.cat([-H, H], 1)])

    def inner_hessian(self, x: Vec, z: Vec, index: Vec | None = None) -> Vec:
        """f_yy at ``y = p - q``, or its rows and columns ``index``; dense."""
        y = joined(z)
        predicted = getattr(self.oracle, "predicted", None)
        if index is not None and predicted is not None:
            part: Vec | None = predicted.restricted(x, y, index)
            if part is not None:
                return part
        H: Vec = self.oracle.hessian(x, y)
        return H if index is None else H[index][:, index]

    def _slack(self, z: Vec, y: Vec) -> Vec:
        """``p + q - |y|``: zero unless both halves are positive."""
        m = self.oracle.m
        slack: Vec = z[:m] + z[m:] - y.abs()
        return slack

    def _beside(self, x: Vec, y: Vec, v: Vec) -> Vec:
        """What the weights add to ``f_xz v`` where v leaves the half that y lies in."""
        m = self.oracle.m
        a = v[:m] + v[m:] - torch.sign(y) * joined(v)
        return self.parts.slope_of_weights(x, a)


class ScaledHalves(ScaledOracle):
    """A :class:`SplitOracle` in other units, equal in both halves."""

    def __init__(self, oracle: SplitOracle, units: Units) -> None:
        super().__init__(oracle, Units(units.x, torch.cat([units.y, units.y])))
        self.domain_y = HalvesSet(self.domain_y.blocks, self.m)
        self._inner, self._size = oracle, units.y
        self.support_only = oracle.support_only

    def inner_hessian(self, x: Vec, z: Vec, index: Vec | None = None) -> Vec:
        """f_yy at ``y = p - q``, or its rows and columns ``index``; dense."""
        H = self._inner.inner_hessian(*self._units(x, z), index)
        size = self._size if index is None else self._size[index]
        return size[:, None] * H * size


class HalvesCurvature(DenseCurvature):
    """f_yy on the support alone, taken at the point of the last refresh."""

    __slots__ = ("_point",)

    def refresh(self, oracle: Any, x: Vec, y: Vec) -> None:
        """Take the Hessian from (x, z) on; its support is known when a face is settled."""
        self._point = (oracle, x.clone(), y.clone())
        self.H, self.face, self.place = y.new_zeros(0, 0), None, (x, y)

    def settle(self, face: Face) -> bool:
        """Factorise on ``face`` unless that is done; False where the Hessian is not finite."""
        if self.face is not None and self.face.same_as(face):
            return self.factor is not None
        free = torch.ones(face.dim, dtype=torch.bool) if face.free is None else face.free
        self.face, self.index = face, free.nonzero().squeeze(1)
        half = face.dim // 2
        oracle, x, z = self._point
        sign = torch.where(self.index < half, 1.0, -1.0).to(z.dtype)
        H = oracle.inner_hessian(x, z, self.index % half)
        self.factor = invert(H * sign[:, None] * sign)
        return self.factor is not None


def is_split(oracle: Any) -> bool:
    """Whether an oracle is one in halves."""
    return getattr(oracle, "inner_hessian", None) is not None


def halves(y: Vec) -> Vec:
    """``(p, q)`` of y."""
    return torch.cat([y.clamp(min=0.0), (-y).clamp(min=0.0)])


def joined(z: Vec) -> Vec:
    """y of ``(p, q)``."""
    half = z.shape[-1] // 2
    return z[..., :half] - z[..., half:]


def split_oracle(oracle: Any, x: Vec, rng: torch.Generator) -> Oracle | None:
    """The problem in halves; None where the lower objective has no kinks that its text shows, or
    other ones than weighted absolute values.
    """
    scaled = isinstance(oracle, ScaledOracle)
    inner = oracle.oracle if scaled else oracle
    try:
        parts = absolute_parts(inner, oracle.units.x * x if scaled else x, rng)
    except BackendError:
        return None
    if parts is None:
        return None
    made = SplitOracle(parts)
    return ScaledHalves(made, oracle.units) if scaled else made
