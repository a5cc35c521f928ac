"""Both objectives quadratic in x and y together, and large: their second derivatives as sparse
matrices of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.lowering.hessians.joint_quadratic import second_product
from bilevelpy.lowering.hessians.sparsity import linear_map

if TYPE_CHECKING:
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class SparseQuadratic:
    """``f_yy`` (m, m), ``f_yx`` (m, n), and of F the second derivatives ``xx``, ``xy``, ``yy``."""

    f_yy: sp.csr_array
    f_yx: sp.csr_array
    xx: sp.csr_array
    xy: sp.csr_array
    yy: sp.csr_array

    def reduced(self, R: Array) -> Array:
        """``Phi'' = F_xx + F_xy R + R'F_yx + R'F_yy R`` with ``R = dy/dx`` (m, n)."""
        across = self.xy @ R
        found: Array = self.xx.toarray() + across + across.T + R.T @ (self.yy @ R)
        return found

    def scaled(self, x: Array, y: Array) -> SparseQuadratic:
        """The same by variables in units x and y."""
        by_x, by_y = sp.diags_array(x, format="csr"), sp.diags_array(y, format="csr")
        return SparseQuadratic(
            by_y @ self.f_yy @ by_y,
            by_y @ self.f_yx @ by_x,
            by_x @ self.xx @ by_x,
            by_x @ self.xy @ by_y,
            by_y @ self.yy @ by_y,
        )


def sparse_quadratic(oracle: Programs, f_yy: sp.csr_array) -> SparseQuadratic | None:
    """The matrices beside a given f_yy; None where the objectives are dense or of another kind."""
    xs, ys, z = oracle.xs, oracle.ys, (*oracle.xs, *oracle.ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    own = second_product(oracle, oracle.F_expr, z, z)
    if mixed is None or own is None or not (mixed.is_constant and own.is_constant):
        return None
    builder, data, n = oracle.bound.program.builder, oracle.bound.data, oracle.n
    f_yx = linear_map(builder, data, mixed.roots, mixed.along, values=True)
    F = linear_map(builder, data, own.roots, own.along, values=True)
    if f_yx is None or F is None:
        return None
    return SparseQuadratic(f_yy, f_yx, F[:n, :n], F[:n, n:], F[n:, n:])
