"""Responses of followers that are convex quadratic programs at every x, whatever x does to their
coefficients: ``exp(c) * sum(losses)``, penalties times squares, rows with products.

With ``f`` quadratic and ``g`` affine in y for fixed x, the program at x is

    min_y  y' f_yy(x, 0) y / 2 + f_y(x, 0)' y    s.t.   g(x, 0) + g_y(x, 0) y  between ends,

and the KKT adjoint is that of :mod:`bilevelpy.numerics.followers.response` with the second
derivatives of the Lagrangian ``f + lam'g`` at the response. Derivatives of f and g are CasADi's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.followers.response import JointResponse, Response
from bilevelpy.numerics.programs.interior_point import expressions, is_installed, library

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Sparse = Any

# Columns and rows up to which functions are compiled entry by entry.
COMPILED = 20_000


class ParametricResponse(JointResponse):
    """As :class:`~bilevelpy.numerics.followers.response.JointResponse`, with coefficients that
    depend on x in any smooth way.
    """

    def __init__(self, system: System) -> None:
        super().__init__(system)
        # Padded batches hold constant Hessians.
        self.batch = None
        ca = library()
        v = ca.SX.sym("v", self.width)
        entries = [v[j] for j in range(self.width)]
        own = self.own.tolist()
        total = ca.sum1(expressions(system.lower_objectives, v, entries))
        body = expressions(system.lower_rows.functions, v, entries)
        weights = ca.SX.sym("w", system.lower_rows.count)
        slope = ca.gradient(total, v)[own]
        lagrangian = ca.gradient(total + ca.dot(weights, body), v)[own]
        self._slope = ca.Function("slope", [v], [slope])
        self._block = ca.Function("block", [v], [ca.jacobian(slope, v[own])])
        self._second = ca.Function("second", [v, weights], [ca.jacobian(lagrangian, v)])

    @staticmethod
    def fits(system: System) -> bool:
        """Whether the followers are of this kind."""
        if any(f.nash for f in system.followers) or bool((system.columns.owner == -1).any()):
            return False
        size = system.columns.count + system.lower_rows.count
        if bool(system.columns.integer.any()) or size > COMPILED or not is_installed():
            return False
        ca = library()
        v = ca.SX.sym("v", system.columns.count)
        entries = [v[j] for j in range(system.columns.count)]
        own = v[system.lower_columns.tolist()]
        total = ca.sum1(expressions(system.lower_objectives, v, entries))
        body = expressions(system.lower_rows.functions, v, entries)
        constant = [ca.vec(ca.hessian(total, own)[0])]
        if system.lower_rows.count:
            # One pass backwards, where a Jacobian takes one for every row.
            weights = ca.SX.sym("w", system.lower_rows.count)
            constant.append(ca.gradient(ca.dot(weights, body), own))
        return not any(ca.depends_on(part, own) for part in constant)

    def slope(self, v: Array) -> Array:
        """The slopes of the followers' objectives in their own variables."""
        return np.asarray(self._slope(v), dtype=float).reshape(-1)

    def block_at(self, v: Array) -> Sparse:
        """Their Hessian in the lower columns."""
        return _matrix(self._block(v))

    def curvature(self, response: Response) -> Sparse:
        """Second derivatives of the Lagrangian: lower columns by all columns."""
        return sp.csr_array(_matrix(self._second(response.values, response.rows)))


def _matrix(found: Any) -> Sparse:
    """A CasADi matrix as one of SciPy."""
    pattern = found.sparsity()
    entries = np.asarray(found.nonzeros(), dtype=float)
    return sp.csc_array((entries, pattern.row(), pattern.colind()), shape=found.shape)
