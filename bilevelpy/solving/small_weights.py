"""Upper variables under which the kinks of a lower level weigh least: a start for sparse models.

F has no slope in a weight that holds its variable at 0: a variable that a descent sets to 0 stays
there, and F(x, y(x)) has as many local minima as there are sets of variables. A run from weights
under which no variable is 0 goes by many more of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.errors import BackendError
from bilevelpy.lowering.group_norms import group_parts

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor

# How far from the start of the model towards the ends of ranges: weights of 0 would leave responses
# open.
FAR = 0.99


def with_small_weights(oracle: TorchOracle, x: Vec, y: Vec) -> dict[str, Any] | None:
    """The upper variables at a point where weights are small; None where no y is 0 at (x, y), where
    one upper variable moves all of them, or where there are no weights with ends.
    """
    if oracle.n < 2 or bool(y.all()):
        return None
    try:
        parts = group_parts(oracle)
    except BackendError:  # norms of another form
        return None
    if parts is None or not oracle.domain_x.is_box:
        return None
    groups, single = parts.weights(x)
    slope = parts.slope_of_weights(x, torch.ones_like(groups), torch.ones_like(single))
    end = torch.where(slope > 0.0, oracle.domain_x.lower, oracle.domain_x.upper)
    moves = (slope != 0.0) & torch.isfinite(end)
    if not bool(moves.any()):
        return None
    start = oracle.x0
    point = torch.where(moves, start + FAR * (end - start), x)
    return oracle.unflatten_x(oracle.domain_x.project(point))
