"""x and y as the variables of one upper optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.scaled import scaled_set

Vec = torch.Tensor
# Sizes of x and y that differ by less are left as they are.
ALIKE = 30.0


def product_set(one: ProductSet, two: ProductSet) -> ProductSet:
    """The product of two sets."""
    moved = [replace(b, start=b.start + one.dim) for b in two.blocks]
    return ProductSet([*one.blocks, *moved], one.dim + two.dim)


class Joint:
    """What the upper optimizer asks of an oracle, for the variables ``w = (x / unit, y)``, or ``(x
    / unit, y, z)`` with z in ``more``.
    """

    def __init__(self, oracle: Oracle, more: ProductSet | None = None, unit: float = 1.0) -> None:
        self.oracle, self.more, self.unit = oracle, more, unit
        self.domain_x = self._domain()
        self.n, self.m = self.domain_x.dim, oracle.m
        self.domain_y = oracle.domain_y
        self.counts: Counts = oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign

    def _domain(self) -> ProductSet:
        size = torch.full((self.oracle.n,), self.unit, dtype=torch.float64)
        both = product_set(scaled_set(self.oracle.domain_x, size), self.oracle.domain_y)
        return both if self.more is None else product_set(both, self.more)

    def carried(self) -> dict[str, Any]:
        """The unit, which is of the point where the penalty began."""
        return {"unit": self.unit}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The set is one of that unit."""
        unit = known["unit"]
        if not isinstance(unit, float) or not 0.0 < unit < math.inf:
            raise ValueError("a unit is a positive number")
        self.unit = unit
        self.domain_x = self._domain()

    def f(self, w: Vec, y: Vec) -> float:
        """The lower objective."""
        return self.oracle.f(self.upper(w), y)

    def upper(self, w: Vec) -> Vec:
        """The part x of w."""
        return self.unit * w[: self.oracle.n]


def upper_unit(oracle: Oracle, x: Vec, y: Vec) -> float:
    """The unit of x beside y: 1, or the size of x where it is another one (prices in EUR beside
    pieces). Gradients in x and in y are compared with one another, and those of the larger
    variables are the smaller ones.

    The size of x is the width of its box, or that of its start if it is larger than y: a start near
    zero says nothing.
    """
    if oracle.domain_x.simplices or oracle.domain_x.matrices or not oracle.n:
        return 1.0
    width = oracle.domain_x.upper - oracle.domain_x.lower
    beside = norm(y) / math.sqrt(max(y.numel(), 1)) or 1.0
    if bool(torch.isfinite(width).all()):
        size = norm(width) / math.sqrt(oracle.n)
    else:
        size = max(norm(x) / math.sqrt(oracle.n), beside)
    ratio = size / beside
    if not 0.0 < ratio < math.inf or 1.0 / ALIKE <= ratio <= ALIKE:
        return 1.0
    return 2.0 ** round(math.log2(ratio))
