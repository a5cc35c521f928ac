"""Whether a convex follower with affine rows has other responses, and what F is along them.

All responses of a convex follower are one convex set. From a response y it goes on along the
directions d in which neither f nor its slope changes and no row that is tight stops::

    H d = 0,   g'd <= 0,   A_equal d = 0,   A_tight d <= 0,   d_j of the sign that a bound leaves

with g and H the slope and the Hessian of f at y (O. L. Mangasarian, "A simple characterization of
solution sets of convex programs", Operations Research Letters 7, 1988). For a quadratic f there
are no others; for any f there is none where only 0 is left. Multipliers are not needed, so that it
does not matter whether they are unique.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import linprog

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.rows.fitted_adjoint import ACTIVE

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# What a direction may leave of its equations, which have entries of 1; the ends of a cone in a box
# of length 1 are longer than this, what the former leaves alone is shorter.
LEFT, LONG = 1e-9, 0.5
# A function changes along directions where its slope there is more than this part of its own.
SLOPE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """A polyhedron of directions: ``equal d = 0``, ``below d <= 0``, ``low <= d <= high``."""

    equal: Any
    below: Any
    low: Array
    high: Array

    @classmethod
    def at(
        cls,
        H: Array,
        g: Array,
        equal: Array,
        tight: Array,
        at_floor: Mask,
        at_roof: Mask,
    ) -> Directions:
        """Those along the responses of a follower with Hessian H and slope g, equations and tight
        rows (each a row of a matrix), from a point whose variables lie at bounds where the masks
        say so.
        """
        slope = g / max(float(np.abs(g).max(initial=0.0)), 1e-300)
        return cls(
            _scaled(np.concatenate([H, equal])),
            _scaled(np.concatenate([tight, slope[None]])),
            np.where(at_floor, 0.0, -1.0),
            np.where(at_roof, 0.0, 1.0),
        )

    def range(self, along: Array) -> tuple[float, float] | None:
        """The least and the greatest ``along'd`` over entries of size 1; None where that is not
        known.
        """
        ends = [self._least(along), self._least(-along)]
        if ends[0] is None or ends[1] is None:
            return None
        return ends[0], -ends[1]

    def _least(self, along: Array) -> float | None:
        found = linprog(
            along,
            A_ub=self.below,
            b_ub=np.zeros(self.below.shape[0]),
            A_eq=self.equal,
            b_eq=np.zeros(self.equal.shape[0]),
            bounds=np.stack([self.low, self.high], axis=1),
            method="highs",
            options={"primal_feasibility_tolerance": LEFT, "dual_feasibility_tolerance": LEFT},
        )
        if found.status != 0:
            return None
        return float(found.fun) if np.abs(found.x).max(initial=0.0) > LONG else 0.0

    def is_alone(self, rng: np.random.Generator) -> bool:
        """Whether 0 is the only direction: a random weight is 0 on no other cone."""
        weights = rng.standard_normal(len(self.low))
        return self.range(weights) == (0.0, 0.0)


def _scaled(rows: Array) -> Any:
    """The rows without those of zeros, each with a largest entry of 1."""
    size = np.abs(rows).max(axis=1, initial=0.0)
    used = size > 0
    return sp.csr_array(rows[used] / size[used, None])


def along_others(
    oracle: TorchOracle, x: Vec, y: Vec, rng: np.random.Generator
) -> tuple[float, float] | None:
    """The least and the greatest slope of F along other responses to x than y, per entry of size 1
    (0 where it is rounding); None where y is alone. Both are infinite where a row of the upper
    level changes along them: who chooses within the rows may choose F, too.
    """
    o = oracle
    close = ACTIVE * max(norm(y), 1e-3)
    values, _, A = (part.numpy() for part in derivatives(o.g, x, y))
    equal, length = o.g.equality.numpy(), np.linalg.norm(A, axis=1)
    tight = ~equal & (values > -close * np.maximum(length, 1e-300))
    floor, roof = o.domain_y.lower.numpy(), o.domain_y.upper.numpy()
    F_y = o.grad_F(x, y)[1].numpy()
    directions = Directions.at(
        o.hessian(x, y).numpy(),
        o.grad_f(x, y).numpy(),
        np.concatenate([A[equal], o.domain_y.sums()]),
        A[tight],
        y.numpy() <= floor + close,
        y.numpy() >= roof - close,
    )
    if directions.is_alone(rng):
        return None
    low, high = _slopes(directions, F_y)
    for row in derivatives(o.G, x, y)[2].numpy():
        if row.any() and _slopes(directions, row) != (0.0, 0.0):
            low, high = -math.inf, math.inf
    return low, high


def _slopes(directions: Directions, slope: Array) -> tuple[float, float]:
    """The least and the greatest slope of a function along directions, 0 where it is rounding."""
    found, size = directions.range(slope), SLOPE * float(np.abs(slope).sum())
    low, high = (-math.inf, math.inf) if found is None else found
    return (low if low < -size else 0.0), (high if high > size else 0.0)
