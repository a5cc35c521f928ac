"""All best responses at once, and the derivative of F along them: convex quadratic followers as one
sparse program.

At the responses ``y(x)``, with multipliers ``lam`` of the tight rows ``A``, the KKT adjoint is one
sparse system for all followers::

    [ H   A' ] [u]   [ dF/dy ]
    [ A   0  ] [w] = [   0   ]      dPhi/dx = dF/dx - (d/dx grad_y L)' u - (d/dx g_A)' w

``H`` is the Hessian of the Lagrangian in y. Rows that are tight without a multiplier are left out:
there Phi has a kink, and this is one side of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from bilevelpy.numerics.followers.batch import Batch
from bilevelpy.numerics.qp.two_sided import TwoSided, continued, sharpened, solve_two_sided

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]
Sparse = Any

# Multipliers above this (relative to the largest) hold their row.
HELD = 1e-6
# Added to the diagonal of the adjoint system: dependent rows do not stop it.
RIDGE = 1e-10


@dataclass(frozen=True, slots=True)
class Response:
    """``values`` of all columns with the best responses; ``rows`` and ``bounds`` are multipliers,
    positive at an upper end.
    """

    values: Array
    rows: Array
    bounds: Array


class JointResponse:
    """The followers of a system without trees, whose rows are affine in their own variables; the
    leader's functions may be any.

    Independent followers are one separable program; a game is not (its players do not share an
    objective).
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.own = system.lower_columns
        self.width = system.columns.count
        objectives = system.lower_objectives
        self.cost = np.asarray(objectives.linear.sum(axis=0)).reshape(-1)
        self.hessian = _total(objectives, np.ones(objectives.count), self.width)
        own = sp.csr_array(self.hessian[self.own])
        self.block = sp.csc_array(own[:, self.own])
        self.batch = Batch.of(system, self.block)
        self._fixed: Sparse | None = None
        # The latest solution, where its rows are known for sure: others are near it.
        self._last: TwoSided | None = None
        # Of ``time.perf_counter``.
        self.deadline = math.inf

    @staticmethod
    def fits(system: System) -> bool:
        """Whether the followers are of this kind."""
        if any(f.nash for f in system.followers) or bool((system.columns.owner == -1).any()):
            return False
        rows, owner = system.lower_rows, system.columns.owner
        if system.lower_objectives.trees or rows.functions.trees:
            return False
        if bool(system.columns.integer.any()):
            return False
        below = owner > 0
        return not any(q[below][:, below].nnz for q in rows.functions.quadratic.values())

    def solve(self, v: Array) -> Response | None:
        """The best responses to the leader's part of ``v``; None where there are none."""
        system, own = self.system, self.own
        base = v.copy()
        base[own] = 0.0
        cost = self.slope(base)
        whole = self.whole(base)
        constant = system.lower_rows.functions.value(base)
        low, high = system.lower_rows.lower - constant, system.lower_rows.upper - constant
        lb, ub = system.columns.lower[own], system.columns.upper[own]
        low, high = np.concatenate([low, lb]), np.concatenate([high, ub])
        values = v.copy()
        if self.batch is not None:
            known = self.batch.solve(cost, whole, low, high)
            if known is not None:
                values[own] = np.clip(known[0], lb, ub)
                return self._response(values, known[1])
        upper = sp.csc_matrix(sp.triu(self.block_at(base), format="csc"))
        program = upper, cost, whole, low, high
        found = None if self._last is None else continued(*program, self._last)
        if found is None:
            left = self.deadline - time.perf_counter()
            raw = solve_two_sided(*program, 1e-10, left)
            if not raw.is_solved:
                return None
            found = sharpened(*program, raw)
            self._last = None if found is raw else found
        else:
            self._last = found
        values[own] = np.clip(found.values, lb, ub)
        return self._response(values, found.multipliers)

    def _response(self, values: Array, multipliers: Array) -> Response:
        count = self.system.lower_rows.count
        return Response(values, multipliers[:count], multipliers[count:])

    def whole(self, v: Array) -> Sparse:
        """The rows over the lower columns, with the bounds behind them."""
        if self._fixed is not None:
            return self._fixed
        functions = self.system.lower_rows.functions
        matrix = sp.csr_array(self.jacobian(functions, v)[:, self.own])
        eye = sp.eye_array(self.own.size, format="csr")
        whole = sp.csr_array(sp.vstack([matrix, eye]))
        if functions.degree == 1:
            self._fixed = whole
        return whole

    def slope(self, v: Array) -> Array:
        """The slopes of the followers' objectives in their own variables."""
        return np.asarray((self.cost + self.hessian @ v)[self.own])

    def block_at(self, v: Array) -> Sparse:
        """Their Hessian in the lower columns."""
        return self.block

    def jacobian(self, functions: Functions, v: Array) -> Sparse:
        """First derivatives of functions of the system by all columns."""
        return jacobian_of(functions, v)

    def curvature(self, response: Response) -> Sparse:
        """Second derivatives of the Lagrangian: lower columns by all columns."""
        rows, total = self.system.lower_rows, self.hessian
        if rows.functions.quadratic:
            total = total + _total(rows.functions, response.rows, self.width)
        return sp.csr_array(total[self.own])

    def least(self, response: Response) -> Array:
        """Lower bounds of every follower's minimum, from the multipliers alone: with ``s`` the rest
        of its stationarity, ``f(y) - min f <= |s| (1 + |y|) + sum lam slack`` for responses within
        ``1 + |y|`` of ``y``. No solver is trusted.
        """
        system, own, v = self.system, self.own, response.values
        jacobian = self.jacobian(system.lower_rows.functions, v)
        rest = self.slope(v) + (jacobian.T @ response.rows)[own] + response.bounds
        owner = system.columns.owner[own]
        count = len(system.followers)
        square = np.bincount(owner - 1, rest**2, minlength=count)
        length = np.bincount(owner - 1, v[own] ** 2, minlength=count)
        value = system.lower_rows.functions.value(v)
        loss = _loss(response.rows, value, system.lower_rows.lower, system.lower_rows.upper)
        at = system.lower_rows.follower - 1
        bound = _loss(response.bounds, v[own], system.columns.lower[own], system.columns.upper[own])
        # Without rows `bincount` returns whole numbers, which cannot take fractions in place.
        slack = np.bincount(at, loss, minlength=count).astype(float)
        slack += np.bincount(owner - 1, bound, minlength=count)
        gap = np.sqrt(square) * (1.0 + np.sqrt(length)) + slack
        return np.asarray(system.lower_objectives.value(v) - gap)

    def gradient(self, functions: Functions, response: Response) -> Array:
        """Derivatives of ``functions`` (one row each) by the upper columns, along the responses."""
        system, own, v = self.system, self.own, response.values
        chosen = system.upper_columns
        direct = self.jacobian(functions, v)
        rows = system.lower_rows
        held, fixed = self._marked(response)
        tight = sp.csr_array(self.jacobian(rows.functions, v)[held])
        lagrangian = self.curvature(response)
        right = direct[:, own].T.toarray()
        if self.batch is not None:
            marked = np.zeros(rows.count + own.size, dtype=bool)
            marked[held], marked[rows.count :] = True, fixed
            u, w = self.batch.adjoint(self.whole(v), marked, right)
            w = w[held]
        else:
            u, w = self._adjoint(lagrangian, tight, np.flatnonzero(~fixed), right)
        cross = sp.csr_array(lagrangian[:, chosen])
        total = direct[:, chosen].T.toarray()
        total -= cross.T @ u + sp.csr_array(tight[:, chosen]).T @ w
        return np.asarray(total.T)

    def held(self, response: Response) -> tuple[Sparse, Array]:
        """The derivatives of the rows that hold the responses, and the places (among the lower
        columns) of those that no bound holds.
        """
        held, fixed = self._marked(response)
        jacobian = self.jacobian(self.system.lower_rows.functions, response.values)
        return sp.csr_array(jacobian[held]), np.flatnonzero(~fixed)

    def _marked(self, response: Response) -> tuple[Array, Array]:
        """The rows with multipliers and the equations; whether a bound has one (or is two)."""
        system, own = self.system, self.own
        size = max(float(np.abs(response.rows).max(initial=0.0)), 1e-12)
        equal = system.lower_rows.is_equation
        held = np.flatnonzero((np.abs(response.rows) > HELD * size) | equal)
        size = max(float(np.abs(response.bounds).max(initial=0.0)), size)
        fixed = np.abs(response.bounds) > HELD * size
        return held, fixed | (system.columns.lower[own] == system.columns.upper[own])

    def _adjoint(
        self, lagrangian: Sparse, tight: Sparse, free: Array, right: Array
    ) -> tuple[Array, Array]:
        """The adjoint system of all followers as one sparse one, on the columns ``free``."""
        own = self.own
        a = sp.csr_array(tight[:, own[free]])
        h = sp.csr_array(sp.csr_array(lagrangian[free])[:, own[free]])
        eye = sp.eye_array(tight.shape[0]) * -RIDGE
        kkt = sp.csc_matrix(sp.block_array([[h + RIDGE * sp.eye_array(free.size), a.T], [a, eye]]))
        rhs = np.zeros((free.size + tight.shape[0], right.shape[1]))
        rhs[: free.size] = right[free]
        solved = splu(kkt).solve(rhs)
        u = np.zeros(right.shape)
        u[free] = solved[: free.size]
        return u, solved[free.size :]


def with_multipliers(program: KKT, response: Response) -> Array:
    """Values of all columns of the followers' conditions at responses."""
    system = program.system
    place = {name: r for r, name in enumerate(system.lower_rows.names)}
    own = {int(j): n for n, j in enumerate(system.lower_columns)}
    v = np.zeros(program.columns.count)
    v[: system.columns.count] = response.values
    for pair in (*program.pairs, *program.equations):
        if pair.row is not None:
            m = response.rows[place[program.rows.names[pair.row]]]
        else:
            assert pair.column is not None
            m = response.bounds[own[pair.column]]
        sign = {"upper": 1.0, "lower": -1.0}.get(pair.side, 0.0)
        v[pair.multiplier] = m if sign == 0.0 else max(sign * m, 0.0)
    return v


def _loss(multipliers: Array, value: Array, low: Array, high: Array) -> Array:
    """``lam * slack`` of every row; infinite where a multiplier has no end to push against."""
    end = np.where(multipliers > 0, high, low)
    slack = np.abs(np.where(multipliers == 0.0, 0.0, end - value))
    return np.asarray(np.where(multipliers == 0.0, 0.0, np.abs(multipliers) * slack))


def jacobian_of(functions: Functions, v: Array) -> Sparse:
    """First derivatives of functions."""
    if functions.degree == 1:
        return sp.csr_array(functions.linear)
    rows, columns, data = [], [], []
    slopes = [(r, q @ v) for r, q in functions.quadratic.items()]
    slopes += [(r, functions.tree(r).gradient(v)) for r in functions.trees]
    for r, slope in slopes:
        chosen = np.flatnonzero(slope)
        rows.append(np.full(chosen.size, r))
        columns.append(chosen)
        data.append(slope[chosen])
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(functions.linear + sp.csr_array(entries, shape=functions.linear.shape))


def _total(functions: Functions, weights: Array, width: int) -> Sparse:
    """The weighted sum of the Hessians."""
    rows, columns, data = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
    for r, q in functions.quadratic.items():
        if weights[r]:
            coo = q.tocoo()
            rows.append(coo.row)
            columns.append(coo.col)
            data.append(weights[r] * coo.data)
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(entries, shape=(width, width))
