"""Sets with a cheap projection: products of free, box, simplex, ball and semidefinite blocks, and
the faces of such a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from bilevelpy.lowering.domains import psd
from bilevelpy.lowering.domains.faces import BallFace, Block, Face, SimplexFace

__all__ = ["WEAK", "Block", "Face", "ProductSet", "SimplexFace", "project_simplex"]

Vec = torch.Tensor

# An entry counts as lying on a bound within this fraction of the bound's own size: projections put
# it there exactly.
ON_BOUND = 1e-12
# Parts of a whole of 1 that are rounding: where they come and go, slopes have no sign.
ROUNDING = 1e-15
# Simplices whose sums may cross the parts of a Hessian: each costs a solve, and a dense row.
FEW_SUMS = 64
# A multiplier below this fraction of the gradient's size is called weakly active: a kink of the
# response.
WEAK = 1e-8


class ProductSet:
    """The product of blocks that cover R^dim; entries that no block names are free.

    ``lower`` and ``upper`` hold the bounds that each entry has by itself (0 and 1 on a simplex,
    the radius on a ball, 0 on the diagonal of a semidefinite matrix, infinities where there is
    none).
    """

    __slots__ = (
        "_arrays",
        "_clips",
        "_floor",
        "_high",
        "_low",
        "_roof",
        "balls",
        "blocks",
        "dim",
        "is_box",
        "is_free",
        "is_nearly_box",
        "lower",
        "matrices",
        "simplices",
        "upper",
    )

    def __init__(self, blocks: Sequence[Block], dim: int) -> None:
        self.blocks = tuple(blocks)
        self.dim = dim
        self.simplices = tuple(b for b in self.blocks if b.kind == "simplex" and b.count)
        self.balls = tuple(b for b in self.blocks if b.kind == "ball" and b.count)
        self.matrices = tuple(b for b in self.blocks if b.kind == "psd" and b.count and b.size)
        self._floor = torch.full((dim,), -math.inf, dtype=torch.float64)
        self._roof = torch.full((dim,), math.inf, dtype=torch.float64)
        for b in self.blocks:
            if b.kind == "box":
                if b.lower is not None:
                    self._floor[b.start : b.stop] = b.lower
                if b.upper is not None:
                    self._roof[b.start : b.stop] = b.upper
        self._clips = bool((self._floor > -math.inf).any() or (self._roof < math.inf).any())
        # Entries up to these lines lie on their bounds; infinite bounds hold nothing.
        low = self._floor + ON_BOUND * self._floor.abs().clamp(min=1e-300)
        high = self._roof - ON_BOUND * self._roof.abs().clamp(min=1e-300)
        self._low = torch.where(self._floor > -math.inf, low, -math.inf)
        self._high = torch.where(self._roof < math.inf, high, math.inf)
        # The same as arrays, and what may move: short vectors cost a third in NumPy.
        floor, roof = self._floor.numpy(), self._roof.numpy()
        self._arrays = floor, roof, self._low.numpy(), self._high.numpy(), floor < roof
        self.is_box = not self.simplices and not self.balls and not self.matrices
        self.is_free = self.is_box and not self._clips
        plain = not self.balls and not self.matrices
        self.is_nearly_box = plain and sum(b.count for b in self.simplices) <= FEW_SUMS
        self.lower, self.upper = self._floor.clone(), self._roof.clone()
        for b in self.simplices:
            self.lower[b.start : b.stop], self.upper[b.start : b.stop] = 0.0, 1.0
        for b in self.balls:
            radius = _radius(b).expand(b.count, b.size).flatten()
            self.lower[b.start : b.stop], self.upper[b.start : b.stop] = -radius, radius
        for b in self.matrices:
            for k in range(b.count):
                first = b.start + k * b.size
                self.lower[first : first + b.size : b.side + 1] = 0.0

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of blocks present; a box without any finite bound is free."""
        found: set[str] = {b.kind for b in self.blocks if b.kind in ("simplex", "ball", "psd")}
        if self._clips:
            found.add("box")
        covered = torch.zeros(self.dim, dtype=torch.bool)
        for b in (*self.simplices, *self.balls, *self.matrices):
            covered[b.start : b.stop] = True
        bounded = (self._floor > -math.inf) | (self._roof < math.inf)
        if bool((~covered & ~bounded).any()):
            found.add("free")
        return frozenset(found)

    def project(self, z: Vec) -> Vec:
        """Euclidean projection of ``z``; leading axes are batch axes. Returns ``z`` itself where
        nothing binds.
        """
        if self.is_free:
            return z
        if self.is_box and not z.requires_grad:
            floor, roof, *_ = self._arrays
            return torch.from_numpy(np.minimum(np.maximum(z.numpy(), floor), roof))
        out = torch.minimum(torch.maximum(z, self._floor), self._roof) if self._clips else z.clone()
        for b in self.simplices:
            project = _project_rows if z.dim() == 1 and not z.requires_grad else project_simplex
            out[..., b.start : b.stop] = project(b.rows(z)).flatten(-2)
        for b in self.balls:
            rows = b.rows(z)
            norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
            shrink = torch.where(norm > _radius(b), _radius(b) / norm, torch.ones_like(norm))
            out[..., b.start : b.stop] = (rows * shrink).flatten(-2)
        for b in self.matrices:
            out[..., b.start : b.stop] = psd.project(b.rows(z), b.side).flatten(-2)
        return out

    def violation(self, z: Vec) -> float:
        """Largest entry of ``z - project(z)``; 0 for a member."""
        if self.is_free or not self.dim:
            return 0.0
        return float((z - self.project(z)).abs().max())

    def contains(self, z: Vec, tol: float = 1e-12) -> bool:
        """Whether the violation is at most ``tol`` on the scale of ``z``."""
        return self.violation(z) <= tol * max(1.0, float(z.abs().max()) if self.dim else 1.0)

    def projected_gradient(self, z: Vec, g: Vec) -> Vec:
        """Minus the projection of ``-g`` onto the tangent cone at ``z``: zero exactly at a
        stationary point.

        Unlike ``z - project(z - g)`` it mixes no units of ``z`` with those of ``g``. On a box this
        is the reduced gradient.
        """
        if self.is_free:
            return g
        if self.is_box:
            zs, gs = z.numpy(), g.numpy()
            below, above = zs <= self._arrays[2], zs >= self._arrays[3]
            if not np.count_nonzero(below | above):
                return g
            return torch.from_numpy(np.where((below & (gs > 0)) | (above & (gs < 0)), 0.0, gs))
        low, high = self._at_bounds(z)
        out = g.masked_fill((low & (g > 0)) | (high & (g < 0)), 0.0)
        for b in self.simplices:
            v = -b.rows(g)
            zero = b.rows(z) <= ON_BOUND
            out[b.start : b.stop] = -_simplex_cone(v, zero).flatten()
        for b in self.balls:
            rows, y = b.rows(g), b.rows(z)
            normal, active = _sphere(b, y)
            along = (rows * normal).sum(-1, keepdim=True)
            outward = active & (along < 0)
            out[b.start : b.stop] = torch.where(outward, rows - along * normal, rows).flatten()
        for b in self.matrices:
            out[b.start : b.stop] = psd.projected_gradient(b.rows(z), b.rows(g), b.side).flatten()
        return out

    def projected_gradient_norm(self, z: Vec, g: Vec) -> float:
        """Norm of :meth:`projected_gradient`."""
        return float(torch.linalg.vector_norm(self.projected_gradient(z, g)))

    def sums(self) -> np.ndarray:
        """The rows of the sums of simplices, which are 1."""
        rows = []
        for b in self.simplices:
            for k in range(b.count):
                row = np.zeros(self.dim)
                row[b.start + k * b.size : b.start + (k + 1) * b.size] = 1.0
                rows.append(row)
        return np.array(rows).reshape(len(rows), self.dim)

    def face(self, z: Vec, g: Vec, tol: float = WEAK) -> Face:
        """The face on which ``z`` stays when it follows ``-g``.

        A constraint belongs to it when ``z`` lies on it and the multiplier is at least ``-tol`` on
        the scale of ``g``; those within ``tol`` of zero are counted as weak.
        """
        if self.is_free:
            return Face(self.dim, None)
        if self.is_box:
            return self._box_face(z.numpy(), g.numpy(), tol)
        slack = tol * float(g.abs().max()) if self.dim else 0.0
        low, high = self._at_bounds(z)
        held = (low & (g >= -slack)) | (high & (g <= slack))
        weak = int((held & (g.abs() <= slack) & (self._floor < self._roof)).sum())
        simplices, balls = [], []
        for b in self.simplices:
            y, rows = b.rows(z).numpy(), b.rows(g).numpy()
            # Entries sum to 1: the price is the mean gradient on the support.
            price = (y * rows).sum(-1, keepdims=True)
            out = (y <= ON_BOUND) & (rows - price >= -slack)
            weak += int((out & (np.abs(rows - price) <= slack)).sum())
            held[b.start : b.stop] = torch.from_numpy(out.reshape(-1))
            support = (~out).astype(np.float64)
            members = np.maximum(support.sum(-1, keepdims=True), 1.0)
            simplices.append(SimplexFace(b, torch.from_numpy(support), torch.from_numpy(members)))
        for b in self.balls:
            normal, active = _sphere(b, b.rows(z))
            multiplier = -(b.rows(g) * normal).sum(-1, keepdim=True)
            active = active & (multiplier >= -slack)
            weak += int((active & (multiplier.abs() <= slack)).sum())
            if bool(active.any()):
                curvature = torch.where(
                    active, multiplier.clamp(min=0.0) / _radius(b), torch.zeros_like(multiplier)
                )
                balls.append(BallFace(b, normal * active, curvature))
        matrices = []
        for b in self.matrices:
            made, touching = psd.face(b.start, b.rows(z), b.rows(g), b.side, slack, tol)
            matrices.append(made)
            weak += touching
        free = ~held if bool(held.any()) else None
        return Face(self.dim, free, tuple(simplices), tuple(balls), weak, tuple(matrices))

    def _box_face(self, z: np.ndarray, g: np.ndarray, tol: float) -> Face:
        """:meth:`face` of a box."""
        _, _, lower, upper, movable = self._arrays
        low, high = z <= lower, z >= upper
        if not np.count_nonzero(low | high):
            return Face(self.dim, None)
        sizes = np.abs(g)
        slack = tol * float(np.maximum.reduce(sizes))
        held = (low & (g >= -slack)) | (high & (g <= slack))
        weak = held & (sizes <= slack) & movable
        free = torch.from_numpy(~held) if np.count_nonzero(held) else None
        return Face(self.dim, free, weak=int(np.count_nonzero(weak)))

    def level(self, z: Vec, g: Vec) -> Vec:
        """``g`` without what the set holds against it: slopes of small moves from z are the same
        but for terms of second order, and prices do not hide them behind their rounding.

        That is the price ``z'g`` of each simplex, and on spheres and faces of cones what the
        projected gradient leaves out.
        """
        if self.is_box:
            return g
        out = self.projected_gradient(z, g) if self.balls or self.matrices else g.clone()
        for b in self.blocks:
            if b.kind not in ("ball", "psd"):
                out[b.start : b.stop] = g[b.start : b.stop]
        for b in self.simplices:
            rows = b.rows(g)
            price = (b.rows(z) * rows).sum(-1, keepdim=True)
            out[b.start : b.stop] = (rows - price).flatten()
        return out

    def longest_step(self, z: Vec, p: Vec) -> float:
        """Largest ``t`` with ``z + t p`` inside the bounds of boxes and simplices and with the
        positive eigenvalues of matrices (balls are left to the projection).
        """
        if self.is_free:
            return math.inf
        room = torch.where(p < 0, self._floor - z, self._roof - z)
        for b in self.simplices:
            room[b.start : b.stop] = torch.where(
                p[b.start : b.stop] < 0, -z[b.start : b.stop], math.inf
            )
        steps = torch.where(p != 0, room / p, math.inf)
        reach = float(steps[p != 0].min()) if bool((p != 0).any()) else math.inf
        for b in self.matrices:
            reach = min(reach, psd.longest_step(b.rows(z), b.rows(p), b.side))
        return reach

    def _at_bounds(self, z: Vec) -> tuple[Vec, Vec]:
        """Masks of the entries that lie on their lower and on their upper bound (boxes only)."""
        return z <= self._low, z >= self._high


def _radius(b: Block) -> Vec:
    """The radii of a ball block as a column."""
    if b.radius is None:
        raise ValueError("a ball block needs a radius")
    return b.radius.reshape(b.count, 1)


def _sphere(b: Block, y: Vec) -> tuple[Vec, Vec]:
    """Unit normals of the rows of ``y``, and which rows lie on the sphere."""
    norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    active = norm >= _radius(b) * (1 - 1e-10)
    return torch.where(active, y / norm.clamp(min=1e-300), torch.zeros_like(y)), active


def project_simplex(rows: Vec) -> Vec:
    """Projection of every row onto the unit simplex, by sorting: ``max(v - tau, 0)`` with the sum
    1.
    """
    ordered = torch.sort(rows, dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1.0
    ranks = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype)
    keep = (ordered * ranks > excess).sum(-1, keepdim=True).clamp(min=1)
    tau = excess.gather(-1, keep - 1) / keep
    return (rows - tau).clamp(min=0.0)


def _project_rows(rows: Vec) -> Vec:
    """:func:`project_simplex` by NumPy, for rows without batch axes."""
    v = rows.numpy()
    ordered = -np.sort(-v, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    ranks = np.arange(1, v.shape[1] + 1)
    keep = np.maximum((ordered * ranks > excess).sum(1, keepdims=True), 1)
    tau = np.take_along_axis(excess, keep - 1, axis=1) / keep
    out = v - tau
    out[out <= ROUNDING] = 0.0
    return torch.from_numpy(out)


def _simplex_cone(v: Vec, zero: Vec) -> Vec:
    """Projection of rows onto ``{d : sum d = 0, d >= 0 where zero}``, by the breakpoints of tau.

    ``d = v - tau`` on the support and ``max(v - tau, 0)`` on the zeros; the sum falls as tau grows.
    """
    support = (~zero).to(v.dtype)
    base, members = (v * support).sum(-1, keepdim=True), support.sum(-1, keepdim=True)
    ordered = torch.sort(torch.where(zero, v, -math.inf), dim=-1, descending=True).values
    usable = torch.isfinite(ordered)
    top = torch.where(usable, ordered, torch.zeros_like(ordered)).cumsum(-1)
    ranks = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype)
    taus = torch.where(usable, (base + top) / (members + ranks), torch.full_like(top, math.inf))
    # With the k largest zeros freed tau is taus[k-1]; k is right while the k-th value still
    # exceeds that tau.
    keep = (usable & (ordered > taus)).sum(-1, keepdim=True)
    chosen = torch.cat([base / members.clamp(min=1.0), taus], dim=-1).gather(-1, keep)
    d = v - chosen
    return torch.where(zero, d.clamp(min=0.0), d)
