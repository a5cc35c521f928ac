"""Projection onto ``{w in W: A w <= b, == b}``: joint sets of both levels' linear constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.errors import BackendError
from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.numerics.linear_solve import unit
from bilevelpy.numerics.qp.two_sided import solve_two_sided
from bilevelpy.numerics.rows.multipliers import ConstraintRows

Vec = torch.Tensor

# A point this far from the plane of a row, relative to its size, is off it.
AFFINE = 1e-9


class Polyhedron:
    """The points ``(x, y)`` of a product of boxes that meet affine constraints.

    Closed form for equations and for a single inequality over free variables, else a convex
    quadratic program (Clarabel).
    """

    def __init__(self, rows: ConstraintRows, domain: ProductSet, n: int, start: Vec) -> None:
        if not domain.is_box:
            raise BackendError(
                "projections onto joint constraints take bounds, not simplices or balls"
            )
        self.domain, self.equality = domain, rows.equality
        zero = torch.zeros_like(start)
        product = rows.vjp(zero[:n], zero[n:])
        self.A = torch.stack([torch.cat(product(unit(rows.size, i))) for i in range(rows.size)])
        self.b = -rows.values(zero[:n], zero[n:])
        self._check(rows, n, start)
        one = bool(self.equality.all()) or rows.size == 1
        self._gram = torch.linalg.pinv(self.A @ self.A.T) if one and domain.is_free else None

    def _check(self, rows: ConstraintRows, n: int, start: Vec) -> None:
        """Raise where the rows are not affine in x and y together."""
        rng = torch.Generator().manual_seed(0)
        size = 1.0 + float(start.abs().max())
        for _ in range(2):
            w = start + size * torch.randn(start.numel(), generator=rng, dtype=torch.float64)
            seen = rows.values(w[:n], w[n:])
            size = float((self.A.abs() @ w.abs() + self.b.abs()).max())
            if not float((self.A @ w - self.b - seen).abs().max()) <= AFFINE * max(size, 1.0):
                raise BackendError(
                    "this backend projects onto the constraints of the lower level, which must be "
                    "affine in the variables of both levels together"
                )

    def project(self, w: Vec) -> Vec:
        """The nearest point."""
        off = self.A @ w - self.b
        if self._gram is not None:
            if not bool(self.equality[0]):
                off = off.clamp(min=0.0)
            near: Vec = w - self.A.T @ (self._gram @ off)
            return near
        inside = torch.where(self.equality, off.abs(), off) <= 0.0
        if bool(inside.all()) and self.domain.contains(w, 0.0):
            return w
        return torch.from_numpy(self._nearest(w.numpy()))

    def _nearest(self, w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """``min |v - w|^2 / 2`` over the set."""
        equal = self.equality.numpy()
        A, b = self.A.numpy(), self.b.numpy()
        low, high = self.domain.lower.numpy(), self.domain.upper.numpy()
        eye = sp.eye_array(w.size, format="csr")
        found = solve_two_sided(
            eye,
            -w,
            sp.vstack([sp.csr_array(A), eye]),
            np.concatenate([np.where(equal, b, -np.inf), low]),
            np.concatenate([b, high]),
            1e-11,
        )
        if "Infeasible" in found.status:
            raise BackendError("no point meets the constraints of the lower level and all bounds")
        return np.asarray(np.clip(found.values, low, high))
