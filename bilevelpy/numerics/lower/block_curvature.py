"""f_yy of a lower level that falls into independent blocks: one small matrix each, factorised as a
batch.

The blocks come from the terms of f where it has this form, else by as many products as one block
has variables, each with the unit vectors of all blocks at once; a thousand followers cost as many
products as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.lowering.domains.faces import normals, on_tangent
from bilevelpy.lowering.domains.product import Face, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import RIDGES
from bilevelpy.numerics.lower.banded_curvature import BandedCurvature
from bilevelpy.numerics.lower.dense_curvature import NEGATIVE, DenseCurvature
from bilevelpy.numerics.lower.grouped import SupportCurvature, is_grouped
from bilevelpy.numerics.lower.halves import HalvesCurvature, is_split
from bilevelpy.numerics.lower.on_sums import OnSums, within

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.bands import Bands

Vec = torch.Tensor


# Sizes of blocks up to which their inverses, which take two to four solves, are worth it.
SMALL = 50


class BlockCurvature(DenseCurvature):
    """:class:`DenseCurvature` in blocks; faces are those of boxes, and of simplices within a block.

    ``index`` (B, q) holds the positions of each block's variables in y.
    """

    __slots__ = ("_blocks", "_factor", "_index", "_inverse", "_ridge")

    def __init__(self, index: Vec, *, constant: bool = False) -> None:
        super().__init__(constant=constant)
        self._index = index
        self._blocks: Vec | None = None
        self._factor: Vec | None = None
        # Of small blocks: a product is several times faster than two substitutions.
        self._inverse: np.ndarray | None = None
        self._ridge = 0.0

    def refresh(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Evaluate the blocks at (x, y): from their terms where the oracle has them, else by q
        products.
        """
        made = getattr(oracle, "block_hessian", None)
        if made is not None:
            blocks = made.dense(x, y)
        else:
            product = oracle.hvp(x, y)
            columns = []
            for where in self._index.T:
                unit = torch.zeros_like(y)
                unit[where] = 1.0
                columns.append(product(unit)[self._index])
            blocks = torch.stack(columns, -1)
            blocks = 0.5 * (blocks + blocks.transpose(1, 2))
        self.H = self._blocks = blocks
        self.face = None
        self.rent, self.place = 0.0, (x, y)

    def settle(self, face: Face) -> bool:
        """Factorise on ``face``; variables held at bounds get the row of the identity."""
        if self.face is not None and self.face.same_as(face):
            return self._factor is not None
        blocks = self._blocks
        assert blocks is not None
        self.face, self._factor, self._inverse = face, None, None
        if face.free is not None:
            mask = face.free[self._index].to(blocks.dtype)
            blocks = blocks * mask.unsqueeze(1) * mask.unsqueeze(2)
            blocks = blocks + torch.diag_embed(1.0 - mask)
        top = blocks.diagonal(dim1=1, dim2=2).abs().amax(1)
        if not bool(torch.isfinite(top).all()):
            return False
        top = torch.where(top > 0, top, 1.0)
        if face.simplices:
            blocks = on_tangent(blocks, normals(face.owners()[self._index]), top[:, None, None])
        eye = torch.eye(blocks.shape[1], dtype=blocks.dtype)
        for relative in RIDGES:
            shift = (relative * top)[:, None, None] * eye
            factor, failed = _cholesky(blocks + shift if relative else blocks)
            pivots = factor.diagonal(dim1=1, dim2=2).amin(1) ** 2
            if not bool(failed.any()) and bool((pivots > 1e-15 * top).all()):
                self._factor, self._ridge = factor, relative
                return True
        return False

    def solve(self, v: Vec) -> Vec:
        """Inverse of every block, applied to its part of ``v``."""
        assert self._factor is not None
        assert self.face is not None
        face, index = self.face, self._index.numpy()
        rows = (v if face.is_whole else face.project(v)).numpy()[index]
        if self._inverse is None and index.shape[1] <= SMALL:
            self._inverse = _inverse(self._factor).numpy()
        out = np.zeros(v.numel())
        if self._inverse is not None and index.shape[1] == 1:
            out[index] = self._inverse[..., 0] * rows
        elif self._inverse is not None:
            out[index] = np.matmul(self._inverse, rows[..., None])[..., 0]
        else:
            columns = torch.from_numpy(rows).unsqueeze(-1)
            out[index] = torch.cholesky_solve(columns, self._factor).squeeze(-1).numpy()
        found = torch.from_numpy(out)
        return found if face.is_whole else face.project(found)

    @property
    def negative(self) -> bool:
        """Whether some block needed so large a ridge that it must have negative curvature."""
        return self._ridge > NEGATIVE


def _cholesky(blocks: Vec) -> tuple[Vec, Vec]:
    """The factors, and which blocks have none: batches of single numbers need no LAPACK."""
    if blocks.shape[1] == 1:
        return blocks.clamp(min=0.0).sqrt(), ~(blocks > 0.0)
    factor, info = torch.linalg.cholesky_ex(blocks)
    return factor, info


def _inverse(factor: Vec) -> Vec:
    """The inverses of the blocks."""
    if factor.shape[1] == 1:
        return factor.square().reciprocal()
    return torch.cholesky_inverse(factor)


def curvature_of(oracle: Any, *, constant: bool = False, borrows: bool = False) -> DenseCurvature:
    """Blocks or a band where the oracle has them, the support's part in halves and groups, else
    one dense matrix; that one may begin with what it ``borrows``.
    """
    if is_grouped(oracle):
        return SupportCurvature(constant=constant)
    if is_split(oracle):
        return HalvesCurvature(constant=constant)
    found = _in_parts(oracle, oracle.domain_y, constant)
    return DenseCurvature(constant=constant, borrows=borrows) if found is None else found


def comes_in_parts(oracle: Any) -> bool:
    """Whether the Hessian has blocks or a band that its set respects."""
    return _in_parts(oracle, oracle.domain_y, False) is not None


def _in_parts(oracle: Any, domain: ProductSet, constant: bool) -> DenseCurvature | None:
    index = getattr(oracle, "blocks", None)
    if index is not None and within(domain, index):
        return BlockCurvature(index, constant=constant)
    if not domain.is_nearly_box:
        return None
    bands: Bands | None = getattr(oracle, "bands", None)
    if index is not None:
        base: DenseCurvature = BlockCurvature(index, constant=constant)
    elif bands is not None:
        base = BandedCurvature(bands, constant=constant)
    else:
        return None
    return OnSums(base) if domain.simplices else base
