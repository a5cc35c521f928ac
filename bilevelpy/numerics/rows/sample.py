"""F and the rows of the upper level along the responses of a lower level with rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.sequential import Kinds, Sample
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.response import NO_SOLUTION
from bilevelpy.numerics.rows.feasibility_cuts import Cut, cut_at
from bilevelpy.numerics.rows.response import FLOOR, ConstrainedLower

Vec = torch.Tensor

# Points beyond one without a response, in parts of the way to it.
BEYOND = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5)


@dataclass(slots=True)
class RowsSampler:
    """Samples for :mod:`bilevelpy.numerics.cones.sequential`, by one solver that begins where the
    last response was held::

        dc/dx = c_x - L_xy u - A_x' r,    u, r of the KKT system with c_y on its right

    for F and every row c of the upper level, by one factorisation. Where the lower rows cannot be
    met, the row in x that they imply is one of the ``cuts``, and of the samples' rows once it is
    ``adopted``: behind those of the model.
    """

    solver: ConstrainedLower
    cuts: list[Cut] = field(default_factory=list)
    adopted: int = 0
    # The latest x with a response.
    inside: Vec | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether there are cuts that are not adopted."""
        return len(self.cuts) > self.adopted

    def __call__(self, oracle: Any, x: Vec, y: Vec) -> Sample | None:
        """Everything at the response to x, from y; None where there is no response."""
        lower = self.solver.respond(x, y, replace(FLOOR))
        if lower.ended == "infeasible":
            self.learn(oracle, x, self.inside)
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
        made = Sample(
            x, y, F, slope, rows, slopes, own, norm(y) * heights, parts, lower.residual,
            lower.face.weak > 0,
        )  # fmt: skip
        self.inside = x
        return with_cuts(oracle, made, self.cuts[: self.adopted])

    def learn(self, oracle: Any, x: Vec, inside: Vec | None) -> None:
        """The row that x breaks, if none of those known says so; where x lies too near to the edge
        to tell, one that points beyond it do, seen from a point ``inside``.
        """
        if any(cut.value(oracle, x) > 0.0 for cut in self.cuts):
            return
        for t in BEYOND if inside is not None else BEYOND[:1]:
            cut = cut_at(oracle, x if inside is None else inside + t * (x - inside))
            if cut is not None:
                self.cuts.append(cut)
                return


def with_cuts(oracle: Any, at: Sample, cuts: Sequence[Cut]) -> Sample:
    """The sample with the rows of cuts behind its own."""
    if not cuts:
        return at
    values = torch.tensor([c.value(oracle, at.x) for c in cuts], dtype=torch.float64)
    slopes = torch.stack([c.slope(oracle, at.x) for c in cuts])
    own = torch.cat([at.own, torch.linalg.vector_norm(slopes, dim=1)])
    return replace(
        at,
        rows=torch.cat([at.rows, values]),
        slopes=torch.cat([at.slopes, slopes]),
        own=own,
        heights=torch.cat([at.heights, torch.zeros(len(cuts), dtype=torch.float64)]),
    )


def kinds_with_cuts(kinds: Kinds, count: int) -> Kinds:
    """The kinds with those of so many cuts: inequalities that steps may not break for long."""
    still = np.zeros(count, dtype=bool)
    return Kinds(np.concatenate([kinds.equality, still]), np.concatenate([kinds.plain, still]))
