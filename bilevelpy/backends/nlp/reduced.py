"""The reduced form: F along the best responses as a function of x alone.

``Phi(x) = F(x, y(x))`` and the leader's rows along ``y(x)`` are minimised by SLSQP (L-BFGS-B where
there are bounds only), with derivatives from the KKT adjoint; where those methods stop at a kink, a
compass search goes on. Every evaluation solves all followers at once, so the size of x decides, not
that of y. Upper variables that no follower reads are chosen exactly at every x.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bilevelpy.backends.nlp.course import Course
from bilevelpy.backends.nlp.inner import Inner, combined
from bilevelpy.backends.nlp.starts import agree, coarse_grid
from bilevelpy.numerics.certificate.local_probe import ends, tangent
from bilevelpy.numerics.followers.choice import Choice
from bilevelpy.numerics.followers.response import JointResponse, Response

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]

# Stands for F where followers have no response.
NOWHERE = 1e20
ITERATIONS = 200
# The part of the time that a coarse scan may take, and how many of its points are starts.
SCAN, SCANNED = 0.3, 4
# First and last steps of the compass search, relative to the range of a variable; the fall
# (relative) below which a round of it is not repeated.
FIRST, LAST, WORTH = 0.1, 1e-4, 1e-9
# Upper variables up to which there is such a search.
WIDE = 128
# Solves, as long as the longest one, that are left to the certificate.
CHECKS = 5.0


class Over(Exception):
    """The time is up, or somebody wants no more."""


@dataclass(frozen=True, slots=True)
class _Point:
    """Values of all columns, F there, and the function whose derivative is that of F."""

    values: Array
    objective: float
    response: Response
    function: Functions


@dataclass(slots=True)
class Reduced:
    """Local minima of the reduced form until ``deadline`` (of ``time.perf_counter``).

    ``seen`` is told of every better feasible point (values, F) and may stop the run.
    """

    system: System
    joint: JointResponse
    deadline: float
    tol: float
    seen: Callable[[Array, float], bool]
    solves: int = 0
    longest: float = 0.0
    inner: Inner | None = field(init=False)
    chosen: Array = field(init=False)
    rows: Array = field(init=False)
    best: Array | None = None
    objective: float = math.inf
    _at: tuple[bytes | None, _Point | None] = field(default=(None, None))

    choice: Choice = field(init=False)

    def __post_init__(self) -> None:
        self.inner = Inner.of(self.system)
        nothing = np.zeros(0, dtype=np.int64)
        self.choice = Choice.of(self.joint, nothing if self.inner is None else self.inner.own)
        if self.inner is not None and self.choice.needed and not self.choice.possible:
            # One after the other, w and a response that is not unique are not best together.
            self.inner, self.choice = None, Choice.of(self.joint, nothing)
        self.chosen, self.rows = self.system.upper_columns, np.arange(self.system.upper_rows.count)
        if self.inner is not None:
            self.chosen = np.setdiff1d(self.chosen, self.inner.own)
            self.rows = self.inner.kept

    def search(
        self,
        starts: int,
        somewhere: Callable[[], Array],
        over: Callable[[], bool],
        course: Course | None = None,
    ) -> int:
        """Descents from up to ``starts`` starts, and how many there were: the best points of a
        scan, the start of the model, then ``somewhere``. Ends where the last ones agree. A
        ``course`` says which ones are behind.
        """
        course = Course() if course is None else course
        if course.begun is None:
            start, now = self.system.columns.start, time.perf_counter()
            scanned = self.scan(start, now + SCAN * (self.deadline - now))
            course.begun = [*scanned[:1], start, *scanned[1:SCANNED]]
        begun = course.begun
        for t in range(course.count, starts):
            if over() or agree(course.ends, self.system.upper_columns):
                return t
            end = self.run(begun[t] if t < len(begun) else somewhere())
            if not over():
                course.finished(t, end)
        return starts

    def run(self, start: Array) -> tuple[Array, float] | None:
        """Descend from the leader's part of ``start``: the end and F there; None where the time is
        up or there is no response.
        """
        try:
            at = self._descend(start)
            if at is None or self.rows.size or not self.chosen.size:
                return at
            again = self._compass(*at)
            while again[1] < at[1] - WORTH * max(1.0, abs(at[1])):
                at = again
                again = self._descend(again[0]) or again
                again = self._compass(*again)
            return again if again[1] < at[1] else at
        except Over:
            return None

    def scan(self, start: Array, until: float) -> list[Array]:
        """The points of a coarse grid, the best first: variables that are declared together move
        together, as in a search by hand. Empty where there are many blocks or no ends.
        """
        grid = [] if self.rows.size else coarse_grid(self.system.columns, self.chosen, start)
        found: list[tuple[float, int, Array]] = []
        # In an order that covers the range however soon it ends.
        for k in np.random.default_rng(len(grid)).permutation(len(grid)):
            if time.perf_counter() > until:
                break
            try:
                point = self._point(grid[k])
            except Over:
                break
            if point is not None:
                found.append((point.objective, int(k), point.values))
        return [v for _, _, v in sorted(found, key=lambda t: t[:2])]

    def beside(self, v: Array) -> Array | None:
        """Values at the responses to the leader's part of ``v``, what no follower reads chosen
        anew; None where there are none.
        """
        point = self._made(v)
        return None if point is None else point.values

    def slopes_of(self, v: Array, rows: Array) -> Array | None:
        """Slopes of the leader's rows (by number) along the responses at the leader's part of
        ``v``; None where there is no response.
        """
        point = self._made(v)
        if point is None:
            return None
        functions = self.system.upper_rows.functions
        return np.array([self._slope(functions.take([r]), point.response) for r in rows.tolist()])

    def holding(self, v: Array) -> tuple[Array, Array] | None:
        """Outward normals of the rows and bounds that hold x, along the responses, and the descent
        of F that they leave; None where there is no response.
        """
        point = self._made(v)
        if point is None:
            return None
        system, found = self.system, []
        for r in self.rows:
            one = system.upper_rows.functions.take([r])
            value, low, high = (
                float(one.value(point.values)[0]),
                float(system.upper_rows.lower[r]),
                float(system.upper_rows.upper[r]),
            )
            found += ends(self._slope(one, point.response), value, low, high)
        for n, j in enumerate(self.chosen):
            unit = np.zeros(self.chosen.size)
            unit[n] = 1.0
            low, high = float(system.columns.lower[j]), float(system.columns.upper[j])
            found += ends(unit, float(v[j]), low, high)
        normals = np.array(found).reshape(len(found), self.chosen.size)
        slope = self._slope(point.function, point.response)
        return normals, tangent(-slope, normals) if normals.size else -slope

    def _descend(self, start: Array) -> tuple[Array, float] | None:
        """By derivatives."""
        if not self.chosen.size:
            only = self._point(start)
            return None if only is None else (only.values, only.objective)
        columns, base = self.system.columns, start.copy()
        low, high = columns.lower[self.chosen], columns.upper[self.chosen]

        def place(x: Array) -> Array:
            v = base.copy()
            v[self.chosen] = np.clip(x, low, high)
            return v

        def value(x: Array) -> tuple[float, Array]:
            point = self._point(place(x))
            if point is None:
                return NOWHERE, np.zeros(self.chosen.size)
            return point.objective, self._slope(point.function, point.response)

        constraints = self._constraints(place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = minimize(
                value,
                base[self.chosen],
                jac=True,
                method="SLSQP" if constraints else "L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
                constraints=constraints,
                options={"maxiter": ITERATIONS, "ftol": 1e-3 * self.tol * 1e-3},
            )
        last = self._point(place(found.x))
        return None if last is None else (last.values, last.objective)

    def _compass(self, v: Array, objective: float) -> tuple[Array, float]:
        """Steps along the axes, halved where none is downhill, doubled where one is."""
        columns = self.system.columns
        low, high = columns.lower[self.chosen], columns.upper[self.chosen]
        span = np.where(
            np.isfinite(high - low), high - low, np.maximum(1.0, np.abs(v[self.chosen]))
        )
        if self.chosen.size > WIDE:
            return v, objective
        step = np.full(self.chosen.size, FIRST)
        while step.max() > LAST:
            for n, j in enumerate(self.chosen):
                if step[n] <= LAST:
                    continue
                moved = False
                for sign in (1.0, -1.0):
                    trial = v.copy()
                    trial[j] = np.clip(v[j] + sign * step[n] * span[n], low[n], high[n])
                    if trial[j] == v[j]:
                        continue
                    point = self._point(trial)
                    if point is not None and point.objective < objective - WORTH * abs(objective):
                        v, objective, moved = point.values, point.objective, True
                        break
                step[n] = min(2.0 * step[n], FIRST) if moved else 0.25 * step[n]
        return v, objective

    def _constraints(self, place: Callable[[Array], Array]) -> list[dict[str, Any]]:
        rows = self.system.upper_rows
        constraints: list[dict[str, Any]] = []
        for r in self.rows:
            one = rows.functions.take([r])
            if rows.lower[r] == rows.upper[r]:
                kinds = [("eq", 1.0, rows.lower[r])]
            else:
                kinds = [("ineq", 1.0, rows.lower[r]), ("ineq", -1.0, rows.upper[r])]
            for kind, sign, end in kinds:
                if math.isfinite(end):
                    constraints.append(self._constraint(place, one, kind, sign, float(end)))
        return constraints

    def _constraint(
        self, place: Callable[[Array], Array], one: Functions, kind: str, sign: float, end: float
    ) -> dict[str, Any]:
        def fun(x: Array) -> float:
            point = self._point(place(x))
            return -NOWHERE if point is None else sign * float(one.value(point.values)[0] - end)

        def jac(x: Array) -> Array:
            point = self._point(place(x))
            if point is None:
                return np.zeros(x.size)
            return np.asarray(sign * self._slope(one, point.response))

        return {"type": kind, "fun": fun, "jac": jac}

    def _slope(self, function: Functions, response: Response) -> Array:
        """The derivative of a function along the responses by the variables that move."""
        whole = self.joint.gradient(function, response)[0]
        if self.chosen.size == self.system.upper_columns.size:
            return np.asarray(whole)
        return np.asarray(whole[np.searchsorted(self.system.upper_columns, self.chosen)])

    def _point(self, v: Array) -> _Point | None:
        """Responses at x and the best rest; the last ones are kept."""
        key = v[self.chosen].tobytes()
        if self._at[0] == key:
            return self._at[1]
        began = time.perf_counter()
        if self.objective < math.inf and began + CHECKS * self.longest > self.deadline:
            raise Over  # the rest is for the certificate of what there is
        if began > self.deadline:
            raise Over
        self.solves += 1
        point = self._made(v)
        self.longest = max(self.longest, time.perf_counter() - began)
        self._at = (key, point)
        if point is not None:
            self._consider(point)
        return point

    def _made(self, v: Array) -> _Point | None:
        response = self.joint.solve(v)
        if response is None:
            return None
        if self.choice.needed and self.choice.possible and not self.choice.alone(response):
            point = self._chosen(response)
            if point is not None:
                return point
        values, function = response.values, self.system.objective
        if self.inner is not None:
            rest = self.inner.solve(values)
            if rest is None:
                return None
            values, function = rest
            response = Response(values, response.rows, response.bounds)
        return _Point(values, float(self.system.objective.value(values)[0]), response, function)

    def _chosen(self, response: Response) -> _Point | None:
        """The leader's choice among responses, together with what no follower reads."""
        best = self.choice.best(response)
        if best is None:
            return None
        values = best[0] if self.inner is None else self.inner.settled(best[0])
        rows = self.system.upper_rows.functions.take(self.choice.rows)
        function = combined(self.system.objective, rows, best[1])
        chosen = Response(values, response.rows, response.bounds)
        return _Point(values, float(self.system.objective.value(values)[0]), chosen, function)

    def _consider(self, point: _Point) -> None:
        rows, values = self.system.upper_rows, point.values
        size = 1e-7 * np.maximum(1.0, np.abs(np.where(np.isfinite(rows.upper), rows.upper, 0.0)))
        if point.objective >= self.objective or bool((rows.violation(values) > size).any()):
            return
        self.best, self.objective = values, point.objective
        if self.seen(values, point.objective):
            raise Over
