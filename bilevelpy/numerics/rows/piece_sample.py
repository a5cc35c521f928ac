"""F and the rows of the upper level on the pieces of the response around a point.

At a kink several pieces meet, each with derivatives of its own; on one of them F has the second
derivative of :mod:`bilevelpy.lowering.hessians.reduced_curvature`, exactly where the rows of the
lower level are affine in both levels together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.sequential import Sample
from bilevelpy.numerics.qp.rows import Held, Sides
from bilevelpy.numerics.qp.saddle import saddle
from bilevelpy.numerics.rows.piece import Piece, ahead_at, piece_of
from bilevelpy.numerics.rows.response import ConstrainedLower
from bilevelpy.numerics.upper.newton import definite

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Upper variables, and entries of the derivatives of the response, up to which pieces are made.
LARGEST, ENTRIES = 500, 2_000_000
# Curvatures below this fraction of the largest one are taken for it.
FLAT = 1e-8
# Directions below this singular value depend on the others.
DEPENDENT = 1e-10


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

    def ahead(self, piece: Piece, x: Vec) -> Array | None:
        """How far the ends of a piece are away at x, with what holds the response on it."""
        return ahead_at(self.solver, piece, self.held, x - self.here.x, x)

    @property
    def is_known(self) -> bool:
        """Whether there is a second derivative."""
        order = getattr(self.solver.oracle, "priced_order", None)
        return self.solver.is_affine and order is not None and math.isfinite(order.passes)

    @property
    def is_bent(self) -> bool:
        """Whether ends of pieces may be other than affine."""
        return getattr(self.solver.oracle, "joint_quadratic", None) is None

    def curvature(
        self, piece: Piece, weights: Array, pushes: Array | None = None, fixed: Array | None = None
    ) -> Array | None:
        """The second derivative of ``F + w'G - p'e`` on a piece, for pushes p at its ends e, made
        positive definite; None where it is not known.

        Moduli take the place of negative eigenvalues: along the ends that are pushed at and the
        variables of x that are ``fixed``, and across them.
        """
        found = self.second(piece, weights, pushes)
        if found is None:
            return None
        found = 0.5 * (found + found.T)
        if pushes is None or fixed is None or not np.isfinite(found).all():
            return definite(found, FLAT)
        held = np.concatenate([piece.within.slopes[pushes > 0.0], np.eye(len(found))[fixed]])
        size = np.linalg.norm(held, axis=1, keepdims=True)
        basis, sizes, _ = np.linalg.svd((held / np.maximum(size, 1e-300)).T)
        rank = int((sizes > DEPENDENT).sum())
        total = np.zeros_like(found)
        for part in (basis[:, :rank], basis[:, rank:]):
            own = definite(part.T @ found @ part, FLAT)
            if own is not None:
                total += part @ own @ part.T
        return definite(total, FLAT)

    def second(self, piece: Piece, weights: Array, pushes: Array | None = None) -> Array | None:
        """The second derivative itself."""
        if not self.is_known:
            return None
        w = weights[: len(self.C_x)]
        both = getattr(self.solver.oracle, "joint_quadratic", None)
        if both is not None and not w[~self.solver.straight].any():
            return np.asarray(both.reduced(piece.R))
        return self._priced(piece, w, np.zeros(len(piece.member)) if pushes is None else pushes)

    def _priced(self, piece: Piece, w: Array, p: Array) -> Array | None:
        """The same for any functions.

        Ends are variables, rows, their prices, and slopes of the Lagrangian, all of them functions
        of the response and the prices: the adjoint is that of F less their multiples.
        """
        o, sides = self.solver.oracle, piece.sides
        rows = self.solver.rows(self.here.x)
        count, A = len(rows.low), rows.A
        free = np.flatnonzero(sides.bounds == 0)
        active = np.flatnonzero((sides.rows != 0) | rows.equal)
        right, prices, u = self.F_y + w @ self.C_y, np.zeros(count), np.zeros(o.m)
        pushed = np.flatnonzero(p)
        for member, after, push in zip(
            piece.member[pushed], piece.after[pushed], p[pushed], strict=True
        ):
            if member >= count and after != 0:  # y - floor, roof - y
                right[member - count] += after * push
            elif member >= count:  # -side (f_y + A' l)
                u[member - count] = -push * sides.bounds[member - count]
            elif after != 0:  # -c
                right = right + push * A[member]
            else:  # l
                prices[member] -= push
        stuck = np.flatnonzero(u)
        right = right - self.H[:, stuck] @ u[stuck]
        prices = prices - A[:, stuck] @ u[stuck]
        solved = saddle(self.H, A, free, active, right[free], prices[active], nearest=True)
        assert solved is not None
        u[free] = solved[0]
        check = getattr(o, "check_deadline", lambda: None)
        y = torch.from_numpy(self.held.y)
        found = o.priced_order.at(
            self.here.x, y, torch.from_numpy(u), check, torch.from_numpy(w.copy())
        )
        if found is None:
            return None
        return np.asarray(found.reduced(piece.R))
