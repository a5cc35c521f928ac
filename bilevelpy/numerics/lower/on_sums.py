"""Curvature on faces of simplices: entries that move while the sums of their groups stay."""

from __future__ import annotations

from dataclasses import replace

import torch

from bilevelpy.lowering.domains.product import Face, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import Cholesky, cholesky
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature

Vec = torch.Tensor


class OnSums(DenseCurvature):
    """A curvature on boxes, with the sums of a few simplices E that cross its blocks or bands::

        H z + E' p = v,  E z = 0:     z = H^-1 v - W (E W)^-1 E H^-1 v,   W = H^-1 E'

    One solve per simplex for a face.
    """

    __slots__ = ("_base", "_cross", "_gram", "_sums")

    def __init__(self, base: DenseCurvature) -> None:
        super().__init__(constant=base.constant)
        self._base = base
        self._sums = self._cross = torch.zeros(0, 0, dtype=torch.float64)
        self._gram: Cholesky | None = None

    def refresh(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Evaluate the Hessian at (x, y)."""
        before = self._base.H
        self._base.refresh(oracle, x, y)
        self.H, self.rent, self.place = self._base.H, 0.0, (x, y)
        if self.H is not before:
            self.face = None

    def settle(self, face: Face) -> bool:
        """Factorise on ``face`` unless that is done; False where the Hessian is not finite."""
        if self.face is not None and self.face.same_as(face):
            return self._gram is not None
        self.face, self._gram = face, None
        if not self._base.settle(replace(face, simplices=())):
            return False
        self._sums = face.sums()
        self._cross = torch.stack([self._base.solve(e) for e in self._sums], -1)
        gram = self._sums @ self._cross
        self._gram = cholesky(0.5 * (gram + gram.T))
        return self._gram is not None

    def solve(self, v: Vec) -> Vec:
        """Inverse of the curvature on the face, applied to the tangent part of ``v``."""
        assert self._gram is not None
        assert self.face is not None
        z = self._base.solve(v)
        return self.face.project(z - self._cross @ self._gram.solve(self._sums @ z))

    @property
    def negative(self) -> bool:
        """Whether the Hessian must have negative curvature."""
        return self._base.negative


def within(domain: ProductSet, index: Vec) -> bool:
    """Whether every simplex lies in one of the blocks ``index`` (B, q), on boxes otherwise."""
    if domain.balls or domain.matrices:
        return False
    block = torch.empty(domain.dim, dtype=torch.int64)
    block[index] = torch.arange(index.shape[0]).unsqueeze(1)
    return all(
        bool((rows == rows[:, :1]).all())
        for b in domain.simplices
        for rows in (block[b.start : b.stop].reshape(b.count, b.size),)
    )
