"""F and the rows of the upper level on the pieces of the response around a point.

At a kink several pieces meet, each with derivatives of its own; on one of them F has the second
derivative of :mod:`bilevelpy.lowering.hessians.reduced_curvature`, exactly where the rows of the
lower level are affine in both levels together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.cones.meeting import derivatives
from bilevelpy.numerics.cones.sequential import Sample
from bilevelpy.numerics.qp.rows import Held, Sides
from bilevelpy.numerics.qp.saddle import saddle
from bilevelpy.numerics.rows.piece import Piece, piece_of
from bilevelpy.numerics.rows.response import ConstrainedLower
from bilevelpy.numerics.upper.newton import definite

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Upper variables, and entries of the derivatives of the response, up to which pieces are made.
LARGEST, ENTRIES = 500, 2_000_000
# Curvatures below this fraction of the largest one are taken for it.
FLAT = 1e-8


@dataclass(slots=True)
class Pieces:
    """The pieces at one point: its response with what holds it, and the derivatives of F and G."""

    solver: ConstrainedLower
    here: Sample
    held: Held
    H: Array
    F_x: Array
    F_y: Array
    C_x: Array
    C_y: Array

    @classmethod
    def at(cls, solver: ConstrainedLower, here: Sample) -> Pieces | None:
        """Those at a point; None where they would be too large."""
        o = solver.oracle
        if o.n > LARGEST or o.n * (2 * o.m + o.g.size) > ENTRIES:
            return None
        held, H = solver.held_at(here.x, here.y)
        y = torch.from_numpy(held.y)
        F_x, F_y = o.grad_F(here.x, y)
        _, C_x, C_y = derivatives(o.G, here.x, y)
        arrays = (v.numpy() for v in (F_x, F_y, C_x, C_y))
        return cls(solver, here, held, H, *arrays)

    def on(self, sides: Sides | None = None) -> tuple[Sample, Piece] | None:
        """The point as one of the piece that the response was found on, or of another."""
        piece = piece_of(self.solver, self.here.x, self.held, self.H, sides)
        if piece is None or not np.isfinite(piece.R).all():
            return None
        slope = self.F_x + self.F_y @ piece.R
        slopes = self.here.slopes.numpy().copy()
        slopes[: len(self.C_x)] = self.C_x + self.C_y @ piece.R
        made = replace(self.here, slope=torch.from_numpy(slope), slopes=torch.from_numpy(slopes))
        return made, piece

    @property
    def is_known(self) -> bool:
        """Whether there may be a second derivative."""
        o = self.solver.oracle
        return self.solver.is_affine and getattr(o, "priced_order", None) is not None

    def curvature(self, piece: Piece, weights: Array) -> Array | None:
        """The second derivative of ``F + w'G`` on a piece, with the moduli of its eigenvalues in
        place of negative ones; None where it is not known.
        """
        found = self.second(piece, weights)
        return None if found is None else definite(0.5 * (found + found.T), FLAT)

    def second(self, piece: Piece, weights: Array) -> Array | None:
        """The second derivative itself."""
        if not self.is_known:
            return None
        w = weights[: len(self.C_x)]
        both = getattr(self.solver.oracle, "joint_quadratic", None)
        if both is not None and not w[~self.solver.straight].any():
            return np.asarray(both.reduced(piece.R))
        return self._priced(piece, w)

    def _priced(self, piece: Piece, w: Array) -> Array | None:
        """The same for any functions."""
        o, sides = self.solver.oracle, piece.sides
        rows = self.solver.rows(self.here.x)
        free = np.flatnonzero(sides.bounds == 0)
        active = np.flatnonzero((sides.rows != 0) | rows.equal)
        right = (self.F_y + w @ self.C_y)[free]
        solved = saddle(self.H, rows.A, free, active, right, np.zeros(active.size), nearest=True)
        assert solved is not None
        u = torch.zeros(o.m, dtype=torch.float64)
        u[torch.from_numpy(free)] = torch.from_numpy(solved[0])
        check = getattr(o, "check_deadline", lambda: None)
        y = torch.from_numpy(self.held.y)
        found = o.priced_order.at(self.here.x, y, u, check, torch.from_numpy(w.copy()))
        if found is None:
            return None
        return np.asarray(found.reduced(piece.R))
