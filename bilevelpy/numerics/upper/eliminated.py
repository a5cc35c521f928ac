"""Quadratic upper levels on quadratic lower ones: y is eliminated, and one Newton step solves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.sparse.linalg import splu

from bilevelpy.numerics.upper.pieces import LARGEST as LARGEST_IN_PIECES
from bilevelpy.numerics.upper.pieces import InPieces

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.joint_quadratic import JointQuadratic
    from bilevelpy.lowering.hessians.sparse_quadratic import SparseQuadratic
    from bilevelpy.numerics.lower.quadratic import QuadraticLower
    from bilevelpy.numerics.lower.response import Point

Array = np.ndarray[Any, np.dtype[np.float64]]
Solve = Callable[[Array], Array | None]
# Variables of either level up to which dy/dx, a column for each upper one, costs less than steps.
LARGEST = 600
# Upper variables, and entries of dy/dx, up to which a sparse factor of f_yy alone costs less than
# one of the joint conditions.
FEW, ENTRIES = 200, 2_000_000
# Where R and Phi'' take as long as so many quasi-Newton steps, these come first until they have
# taken as long: fewer are often enough. In operations of products of matrices, a step takes so many
# for its Python alone, and for each entry of f_yy, which products with vectors read from memory.
ENOUGH, STEP, READ = 10, 8e6, 70.0
# Residuals of the sparse system that a step may have, relative to its right-hand side.
SOLVED = 1e-6


def eliminated(oracle: Any, lower: QuadraticLower) -> Eliminated | InPieces | None:
    """Newton's step for Phi where it is a quadratic, with bounds below one in pieces."""
    size = max(oracle.n, oracle.m)
    if size > (LARGEST if oracle.domain_y.is_free else LARGEST_IN_PIECES):
        return None
    known: JointQuadratic | None = getattr(oracle, "joint_quadratic", None)
    if known is None:
        return None
    if oracle.domain_y.is_free:
        steps = int(_price(oracle.n, oracle.m) / (STEP + READ * oracle.m**2))
        waiting = steps if steps > ENOUGH else 0
        return Eliminated(known, lambda: lower.columns(known.f_yx), waiting)
    if not oracle.domain_x.is_box:
        return None
    return InPieces(known, lower, oracle.domain_x.lower.numpy(), oracle.domain_x.upper.numpy())


def _price(n: int, m: int) -> float:
    """Operations for R, for the products of it that Phi'' is made of, and for a factor."""
    return 4.0 * m * m * n + 2.0 * n * n * m + n**3 / 3.0


class Elimination:
    """``Phi''^-1 g`` on the free upper variables, by a factor that is kept while these are the
    same.
    """

    def __init__(self) -> None:
        self._known: tuple[bytes, Solve | None] | None = None

    def factor(self, free: np.ndarray | slice) -> Solve | None:
        """What solves with Phi'' on some variables; None where that cannot be done."""
        raise NotImplementedError

    def step(self, point: Point, g: Array, free: np.ndarray | None) -> Array | None:
        """On the free upper variables, 0 elsewhere; None where Phi'' has no inverse to offer."""
        key = b"" if free is None else free.tobytes()
        if self._known is None or self._known[0] != key:
            self._known = (key, self.factor(slice(None) if free is None else np.flatnonzero(free)))
        solve = self._known[1]
        found = None if solve is None else solve(g if free is None else g[free])
        if found is None or free is None:
            return found
        out = np.zeros_like(g)
        out[free] = found
        return out

    def reset(self) -> None:
        """The factor is right whatever its step led to."""

    def collect(self, trial: Callable[[], Point]) -> None:
        """So it is whatever F is elsewhere."""

    def carried(self) -> dict[str, Any]:
        """Nothing: the matrix is that of the problem."""
        return {}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """It is computed where it is asked for."""


class Eliminated(Elimination):
    """With ``R = dy/dx = -f_yy^-1 f_yx``; R and Phi'', which has to be positive definite, are
    computed once in a run, after ``waiting`` points that are left to other steps.
    """

    def __init__(
        self,
        known: JointQuadratic | SparseQuadratic,
        columns: Callable[[], Array | None],
        waiting: int = 0,
    ) -> None:
        super().__init__()
        self.known, self.columns, self.waiting = known, columns, waiting
        self._matrix: Array | None = None

    def step(self, point: Point, g: Array, free: np.ndarray | None) -> Array | None:
        """The same, once it is worth its price."""
        if self.waiting > 0:
            self.waiting -= 1
            return None
        return super().step(point, g, free)

    def carried(self) -> dict[str, Any]:
        """How long it still waits."""
        return {"waiting": self.waiting}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As it was."""
        self.waiting = int(known["waiting"])

    def factor(self, free: np.ndarray | slice) -> Solve | None:
        """A Cholesky factor."""
        if self._matrix is None:
            R = self.columns()
            if R is None:
                return None
            self._matrix = self.known.reduced(R)
        H = self._matrix[free][:, free]
        factor, failed = dpotrf(H, lower=1, clean=0) if len(H) else (H, 1)
        return None if failed else lambda g: dpotrs(factor, g, lower=1)[0]


def eliminated_sparsely(oracle: Any) -> Elimination | None:
    """The same for large sparse levels, where f_yy is a narrow band."""
    if getattr(oracle, "bands", None) is None or not oracle.domain_y.is_free:
        return None
    known: SparseQuadratic | None = getattr(oracle, "sparse_quadratic", None)
    if known is None:
        return None
    if oracle.n <= FEW and oracle.n * oracle.m <= ENTRIES:
        return Eliminated(known, lambda: _sparse_columns(known))
    return SparseElimination(known)


def _sparse_columns(known: SparseQuadratic) -> Array | None:
    """``dy/dx = -f_yy^-1 f_yx``; None where f_yy is singular."""
    try:
        factor = splu(
            known.f_yy.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
        )
    except RuntimeError:  # exactly singular
        return None
    found: Array = -factor.solve(known.f_yx.toarray())
    return found if np.isfinite(found).all() else None


class SparseElimination(Elimination):
    """From the joint conditions, whose factor stays sparse where Phi'' does not::

        [F_xx  F_xy  f_xy] [dx]   [g]
        [F_yx  F_yy  f_yy] [dy] = [0]
        [f_yx  f_yy   0  ] [ v]   [0]

    The last rows say that y is the response.
    """

    def __init__(self, known: SparseQuadratic) -> None:
        super().__init__()
        self.known = known

    def factor(self, free: np.ndarray | slice) -> Solve | None:
        """A sparse factor of the joint conditions; a solve is refined once."""
        q = self.known
        across, xy = q.f_yx[:, free], q.xy[free]
        K = sp.block_array(
            [
                [q.xx[free][:, free], xy, across.T],
                [xy.T, q.yy, q.f_yy.T],
                [across, q.f_yy, None],
            ],
            format="csc",
        )
        try:
            factor = splu(K, permc_spec="COLAMD")
        except RuntimeError:  # exactly singular
            return None

        def solve(g: Array) -> Array | None:
            rhs = np.zeros(K.shape[0])
            rhs[: g.size] = g
            found = factor.solve(rhs)
            found += factor.solve(rhs - K @ found)
            if not np.linalg.norm(rhs - K @ found) <= SOLVED * np.linalg.norm(rhs):
                return None
            return np.ascontiguousarray(found[: g.size])

        return solve
