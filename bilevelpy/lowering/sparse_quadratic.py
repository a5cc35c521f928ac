"""Both objectives quadratic in x and y together, and large: their second derivatives as sparse
matrices of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import scipy.sparse as sp

from bilevelpy.lowering.joint_quadratic import second_product
from bilevelpy.lowering.sparsity import matrix

if TYPE_CHECKING:
    from bilevelpy.lowering.programs import Programs


@dataclass(frozen=True, slots=True, eq=False)
class SparseQuadratic:
    """``f_yy`` (m, m), ``f_yx`` (m, n), and of F the second derivatives ``xx``, ``xy``, ``yy``."""

    f_yy: sp.csr_array
    f_yx: sp.csr_array
    xx: sp.csr_array
    xy: sp.csr_array
    yy: sp.csr_array


def sparse_quadratic(oracle: Programs, f_yy: sp.csr_array) -> SparseQuadratic | None:
    """The matrices beside a given f_yy; None where the objectives are dense or of another kind."""
    xs, ys, z = oracle.xs, oracle.ys, (*oracle.xs, *oracle.ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    own = second_product(oracle, oracle.F_expr, z, z)
    if mixed is None or own is None or not (mixed.is_constant and own.is_constant):
        return None
    builder, data, n = oracle.bound.program.builder, oracle.bound.data, oracle.n
    f_yx = matrix(builder, data, mixed.roots, mixed.along)
    F = matrix(builder, data, own.roots, own.along)
    if f_yx is None or F is None:
        return None
    return SparseQuadratic(f_yy, f_yx, F[:n, :n], F[:n, n:], F[n:, n:])
