"""A dense Hessian of the lower level whose Cholesky factor is kept until it stops paying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bilevelpy.lowering.domains.faces import on_tangent
from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import (
    Cholesky,
    Operator,
    PseudoInverse,
    cholesky,
    pseudo_inverse,
)
from bilevelpy.numerics.lower.krylov import offered

Vec = torch.Tensor

# A ridge above this fraction of the largest diagonal entry means curvature that is negative, not
# just lost.
NEGATIVE = 1e-6
# Up to this size a singular matrix gets its spectral inverse, beyond it a small ridge.
SPECTRAL = 1000


def invert(A: Vec) -> Cholesky | PseudoInverse | None:
    """Cholesky factor, or the spectral inverse of a matrix that is singular but not indefinite."""
    factor = cholesky(A)
    if factor is not None and 0.0 < factor.relative_ridge <= NEGATIVE and A.shape[0] <= SPECTRAL:
        return pseudo_inverse(A)
    return factor


class DenseCurvature:
    """f_yy at some earlier point with its factor on a face: exact where f_yy is constant, else a
    good inverse.

    On a face the matrix is ``P (H + C) P + s (I - P)`` with the tangent projector P and the
    curvature C of active balls; entries that are held have no part in it on other faces.
    """

    __slots__ = (
        "H",
        "base",
        "borrows",
        "constant",
        "face",
        "factor",
        "followed",
        "index",
        "lent",
        "place",
        "rent",
        "sums",
    )

    def __init__(self, *, constant: bool = False, borrows: bool = False) -> None:
        self.constant = constant
        # Whether it may begin with the preconditioner that f's form gives, and that one: the first
        # factors of a run are of points that it soon leaves.
        self.borrows = borrows and not constant
        self.lent: Operator | None = None
        # Products that the age of the factor has cost: once they are worth a new one, it is made.
        self.rent = 0.0
        self.H: Vec | None = None
        # Where it was evaluated.
        self.place: tuple[Vec, Vec] | None = None
        # What it was there, and the point that its elementwise terms have followed to since.
        self.base: Vec | None = None
        self.followed: tuple[Vec, Vec] | None = None
        self.face: Face | None = None
        self.factor: Cholesky | PseudoInverse | None = None
        # Of entries that may move: their positions, and the directions of the sums that they keep.
        self.index: Vec | None = None
        self.sums: Vec | None = None

    def borrow(self, oracle: Oracle, x: Vec, y: Vec) -> bool:
        """Do without a Hessian as long as none has paid; False where there is no other way."""
        if not self.borrows or self.H is not None or not oracle.domain_y.is_free:
            return False
        self.lent = offered(oracle, x, y)
        return self.lent is not None

    def refresh(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Evaluate the Hessian at (x, y)."""
        H = oracle.hessian(x, y)
        self.rent, self.place, self.lent = 0.0, (x, y), None
        self.base, self.followed = H, None
        if H is self.H:  # constant: its factor stays good
            return
        self.H = H
        self.face = None

    def follow(self, oracle: Any, x: Vec, y: Vec) -> None:
        """Bring the terms of the matrix that cost no pass over data to another point: penalties
        with weights in x move most where x does.
        """
        moved = getattr(oracle, "moved_hessian", None)
        if moved is None or self.base is None or self.place is None:
            return
        H = moved(self.base, self.place, (x, y))
        if H is not None:
            self.H, self.followed, self.face = H, (x, y), None

    def settle(self, face: Face) -> bool:
        """Factorise on ``face`` unless that is done; False where the Hessian is not finite."""
        if self.lent is not None:
            return True
        if self.face is not None and self.face.same_as(face):
            return self.factor is not None
        H = self.H
        assert H is not None
        self.face, self.index, self.sums = face, None, None
        if face.is_whole:
            self.factor = invert(H)
            return self.factor is not None
        middle = float(H.diagonal().abs().mean()) or 1.0
        if face.is_curved:
            eye = torch.eye(H.shape[0], dtype=H.dtype)
            inner = face.project(face.project(H + face.bend(eye)).T.contiguous())
            self.factor = invert(0.5 * (inner + inner.T) + middle * (eye - face.project(eye)))
            return self.factor is not None
        if face.free is not None:
            self.index = face.free.nonzero().squeeze(1)
            H = H[self.index][:, self.index]
        if face.simplices:
            sums = face.sums()
            sums = sums if self.index is None else sums[:, self.index]
            self.sums = sums / sums.sum(1, keepdim=True).sqrt()
            H = on_tangent(H, self.sums, middle)
        self.factor = invert(H)
        return self.factor is not None

    def solve(self, v: Vec) -> Vec:
        """Inverse of the curvature on the face, applied to the tangent part of ``v``."""
        if self.lent is not None:
            return self.lent(v)
        factor, face = self.factor, self.face
        assert factor is not None
        assert face is not None
        if face.is_curved:
            return face.project(factor.solve(face.project(v)))
        part = v if self.index is None else v[self.index]
        if self.sums is not None:
            part = part - (self.sums @ part) @ self.sums
        part = factor.solve(part)
        if self.sums is not None:
            part = part - (self.sums @ part) @ self.sums
        if self.index is None:
            return part
        out = torch.zeros_like(v)
        out[self.index] = part
        return out

    @property
    def negative(self) -> bool:
        """Whether the factor needed so large a ridge that the Hessian must have negative
        curvature.
        """
        return self.factor is not None and self.factor.relative_ridge > NEGATIVE

    def carried(self) -> dict[str, Any]:
        """Where the matrix was evaluated; itself and its factor are computed again."""
        return {
            "place": self.place,
            "followed": self.followed,
            "face": self.face,
            "rent": self.rent,
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same matrix with its factor on the same face."""
        self.H = self.face = None
        if known["place"] is not None:
            self.refresh(oracle, *known["place"])
            if known["followed"] is not None:
                self.follow(oracle, *known["followed"])
            if known["face"] is not None:
                self.settle(known["face"])
        self.rent = float(known["rent"])
