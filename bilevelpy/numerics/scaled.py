"""A problem in other units: ``x = sx * xs``, ``y = sy * ys``, objectives as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Counts, Oracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Units:
    """The sizes ``x`` and ``y`` of what counts as 1 in the scaled variables, entry by entry; powers
    of 2, so that scaling does not round.
    """

    x: Vec
    y: Vec


class ScaledOracle:
    """The functions of an oracle in scaled variables; derivatives follow the chain rule."""

    def __init__(self, oracle: Oracle, units: Units) -> None:
        self.oracle, self.units = oracle, units
        self.n, self.m = oracle.n, oracle.m
        self.x0, self.y0 = oracle.x0 / units.x, oracle.y0 / units.y
        self.domain_x = scaled_set(oracle.domain_x, units.x)
        self.domain_y = scaled_set(oracle.domain_y, units.y)
        self.counts: Counts = oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign
        # What an oracle says of f and its Hessian beyond the protocol holds in any units.
        said = ("hessian_price", "blocks", "bands", "hessian_is_constant", "resolution")
        for name in (*said, "has_kinks"):
            if getattr(oracle, name, None) is not None:
                setattr(self, name, getattr(oracle, name))

    @property
    def sparse_quadratic(self) -> Any:
        """The sparse second derivatives of both objectives, where they are known and constant."""
        known = getattr(self.oracle, "sparse_quadratic", None)
        units = self.units
        return None if known is None else known.scaled(units.x.numpy(), units.y.numpy())

    @property
    def second_order(self) -> ScaledCurvature | None:
        """The second derivatives that Phi'' is made of, where they are known."""
        known = getattr(self.oracle, "second_order", None)
        return None if known is None else ScaledCurvature(known, self.units)

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        return self.oracle.F(*self._units(x, y))

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        return self.oracle.f(*self._units(x, y))

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """dF in both variables."""
        F_x, F_y = self.oracle.grad_F(*self._units(x, y))
        return self.units.x * F_x, self.units.y * F_y

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F and its derivatives."""
        F, F_x, F_y = self.oracle.value_grad_F(*self._units(x, y))
        return F, self.units.x * F_x, self.units.y * F_y

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df in y."""
        return self.units.y * self.oracle.grad_f(*self._units(x, y))

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df in x."""
        return self.units.x * self.oracle.grad_f_x(*self._units(x, y))

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """f and its derivative in y."""
        f, f_y = self.oracle.value_grad_f(*self._units(x, y))
        return f, self.units.y * f_y

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``."""
        inner, u = self.oracle.pullback(*self._units(x, y)), self.units

        def product(v: Vec) -> tuple[Vec, Vec]:
            Hv, Jv = inner(u.y * v)
            return u.y * Hv, u.x * Jv

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        inner, u = self.oracle.hvp(*self._units(x, y)), self.units
        return lambda v: u.y * inner(u.y * v)

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``."""
        inner, u = self.oracle.cross(*self._units(x, y)), self.units
        return lambda v: u.x * inner(u.y * v)

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy, dense."""
        return self.units.y[:, None] * self.oracle.hessian(*self._units(x, y)) * self.units.y

    def _units(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        return self.units.x * x, self.units.y * y


@dataclass(frozen=True, slots=True)
class ScaledCurvature:
    """The second derivatives at any point, in scaled variables."""

    inner: Any
    units: Units

    @property
    def passes(self) -> float:
        """What those at a point cost beside f_yy, in passes over the data."""
        return float(self.inner.passes)

    @property
    def penalty_rates(self) -> Array | None:
        """Those of penalties in scaled x."""
        rates: Array | None = self.inner.penalty_rates
        return None if rates is None else rates * self.units.x.numpy()

    @property
    def single_penalties(self) -> ScaledPenalties | None:
        """The penalties of scaled variables, where no two meet."""
        found = self.inner.single_penalties
        return None if found is None else ScaledPenalties(found, self.units)

    def at(self, x: Vec, y: Vec, u: Vec, check: Callable[[], None]) -> ScaledSecondOrder | None:
        """Those at a point."""
        s = self.units
        found = self.inner.at(s.x * x, s.y * y, s.y * u, check)
        return None if found is None else ScaledSecondOrder(found, s)


@dataclass(frozen=True, slots=True)
class ScaledPenalties:
    """The growth of penalties, and where they are as strong as the rest, in scaled x."""

    inner: Any
    units: Units

    @property
    def rates(self) -> Array:
        """(n,)."""
        found: Array = self.inner.rates * self.units.x.numpy()
        return found

    def beside(self, x: Vec, y: Vec) -> tuple[Array, Array]:
        """(n,) both; the sizes are those of terms of f, in any units."""
        s = self.units
        centre, size = self.inner.beside(s.x * x, s.y * y)
        return centre / s.x.numpy(), size


@dataclass(frozen=True, slots=True)
class ScaledSecondOrder:
    """Second derivatives at a point, in scaled variables."""

    inner: Any
    units: Units

    def f_yx(self) -> Array:
        """(m, n)."""
        found: Array = self.units.y.numpy()[:, None] * self.inner.f_yx() * self.units.x.numpy()
        return found

    def reduced(self, R: Array) -> Array:
        """``[I R'] L'' [I; R]`` for R in scaled variables."""
        x, y = self.units.x.numpy(), self.units.y.numpy()
        found: Array = x[:, None] * self.inner.reduced(y[:, None] * R / x) * x
        return found


def scaled_set(domain: ProductSet, size: Vec) -> ProductSet:
    """The set of all ``z / size`` with z in the domain; sizes are equal within each ball and 1 on
    simplices.
    """
    blocks = []
    for b in domain.blocks:
        own = size[b.start : b.stop]
        lower = None if b.lower is None else b.lower / own
        upper = None if b.upper is None else b.upper / own
        radius = None if b.radius is None else b.radius / own[:: b.size]
        blocks.append(replace(b, lower=lower, upper=upper, radius=radius))
    return ProductSet(blocks, domain.dim)


Span = tuple[int, int]


def by_block(spans: Sequence[Span], sizes: Sequence[float], dim: int) -> Vec:
    """A vector that has on every span the nearest power of 2 of its size."""
    out = torch.ones(dim, dtype=torch.float64)
    for (start, stop), size in zip(spans, sizes, strict=True):
        out[start:stop] = size
    return powers_of_two(out)


def powers_of_two(sizes: Vec) -> Vec:
    """The nearest powers of 2."""
    return torch.exp2(torch.log2(sizes).round())
