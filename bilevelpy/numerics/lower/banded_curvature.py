"""f_yy as a band with a border: read off a few products, factorised by LAPACK's banded Cholesky."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg.lapack import dpbtrf, dpbtrs

from bilevelpy.analysis.probing.banded import stored
from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import RIDGES, Cholesky, cholesky
from bilevelpy.numerics.lower.dense_curvature import NEGATIVE, DenseCurvature

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.bands import Bands

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]


class BandedCurvature(DenseCurvature):
    """:class:`DenseCurvature` of sparse Hessians; faces are those of boxes.

    With the band B, the border C and its own block E::

        H = [B C; C' E],   S = E - C' B^-1 C

    a solve takes the factors of B and S. One Hessian is ``bands.products`` products; its factor
    takes p (w + 1)^2 operations for p variables and w diagonals.
    """

    __slots__ = (
        "_band",
        "_bands",
        "_border",
        "_corner",
        "_inner",
        "_outer",
        "_ridge",
        "_shield",
    )

    def __init__(self, bands: Bands, *, constant: bool = False) -> None:
        super().__init__(constant=constant)
        self._bands = bands
        self._band: Array | None = None
        self._border = np.zeros((0, 0))
        self._corner = np.zeros((0, 0))
        self._inner: Array | None = None
        self._outer: Cholesky | None = None
        self._shield = np.zeros((0, 0))
        self._ridge = 0.0

    def refresh(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Evaluate the entries at (x, y)."""
        self.rent, self.place = 0.0, (x, y)
        if self._band is not None and getattr(oracle, "hessian_is_constant", False):
            return
        known, product = self._bands, oracle.hvp(x, y)
        values = np.empty(known.rows.size)
        for c, where in enumerate(known.classes):
            unit = torch.zeros_like(y)
            unit[torch.from_numpy(where)] = 1.0
            column = product(unit).numpy()[known.order]
            own = known.owner == c
            values[own] = column[known.rows[own]]
        self._band = values
        columns = []
        for k in known.border:
            unit = torch.zeros_like(y)
            unit[int(k)] = 1.0
            columns.append(product(unit).numpy())
        full = np.array(columns).reshape(-1, y.numel()).T
        self._border, self._corner = full[known.order], full[known.border]
        self.H = torch.from_numpy(values)
        self.face = None

    def settle(self, face: Face) -> bool:
        """Factorise on ``face``; variables held at bounds get the row of the identity."""
        if self.face is not None and self.face.same_as(face):
            return self._inner is not None
        known, values = self._bands, self._band
        assert values is not None
        self.face, self._inner = face, None
        border, corner = self._border, 0.5 * (self._corner + self._corner.T)
        size = known.order.size
        fixed = np.zeros(size, dtype=bool)
        if face.free is not None:
            free = face.free.numpy()
            fixed, out = ~free[known.order], ~free[known.border]
            values = np.where(fixed[known.rows] | fixed[known.columns], 0.0, values)
            border = np.where(fixed[:, None] | out, 0.0, border)
            corner = np.where(out[:, None] | out, 0.0, corner) + np.diag(out.astype(float))
        band = stored(known.rows, known.columns, values, known.width, size)
        band[0, fixed] = 1.0
        top = float(np.abs(band[0]).max(initial=0.0))
        if not (np.isfinite(top) and np.isfinite(values).all() and np.isfinite(border).all()):
            return False
        top = top or 1.0
        for relative in RIDGES:
            shifted = band.copy()
            shifted[0] += relative * top
            inner, info = dpbtrf(shifted, lower=1, overwrite_ab=1)
            if info != 0 or not float(inner[0].min(initial=np.inf)) ** 2 > 1e-15 * top:
                continue
            if not border.shape[1]:
                self._inner, self._outer, self._ridge = inner, None, relative
                return True
            shield = dpbtrs(inner, border, lower=1)[0]
            schur = corner + relative * top * np.eye(len(corner)) - border.T @ shield
            outer = cholesky(torch.from_numpy(0.5 * (schur + schur.T)))
            if outer is not None:
                self._inner, self._outer, self._shield = inner, outer, shield
                self._ridge = max(relative, outer.relative_ridge)
                return True
        return False

    def solve(self, v: Vec) -> Vec:
        """Inverse of the matrix on the face, applied to its part of ``v``."""
        assert self._inner is not None
        assert self.face is not None
        known, free = self._bands, self.face.free
        array = (v if free is None else v * free).numpy()
        out = np.empty_like(array)
        inside = dpbtrs(self._inner, array[known.order], lower=1)[0]
        if self._outer is not None:
            rest = array[known.border] - self._shield.T @ array[known.order]
            outside = self._outer.solve(torch.from_numpy(rest)).numpy()
            inside = inside - self._shield @ outside
            out[known.border] = outside
        out[known.order] = inside
        found = torch.from_numpy(out)
        return found if free is None else found * free

    @property
    def negative(self) -> bool:
        """Whether it needed so large a ridge that the Hessian must have negative curvature."""
        return self._ridge > NEGATIVE
