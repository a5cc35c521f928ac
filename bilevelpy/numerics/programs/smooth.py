"""Small programs in columns: ``min f(v)``, ``L <= g(v) <= U``, ``l <= v <= u``, some columns fixed.

Three solvers by class, none of which is the engine of the backend whose answers they check: HiGHS
(inside SciPy) for linear programs, Clarabel for convex quadratic ones, SLSQP from several starts
for the rest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from bilevelpy.numerics.programs.far import MIDDLE, far_points, is_lower
from bilevelpy.numerics.programs.slsqp import Slsqp
from bilevelpy.numerics.qp.two_sided import sharpened, solve_two_sided
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.optimality.validity import least_eigenvalue
from bilevelpy.reductions.rewriting.fixing import fix
from bilevelpy.reductions.rows import Functions

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Rows

Array = np.ndarray[Any, np.dtype[Any]]

# Variables up to which programs that are neither linear nor convex quadratic are tried.
SMOOTH_LIMIT = 200
STARTS = 12
FEASIBLE = 1e-7
# Objectives that change by less are measured by their changes.
SMALL = 1e-3


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` is "optimal", "infeasible", "unbounded" or "unknown"; ``values`` are those of all
    columns; ``proved`` says that the solver's class makes the optimum global.
    """

    status: str
    values: Array | None
    objective: float
    proved: bool


@dataclass(frozen=True, slots=True)
class Program:
    """``objective`` has one function. ``free`` are the columns that move, the others stay at
    ``at``.
    """

    objective: Functions
    rows: Rows
    lower: Array
    upper: Array
    integer: Array
    free: Array
    at: Array

    @property
    def degree(self) -> int:
        """1 linear, 2 convex quadratic with linear rows, 3 other; in the free columns."""
        free = set(self.free.tolist())
        if self.rows.functions.trees or self.objective.trees:
            moving = [
                t
                for f in (self.rows.functions, self.objective)
                for t in f.trees.values()
                if sc.columns([t]) & free
            ]
            if moving:
                return 3
        if any(_block(q, self.free).nnz for q in self.rows.functions.quadratic.values()):
            return 3
        q = self.objective.quadratic.get(0)
        if q is None or not _block(q, self.free).nnz:
            return 1
        return 2 if least_eigenvalue(q, self.free) >= 0 else 3

    @property
    def is_sharp(self) -> bool:
        """Whether points with nearly the least value are nearly best ones: where everything is
        linear, or moves in whole numbers.
        """
        return bool(self.integer[self.free].all()) or self.reduced().degree == 1

    def reduced(self) -> Program:
        """The same with trees read as coefficients where the fixed columns make them so."""
        if not (self.objective.trees or self.rows.functions.trees):
            return self
        functions = fix(self.rows.functions, self.free, self.at)
        return replace(
            self,
            objective=fix(self.objective, self.free, self.at),
            rows=replace(self.rows, functions=functions),
        )

    def with_slope(self, slope: Array) -> Program:
        """The same rows and bounds with a linear objective: a slope for every column."""
        row = sp.csr_array(slope.reshape(1, -1))
        return replace(self, objective=Functions(np.zeros(1), row))

    def solve(
        self,
        rng: np.random.Generator | None = None,
        deadline: float = math.inf,
        *,
        far: bool = False,
        convex: bool = False,
        sharp: bool = False,
    ) -> Answer:
        """Minimise; integers are allowed where everything is linear. Quadratic programs end at
        ``deadline`` (of ``time.perf_counter``), and after it no further start is tried. What is
        neither linear nor convex quadratic is tried ``far`` away as well where that is asked for,
        and from one start where it is known to be ``convex``. Solutions of quadratic programs are
        ``sharp`` to rounding where the rows that hold them tell: an interior point knows y to the
        square root of its gap.
        """
        return self.reduced()._solve(rng, deadline, far, convex, sharp)

    def _solve(
        self, rng: np.random.Generator | None, deadline: float, far: bool, convex: bool, sharp: bool
    ) -> Answer:
        if not self.free.size:
            return self._nothing_to_choose()
        degree = self.degree
        if degree == 1:
            return self._linear()
        if bool(self.integer[self.free].any()):
            return Answer("unknown", None, math.nan, False)
        if degree == 2:
            return self._quadratic(deadline, sharp)
        return self._smooth(rng or np.random.default_rng(0), deadline, far, convex)

    # --- pieces -----------------------------------------------------------------------------------

    def value(self, v: Array) -> float:
        """The objective; infinite where it is not defined."""
        try:
            value = float(self.objective.value(v)[0])
        except (ValueError, ArithmeticError, TypeError):
            return math.inf
        return value if math.isfinite(value) else math.inf

    def spread(self, v: Array) -> float:
        """The least change of the objective from v to the free columns at 0 and to points on both
        sides of v: the scale of its differences, whatever factor it has at this x. 0 where it has
        no other value at any of them.
        """
        here, own = self.value(v), v[self.free]
        reach = max(1.0, float(np.abs(own).max(initial=0.0)))
        others = (np.zeros(own.size), own - reach, own + reach)
        low, high = self.lower[self.free], self.upper[self.free]
        off = [abs(self.value(self.full(np.clip(p, low, high))) - here) for p in others]
        return min((d for d in off if 0.0 < d < math.inf), default=0.0)

    def unit(self, v: Array) -> float:
        """What solvers with absolute tolerances measure the objective in: 1, unless the columns
        that stay have made its changes far smaller.
        """
        spread = self.spread(v)
        return spread if 0.0 < spread < SMALL else 1.0

    def violation(self, v: Array) -> float:
        """The largest violation of rows and bounds of free columns."""
        try:
            worst = float(self.rows.violation(v).max(initial=0.0)) if self.rows.count else 0.0
        except (ValueError, ArithmeticError, TypeError):
            return math.inf
        own = v[self.free]
        outside = np.maximum(self.lower[self.free] - own, own - self.upper[self.free])
        return max(worst, float(outside.max(initial=0.0)))

    def _nothing_to_choose(self) -> Answer:
        ok = self.violation(self.at) <= FEASIBLE
        value = self.value(self.at) if ok else math.inf
        return Answer("optimal" if ok else "infeasible", self.at if ok else None, value, True)

    def _base(self) -> Array:
        base = self.at.copy()
        base[self.free] = 0.0
        return base

    def affine(self, functions: Functions) -> tuple[Any, Array]:
        """Affine functions: the matrix over the free columns, and the values with these at 0."""
        base = self._base()
        matrix = sp.csr_array(functions.linear[:, self.free])
        if functions.quadratic:
            extra = sp.lil_array((functions.count, self.free.size))
            for r, q in functions.quadratic.items():
                extra[[r], :] = (q @ base)[self.free]
            matrix = sp.csr_array(matrix + extra.tocsr())
        return matrix, functions.value(base)

    def full(self, own: Array) -> Array:
        """All columns, for values of the free ones."""
        v = self.at.copy()
        v[self.free] = own
        return v

    def _linear(self) -> Answer:
        c, offset = self.affine(self.objective)
        matrix, constant = self.affine(self.rows.functions)
        low, high = self.rows.lower - constant, self.rows.upper - constant
        cost = np.asarray(c.todense()).reshape(-1)
        bounds = Bounds(self.lower[self.free], self.upper[self.free])
        whole = self.integer[self.free]
        if whole.any():
            rows = LinearConstraint(matrix, low, high) if self.rows.count else ()
            found = milp(cost, integrality=whole.astype(int), bounds=bounds, constraints=rows)
        else:
            equal = np.flatnonzero(low == high)
            up = np.flatnonzero(np.isfinite(high) & (low != high))
            down = np.flatnonzero(np.isfinite(low) & (low != high))
            pairs = np.column_stack([bounds.lb, bounds.ub])
            found = linprog(
                cost,
                A_ub=sp.vstack([matrix[up], -matrix[down]]) if up.size + down.size else None,
                b_ub=np.concatenate([high[up], -low[down]]) if up.size + down.size else None,
                A_eq=matrix[equal] if equal.size else None,
                b_eq=low[equal] if equal.size else None,
                bounds=pairs,
                method="highs",
            )
        status = {0: "optimal", 2: "infeasible", 3: "unbounded"}.get(found.status, "unknown")
        if status != "optimal":
            return Answer(status, None, math.nan, True)
        return Answer("optimal", self.full(found.x), float(found.fun + offset[0]), True)

    def _quadratic(self, deadline: float, sharp: bool) -> Answer:
        c, _ = self.affine(self.objective)
        matrix, constant = self.affine(self.rows.functions)
        low, high = self.rows.lower - constant, self.rows.upper - constant
        lb, ub = self.lower[self.free], self.upper[self.free]
        eye = sp.eye_array(self.free.size, format="csr")
        whole = sp.csr_array(sp.vstack([matrix, eye]))
        low, high = np.concatenate([low, lb]), np.concatenate([high, ub])
        p = sp.triu(_block(self.objective.quadratic[0], self.free), format="csc")
        cost = np.asarray(c.todense()).reshape(-1)
        left = deadline - time.perf_counter()
        found = solve_two_sided(p, cost, whole, low, high, 1e-11, left)
        status = _CLARABEL.get(found.status, "unknown")
        if status != "optimal":
            return Answer(status, None, math.nan, True)
        if sharp:
            found = sharpened(p, cost, whole, low, high, found)
        v = self.full(np.clip(found.values, lb, ub))
        return Answer("optimal", v, self.value(v), True)

    def descend(self, start: Array) -> Array | None:
        """A local solution near a point, or None."""
        return Slsqp(self).descend(start[self.free])

    def _smooth(self, rng: np.random.Generator, deadline: float, far: bool, convex: bool) -> Answer:
        """The best of several SLSQP runs: an upper bound of the minimum."""
        if self.free.size > SMOOTH_LIMIT:
            return Answer("unknown", None, math.nan, False)
        run = Slsqp(self)
        best: Array | None = None
        value = math.inf
        for start in self._starts(rng):
            if best is not None and (convex or time.perf_counter() > deadline):
                break
            v = run.descend(start)
            if v is not None and self.violation(v) <= FEASIBLE and self.value(v) < value:
                best, value = v, self.value(v)
        if best is None:
            return Answer("unknown", None, math.nan, False)
        lower = self._farther(run, best, rng, deadline) if far else None
        if lower is None:
            return Answer("optimal", best, value, False)
        if self._farther(run, lower, rng, deadline) is not None:  # it falls on and on
            return Answer("unbounded", None, -math.inf, False)
        return Answer("optimal", lower, self.value(lower), False)

    def _farther(
        self, run: Slsqp, best: Array, rng: np.random.Generator, deadline: float
    ) -> Array | None:
        """The lowest point that is met far away, if it is lower than ``best``; where far points
        break rows, the end of a descent from one on each side of a line.
        """
        found, value = None, self.value(best)
        low, high = self.lower[self.free], self.upper[self.free]
        for reach, own in far_points(best[self.free], rng):
            if time.perf_counter() > deadline:
                break
            v: Array | None = self.full(np.clip(own, low, high))
            if self.rows.count and v is not None and self.violation(v) > FEASIBLE:
                v = run.descend(v[self.free]) if reach == MIDDLE else None
            if v is None or self.violation(v) > FEASIBLE:
                continue
            there = self.value(v)
            if is_lower(there, value):
                found, value = v, there
        return found

    def _starts(self, rng: np.random.Generator) -> list[Array]:
        low, high = self.lower[self.free], self.upper[self.free]
        size = np.maximum(10.0, 2.0 * np.abs(self.at[self.free]))
        a = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2 * size, -size))
        b = np.where(np.isfinite(high), high, np.where(np.isfinite(low), low + 2 * size, size))
        random = [a + (b - a) * rng.random(a.size) for _ in range(STARTS)]
        return [self.at[self.free], np.clip(np.zeros(a.size), a, b), *random]


_CLARABEL = {
    "Solved": "optimal",
    "AlmostSolved": "optimal",
    "PrimalInfeasible": "infeasible",
    "AlmostPrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "AlmostDualInfeasible": "unbounded",
}


def _block(matrix: Any, chosen: Array) -> Any:
    return sp.csr_array(matrix[chosen][:, chosen])
