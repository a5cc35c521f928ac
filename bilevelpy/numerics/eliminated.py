"""Quadratic upper levels on quadratic lower ones: y is eliminated, and one Newton step solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.sparse.linalg import splu

if TYPE_CHECKING:
    from bilevelpy.lowering.joint_quadratic import JointQuadratic
    from bilevelpy.lowering.sparse_quadratic import SparseQuadratic
    from bilevelpy.numerics.quadratic_lower import QuadraticLower

Array = np.ndarray[Any, np.dtype[np.float64]]
# Variables of either level up to which dy/dx, a column for each upper one, costs less than steps.
LARGEST = 600
# Residuals of the sparse system that a step may have, relative to its right-hand side.
SOLVED = 1e-6


def eliminated(oracle: Any, lower: QuadraticLower) -> Eliminated | None:
    """Newton's step for Phi where it is a quadratic: without bounds below, which make it one in
    pieces only, with local minima that longer steps pass over.
    """
    if max(oracle.n, oracle.m) > LARGEST or not oracle.domain_y.is_free:
        return None
    known: JointQuadratic | None = getattr(oracle, "joint_quadratic", None)
    return None if known is None else Eliminated(known, lower)


@dataclass(slots=True)
class Eliminated:
    """``Phi''^-1 g``, with ``R = dy/dx = -f_yy^-1 f_yx`` and Phi'' computed once in a run."""

    known: JointQuadratic
    lower: QuadraticLower
    _matrix: Array | None = None
    _factor: tuple[bytes, Array | None] | None = None

    def step(self, g: Array, free: np.ndarray | None) -> Array | None:
        """On the free upper variables, 0 elsewhere; None where Phi'' is not positive definite."""
        if self._matrix is None:
            R = self.lower.columns(self.known.f_yx)
            if R is None:
                return None
            self._matrix = self.known.reduced(R)
        key = b"" if free is None else free.tobytes()
        if self._factor is None or self._factor[0] != key:
            H = self._matrix if free is None else self._matrix[np.ix_(free, free)]
            factor, failed = dpotrf(H, lower=1, clean=0) if len(H) else (H, 1)
            self._factor = (key, None if failed else factor)
        factor = self._factor[1]
        if factor is None:
            return None
        found: Array = dpotrs(factor, g if free is None else g[free], lower=1)[0]
        if free is None:
            return found
        out = np.zeros_like(g)
        out[free] = found
        return out


def eliminated_sparsely(oracle: Any) -> SparseElimination | None:
    """The same for large sparse levels, where f_yy is a narrow band."""
    if getattr(oracle, "bands", None) is None or not oracle.domain_y.is_free:
        return None
    units = getattr(oracle, "units", None)
    plain = oracle if units is None else oracle.oracle
    known: SparseQuadratic | None = getattr(plain, "sparse_quadratic", None)
    if known is None:
        return None
    return SparseElimination(known, np.ones(oracle.n) if units is None else units.x.numpy())


@dataclass(slots=True)
class SparseElimination:
    """``Phi''^-1 g`` from the joint conditions, whose factor stays sparse where Phi'' does not::

        [F_xx  F_xy  f_xy] [dx]   [g]
        [F_yx  F_yy  f_yy] [dy] = [0]
        [f_yx  f_yy   0  ] [ v]   [0]

    ``sizes`` are the units of x: with ``x = sizes z`` the gradient by z is ``sizes g``.
    """

    known: SparseQuadratic
    sizes: Array
    _factor: tuple[bytes, Any, Any] | None = None

    def step(self, g: Array, free: np.ndarray | None) -> Array | None:
        """On the free upper variables, 0 elsewhere; None where the system is singular."""
        key = b"" if free is None else free.tobytes()
        if self._factor is None or self._factor[0] != key:
            q, own = self.known, np.arange(g.size) if free is None else np.flatnonzero(free)
            across, xy = q.f_yx[:, own], q.xy[own]
            K = sp.block_array(
                [
                    [q.xx[own][:, own], xy, across.T],
                    [xy.T, q.yy, q.f_yy.T],
                    [across, q.f_yy, None],
                ],
                format="csc",
            )
            try:
                self._factor = (key, K, splu(K, permc_spec="COLAMD"))
            except RuntimeError:  # exactly singular
                self._factor = (key, K, None)
        _, K, factor = self._factor
        if factor is None:
            return None
        rhs = np.zeros(K.shape[0])
        sizes = self.sizes if free is None else self.sizes[free]
        part = (g if free is None else g[free]) / sizes
        rhs[: part.size] = part
        found = factor.solve(rhs)
        found += factor.solve(rhs - K @ found)
        if not np.linalg.norm(rhs - K @ found) <= SOLVED * np.linalg.norm(rhs):
            return None
        step: Array = found[: part.size] / sizes
        if free is None:
            return step
        out = np.zeros_like(g)
        out[free] = step
        return out
