"""What the first-order backends for lower constraints share."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.rows.multipliers import MultiplierMethod, Scaled

Vec = torch.Tensor

# Accuracy of the response that is returned.
TIGHT = 1e-9


def solved(
    oracle: Oracle, m: Measure, rows: Scaled, multipliers: Vec, rng: torch.Generator
) -> Measure:
    """The measure with its y replaced by the lower solution at its x; as it is where there is none.

    Penalties leave y a little outside its constraints; the method of multipliers does not.
    """
    method = MultiplierMethod(rows, m.y, rng, rows.project(multipliers))
    found = method.solve(oracle, m.x, TIGHT)
    if not math.isfinite(found.f):
        return m
    F = oracle.F(m.x, found.y)
    return replace(m, y=found.y, F=F, f=found.f, lower_residual=found.residual)


def multiplier_set(rows: Scaled, bound: float) -> ProductSet:
    """``[0, bound]`` for inequalities, ``[-bound, bound]`` for equations."""
    top = torch.full((rows.size,), bound, dtype=torch.float64)
    low = torch.where(rows.equality, -top, torch.zeros_like(top))
    return ProductSet([Block("box", 0, 1, rows.size, low, top)], rows.size)


def multipliers_at(rows: Scaled, z: Vec, bound: float) -> Vec:
    """Multipliers brought into that set."""
    return rows.project(z.clamp(-bound, bound))
