"""Shadow prices of the rows of the lower level at a response, for those who are told of them.

A price is the derivative of the follower's optimal value, in the sense it is written in, by the
right-hand side of the row as it is written; of data at both ends of a row, by the end that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.ir.types import Relation, Sense
from bilevelpy.numerics.rows.fitted_adjoint import FittedAdjoint

if TYPE_CHECKING:
    from bilevelpy.ir.program import Constraint
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


def shadow_prices(oracle: TorchOracle, x: Vec, y: Vec) -> dict[str, Array]:
    """``level.constraint`` -> the prices, of the shape of the constraint, by multipliers that are
    fitted at a response of convex followers; none where they are not unique.
    """
    if not oracle.g.size or not oracle.domain_y.is_nearly_box:
        return {}
    multipliers = FittedAdjoint(oracle, affine=True).prices(x, y)
    if multipliers is None:
        return {}
    found = dict[str, Array]()
    for part, sign in zip(oracle.g.rows, price_signs(oracle), strict=True):
        c = part.constraint
        shape = tuple(oracle.bound.data.sizes[a] for a in c.axes)
        prices = found.setdefault(f"{part.level}.{c.name}", np.zeros(shape))
        prices += sign * multipliers[part.start : part.stop].numpy().reshape(shape)
    return found


def price_signs(oracle: TorchOracle) -> list[float]:
    """For every relation of a lower row: the price per multiplier of ``c <= 0`` or ``c == 0``."""
    program, signs = oracle.bound.program, []
    sign_of = {v.name: -1.0 if v.sense is Sense.MAXIMIZE else 1.0 for v in program.lowers}
    for part in oracle.g.rows:
        c = part.constraint
        sign = 1.0 if c.relations[part.part] is Relation.GE else -1.0
        if part.part == 0 and _is_range(oracle, c):
            sign = -sign  # its left-hand side is the end
        signs.append(sign * sign_of[part.level])
    return signs


def _is_range(oracle: TorchOracle, constraint: Constraint) -> bool:
    """Whether a row has data at both ends."""
    is_data, terms = oracle.bound.program.builder.is_data, constraint.terms
    return len(constraint.relations) == 2 and is_data(terms[0]) and is_data(terms[2])
