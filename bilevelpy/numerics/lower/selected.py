"""The lower solution that is best for the leader: ``f + w F`` with a small weight w in the place
of f.
"""

from __future__ import annotations

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.blended import Blended

Vec = torch.Tensor

# The weight makes the curvature of F this fraction of that of f: small, for the response moves by
# about as much; but the leader's choice must stay above rounding, and conjugate gradients must
# still end.
WEIGHT, WEIGHT_LARGE = 1e-8, 1e-5


class Selected(Blended):
    """The problem of an oracle whose lower objective is ``f + w F``.

    Where f has many minimisers and F tells them apart, this one has the one that the leader
    prefers, up to O(w) [Liu2020]_; where it has one, that moves by O(w) only.
    """

    def __init__(self, oracle: Oracle, weight: float, size: float) -> None:
        super().__init__(oracle, 1.0, weight, size or 1.0)


def weight_for(oracle: Oracle, x: Vec, y: Vec, bend: float, size: float, large: bool) -> float:
    """The weight of F beside f: :data:`WEIGHT` in the units of both.

    Curvatures are compared along the gradient of F in y, where that exists; of an F that is linear
    in y the slope over the ``size`` of y is.
    """
    F_y = oracle.grad_F(x, y)[1]
    slope = norm(F_y)
    v = F_y / slope if slope > 0.0 else torch.ones_like(y) / max(oracle.m, 1) ** 0.5
    curved = abs(dot(v, Selected(oracle, 0.0, size).upper(x, y)(v)[0]))
    reference = max(curved, slope / (size or 1.0))
    share = WEIGHT_LARGE if large else WEIGHT
    return share * (bend or 1.0) / reference if reference > 0.0 else share * (bend or 1.0)
