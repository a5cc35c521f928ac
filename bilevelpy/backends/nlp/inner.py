"""Upper variables that no follower reads: chosen anew at every x by a program of their own.

With x = (u, w), where the followers read u alone, and y(u) their responses::

    V(u) = min_w F(u, w, y(u))   s.t.  G(u, w, y(u)) <= 0,  w in its bounds

is what the leader gets from u: epigraph variables of losses, slacks, costs that are passed on. By
the envelope theorem its derivative along the responses is that of ``F + mu'G`` with the multipliers
mu of the program in w, a convex quadratic one that is solved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.followers.response import jacobian_of
from bilevelpy.numerics.qp.two_sided import solve_two_sided
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.scalar import columns

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# A Hessian in w whose least eigenvalue is above minus this fraction of the largest is convex.
CONVEX = 1e-10


@dataclass(slots=True)
class Inner:
    """The program in the columns ``own`` (w) under the upper rows ``rows``; ``kept`` are the upper
    rows that do not read w.
    """

    system: System
    own: Array
    rows: Array
    kept: Array
    hessian: Any

    @classmethod
    def of(cls, system: System) -> Inner | None:
        """The program of a system of polynomials of degree two; None where all upper variables are
        read below, or it is not convex in w.
        """
        own = np.array(
            sorted(set(system.upper_columns.tolist()) - read_below(system)), dtype=np.int64
        )
        if not own.size or bool(system.columns.integer[own].any()):
            return None
        functions = system.upper_rows.functions
        inside = [
            r for r in range(system.upper_rows.count) if functions.reads(r) & set(own.tolist())
        ]
        if system.objective.trees or any(r in functions.trees for r in inside):
            return None
        for r in inside:
            q = functions.quadratic.get(r)
            if q is not None and q[own][:, own].nnz:
                return None
        full = system.objective.quadratic.get(0)
        block = sp.csc_matrix((own.size, own.size))
        if full is not None:
            block = sp.csc_matrix(full[own][:, own])
            block.eliminate_zeros()
            if block.nnz:
                values = np.linalg.eigvalsh(block.toarray())
                if values[0] < -CONVEX * abs(values[-1]):
                    return None
        outside = np.setdiff1d(np.arange(system.upper_rows.count), inside)
        return cls(system, own, np.array(inside, dtype=np.int64), outside, block)

    def solve(self, v: Array) -> tuple[Array, Functions] | None:
        """``v`` with the best w, and the function ``F + mu'G`` whose derivative is that of V; None
        where no w suits the rows.
        """
        system, own = self.system, self.own
        base = v.copy()
        base[own] = 0.0
        cost = np.asarray(jacobian_of(system.objective, base)[:, own].todense()).reshape(-1)
        functions = system.upper_rows.functions.take(self.rows)
        matrix = sp.csr_array(jacobian_of(functions, base)[:, own])
        constant = functions.value(base)
        low = np.concatenate(
            [system.upper_rows.lower[self.rows] - constant, system.columns.lower[own]]
        )
        high = np.concatenate(
            [system.upper_rows.upper[self.rows] - constant, system.columns.upper[own]]
        )
        values = v.copy()
        if not self.hessian.nnz:
            known = pushed(cost, matrix, low, high)
            if known is not None:
                values[own] = known[0]
                return values, combined(system.objective, functions, known[1])
        whole = sp.csr_array(sp.vstack([matrix, sp.eye_array(own.size, format="csr")]))
        upper = sp.triu(self.hessian, format="csc")
        found = solve_two_sided(upper, cost, whole, low, high, 1e-9)
        if not found.is_solved:
            return None
        values[own] = np.clip(found.values, system.columns.lower[own], system.columns.upper[own])
        values[own] = lifted(values[own], matrix, low, high)
        return values, combined(system.objective, functions, found.multipliers[: self.rows.size])

    def settled(self, v: Array) -> Array:
        """``v`` with w such that rows of one entry of w hold exactly."""
        system, own = self.system, self.own
        base = v.copy()
        base[own] = 0.0
        functions = system.upper_rows.functions.take(self.rows)
        matrix = sp.csr_array(jacobian_of(functions, base)[:, own])
        constant = functions.value(base)
        low = system.upper_rows.lower[self.rows] - constant
        high = system.upper_rows.upper[self.rows] - constant
        out = v.copy()
        out[own] = lifted(v[own], matrix, low, high)
        return out


def pushed(cost: Array, matrix: Any, low: Array, high: Array) -> tuple[Array, Array] | None:
    """The w that minimises ``cost'w`` where every row reads one entry of w, as epigraphs do, and
    the multipliers of the rows: each entry is pushed to the nearest end that holds it. ``low`` and
    ``high`` hold the rows, then the bounds. None for other rows, and where no end holds an entry.
    """
    if bool((np.diff(matrix.indptr) != 1).any()):
        return None
    count = matrix.shape[0]
    at, factor = np.asarray(matrix.indices), np.asarray(matrix.data)
    if bool((factor == 0.0).any()):
        return None
    one, two = low[:count] / factor, high[:count] / factor
    least, most = low[count:].copy(), high[count:].copy()
    np.maximum.at(least, at, np.minimum(one, two))
    np.minimum.at(most, at, np.maximum(one, two))
    w = np.where(cost > 0, least, np.where(cost < 0, most, np.clip(0.0, least, most)))
    if bool((least > most).any()) or not np.isfinite(w).all():
        return None
    multipliers = np.zeros(count)
    # The first row that holds an entry has the whole price: cost + factor * multiplier = 0.
    ends = np.where(cost[at] > 0, np.minimum(one, two), np.maximum(one, two))
    holding = np.flatnonzero((cost[at] != 0.0) & (ends == w[at]))
    bound = np.where(cost > 0, low[count:], high[count:])
    holding = holding[bound[at[holding]] != w[at[holding]]]
    first = np.unique(at[holding], return_index=True)[1]
    chosen = holding[first]
    multipliers[chosen] = -cost[at[chosen]] / factor[chosen]
    return w, multipliers


def lifted(w: Array, matrix: Any, low: Array, high: Array) -> Array:
    """w with rows of one entry met exactly: an interior point stops a little outside."""
    out = w.copy()
    for r in np.flatnonzero(np.diff(matrix.indptr) == 1):
        j, c = int(matrix.indices[matrix.indptr[r]]), float(matrix.data[matrix.indptr[r]])
        ends = sorted((low[r] / c, high[r] / c))
        out[j] = min(max(out[j], ends[0]), ends[1])
    return np.asarray(out)


def read_below(system: System) -> set[int]:
    """The columns that some follower's objective or row reads."""
    found: set[int] = set()
    for functions in (system.lower_objectives, system.lower_rows.functions):
        found |= {int(j) for j in functions.linear.indices}
        for q in functions.quadratic.values():
            found |= {int(j) for j in q.indices}
        found |= columns(functions.trees.values())
    return found


def combined(objective: Functions, rows: Functions, weights: Array) -> Functions:
    """``objective + weights' rows`` as one function."""
    linear = sp.csr_array(objective.linear + sp.csr_array(weights[None, :]) @ rows.linear)
    total = objective.quadratic.get(0)
    for r, q in rows.quadratic.items():
        if weights[r]:
            total = weights[r] * q if total is None else total + weights[r] * q
    constant = objective.constant + float(weights @ rows.constant)
    return Functions(constant, linear, {} if total is None else {0: sp.csr_array(total)})
