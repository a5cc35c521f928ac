"""F and the rows of the upper level along the responses of a lower level with rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.conic_meeting import derivatives
from bilevelpy.numerics.constrained_lower import FLOOR, ConstrainedLower
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.response import NO_SOLUTION
from bilevelpy.numerics.sequential import Sample

Vec = torch.Tensor


@dataclass(slots=True)
class RowsSampler:
    """Samples for :mod:`bilevelpy.numerics.sequential`, by one solver that begins where the last
    response was held::

        dc/dx = c_x - L_xy u - A_x' r,    u, r of the KKT system with c_y on its right

    for F and every row c of the upper level, by one factorisation.
    """

    solver: ConstrainedLower

    def __call__(self, oracle: Any, x: Vec, y: Vec) -> Sample | None:
        """Everything at the response to x, from y; None where there is no response."""
        lower = self.solver.respond(x, y, replace(FLOOR))
        if lower.ended in NO_SOLUTION or lower.ended == "limit":
            return None
        y = lower.y
        F, F_x, F_y = oracle.value_grad_F(x, y)
        rows, C_x, C_y = derivatives(oracle.G, x, y)
        if not (math.isfinite(F) and bool(torch.isfinite(rows).all())):
            return None
        # Rows that do not read y need no adjoint.
        read = np.flatnonzero(C_y.numpy().any(axis=1))
        _, cross = self.solver.along(x, y, np.concatenate([F_y.numpy()[None], C_y.numpy()[read]]))
        slopes = C_x.clone()
        for k, part in zip(read.tolist(), cross[1:], strict=True):
            slopes[k] -= part
        slope = F_x - cross[0]
        if not bool(torch.isfinite(slope).all() and torch.isfinite(slopes).all()):
            return None
        parts = norm(F_x) + norm(cross[0])
        own, heights = (torch.linalg.vector_norm(C, dim=1) for C in (C_x, C_y))
        return Sample(
            x, y, F, slope, rows, slopes, own, norm(y) * heights, parts, lower.residual,
            lower.face.weak > 0,
        )  # fmt: skip
