"""Blocks of variables with a cheap projection, and the faces of their product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from bilevelpy.lowering.domains import psd

Vec = torch.Tensor
Kind = Literal["free", "box", "simplex", "ball", "psd"]


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` blocks of ``size`` consecutive entries each, from ``start``.

    A box has ``lower`` and ``upper`` of length ``count * size`` (infinities allowed); the entries
    of a simplex block are nonnegative and sum to 1; a ball lies around 0 and has one ``radius``
    per block (length ``count``); a semidefinite block is a square matrix, row by row.
    """

    kind: Kind
    start: int
    count: int
    size: int
    lower: Vec | None = None
    upper: Vec | None = None
    radius: Vec | None = None

    @property
    def stop(self) -> int:
        """One past the last entry."""
        return self.start + self.count * self.size

    @property
    def side(self) -> int:
        """Rows of the matrix in a semidefinite block."""
        return math.isqrt(self.size)

    def rows(self, z: Vec) -> Vec:
        """The entries of this block in ``z`` (last axis), one row per block."""
        return z[..., self.start : self.stop].reshape(*z.shape[:-1], self.count, self.size)


@dataclass(frozen=True, slots=True)
class SimplexFace:
    """Blocks of a simplex whose ``support`` (count, size) may move while its sum stays."""

    block: Block
    support: Vec
    members: Vec  # size of the support, (count, 1)


@dataclass(frozen=True, slots=True)
class BallFace:
    """Blocks on the sphere: unit ``normal`` (zero rows: inside), ``curvature`` = multiplier /
    radius, (count, 1).
    """

    block: Block
    normal: Vec
    curvature: Vec


@dataclass(frozen=True, slots=True)
class Face:
    """The face of a product set that holds a point, with the projector onto its tangent space.

    ``free`` is False where an entry is held at a bound; ``weak`` counts constraints that are
    active with a multiplier of (almost) zero, where the response has a kink.
    """

    dim: int
    free: Vec | None
    simplices: tuple[SimplexFace, ...] = ()
    balls: tuple[BallFace, ...] = ()
    weak: int = 0
    matrices: tuple[psd.PsdFace, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True where the tangent space is all of R^dim."""
        return self.free is None and self.only_fixes

    @property
    def only_fixes(self) -> bool:
        """True where the tangent space is a coordinate subspace."""
        return not self.simplices and not self.is_curved

    @property
    def is_curved(self) -> bool:
        """Whether :meth:`bend` may be other than zero."""
        return bool(self.balls or self.matrices)

    def sums(self) -> Vec:
        """Rows (s, dim) of ones where a simplex has entries that may move."""
        owners = self.owners()
        count = sum(s.block.count for s in self.simplices)
        return (owners == torch.arange(count).unsqueeze(1)).to(torch.float64)

    def owners(self) -> Vec:
        """The number of the simplex whose sum an entry keeps; -1 where it moves alone or not at
        all.
        """
        out = torch.full((self.dim,), -1, dtype=torch.int64)
        first = 0
        for s in self.simplices:
            b = s.block
            own = torch.arange(first, first + b.count).unsqueeze(1)
            out[b.start : b.stop] = torch.where(s.support > 0, own, -1).reshape(-1)
            first += b.count
        return out

    def project(self, v: Vec) -> Vec:
        """Orthogonal projection of ``v`` (last axis) onto the tangent space."""
        if v.dim() == 1 and not self.is_curved and not v.requires_grad:
            return self._project_vector(v)
        if self.free is not None:
            v = v * self.free
        elif not self.only_fixes:
            v = v.clone()
        for s in self.simplices:
            rows = s.block.rows(v)
            mean = rows.sum(-1, keepdim=True) / s.members
            v[..., s.block.start : s.block.stop] = (rows - mean * s.support).flatten(-2)
        for b in self.balls:
            rows = b.block.rows(v)
            along = (rows * b.normal).sum(-1, keepdim=True)
            v[..., b.block.start : b.block.stop] = (rows - along * b.normal).flatten(-2)
        for m in self.matrices:
            v[..., m.start : m.stop] = m.project(v[..., m.start : m.stop])
        return v

    def _project_vector(self, v: Vec) -> Vec:
        """The same for one vector; short ones cost a third in NumPy."""
        if self.free is None and not self.simplices:
            return v
        out = v.numpy() * self.free.numpy() if self.free is not None else v.numpy().copy()
        for s in self.simplices:
            b = s.block
            rows = out[b.start : b.stop].reshape(b.count, b.size)
            rows -= (
                np.add.reduce(rows, axis=1, keepdims=True) / s.members.numpy() * s.support.numpy()
            )
        return torch.from_numpy(out)

    def bend(self, v: Vec) -> Vec:
        """Nothing but the curvature of the face: ``(multiplier / radius) v`` on active balls, ``C
        v`` on matrices of low rank.
        """
        out = torch.zeros_like(v)
        for b in self.balls:
            out[..., b.block.start : b.block.stop] = (b.block.rows(v) * b.curvature).flatten(-2)
        for m in self.matrices:
            out[..., m.start : m.stop] = m.bend(v[..., m.start : m.stop])
        return out

    def same_as(self, other: Face) -> bool:
        """Whether both have the same active constraints (normals of balls and null spaces of
        matrices move with the point).
        """
        if (self.free is None) != (other.free is None) or self.is_curved or other.is_curved:
            return False
        return self.free is None or (other.free is not None and torch.equal(self.free, other.free))


def normals(owners: Vec) -> Vec:
    """Projectors (..., q, q) onto what changes sums: entries ``1 / |group|`` within a group.

    ``owners`` (..., q) holds the group of each entry, negative: none.
    """
    same = owners.unsqueeze(-1) == owners.unsqueeze(-2)
    same &= (owners >= 0).unsqueeze(-1)
    out = same.to(torch.float64)
    return out / out.sum(-1, keepdim=True).clamp(min=1.0)


def on_tangent(H: Vec, rows: Vec, middle: Vec | float) -> Vec:
    """``P H P + middle (I - P)`` with ``P = I - rows' rows``, of symmetric matrices (..., q, q).

    ``rows`` (..., s, q) are orthonormal, or a projector itself.
    """
    down = rows.transpose(-1, -2)
    left = rows @ H
    across = down @ left
    inner = H - across - across.transpose(-1, -2) + down @ (left @ down) @ rows
    return 0.5 * (inner + inner.transpose(-1, -2)) + middle * (down @ rows)
