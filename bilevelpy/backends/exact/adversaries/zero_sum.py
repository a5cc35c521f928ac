"""Followers who want what the leader does not: robust and regret problems, by cutting planes.

Where ``F = h(x) - sum_k c_k f_k(x, y_k)`` with ``c_k > 0`` and no row of a follower moves with x,
the best responses are the worst for the leader, and for any points z of the followers::

    F(x, y(x)) = max_z F(x, z) >= F(x, z)

The least ``t`` with ``t >= F(x, z)`` for all z so far is a bound, and x its point; the responses to
x are the next z (Kelley 1960; Blankenship and Falk 1976). The programs have no variables of the
followers, whatever their rows are: balls of entropies, whole numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST, Model
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.programs.follower import follower_program, row_scales
from bilevelpy.numerics.programs.interior_point import is_installed
from bilevelpy.reductions.rewriting.fixing import placed
from bilevelpy.reductions.rewriting.intervals import column_ranges, tree_range
from bilevelpy.reductions.trees import linear_terms, quadratic_terms, tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]

# Coefficients of both objectives that are proportional, relative to the largest one.
ROUNDING = 1e-9
ROUNDS = 500
# Part of the time for a leader in real numbers.
REAL = 0.2
# Rows of followers may be off by this at a point that a cut is made from (relative).
EDGE = 1e-8


def is_zero_sum(system: System) -> bool:
    """Whether the class above is met by both objectives, of degree two at most."""
    columns, rows = system.columns, system.lower_rows
    return is_opposed(system) and all(
        columns.owner[j] == rows.follower[r]
        for r in range(rows.count)
        for j in rows.functions.reads(r)
    )


def is_opposed(system: System) -> bool:
    """Whether the leader loses what the followers gain, and no row of hers reads their responses;
    theirs may move with x.
    """
    columns, upper = system.columns, system.upper_rows
    if any(f.nash for f in system.followers) or bool((columns.owner == -1).any()):
        return False
    if system.objective.trees or system.lower_objectives.trees:
        return False
    below = set(system.lower_columns.tolist())
    if any(upper.functions.reads(r) & below for r in range(upper.count)):
        return False
    rest = _terms(system.objective, 0, below)
    for k in range(len(system.followers)):
        own = set(np.flatnonzero(columns.owner == k + 1).tolist())
        mine = _terms(system.lower_objectives, k, own)
        if not mine:
            return False
        key = max(mine, key=lambda term: abs(mine[term]))
        c = -rest.get(key, 0.0) / mine[key]
        if c <= 0.0:
            return False
        size = c * abs(mine[key])
        for term, value in mine.items():
            if abs(rest.pop(term, 0.0) + c * value) > ROUNDING * size:
                return False
    return not rest


def _terms(functions: Functions, row: int, read: set[int]) -> dict[tuple[int, ...], float]:
    """Coefficients of the terms that read some of the columns."""
    found: dict[tuple[int, ...], float] = {
        (j,): c for j, c in linear_terms(functions, row) if j in read and c
    }
    for i, j, c in quadratic_terms(functions, row):
        if c and (i in read or j in read):
            found[i, j] = c
    return found


@dataclass(frozen=True, slots=True)
class ZeroSum:
    """The program of a leader and adversaries; ``state`` has the best point, and may stop."""

    system: System
    limits: Callable[[], Limits]
    state: Progress
    rng: np.random.Generator

    def solve(self) -> Outcome:
        """Cuts until bound and point meet, or the time is up."""
        system, state = self.system, self.state
        run = Followers(system, lambda: replace(self.limits(), feasible=FEASIBLE))
        whole = bool(system.columns.integer[system.lower_columns].any())
        quick = None
        if is_installed() and not whole:
            quick = Responses.of(system, self.rng, convex=False)
        at = np.clip(system.columns.start, system.columns.lower, system.columns.upper)
        points, met = self._in_real_numbers(run, at), False
        used = 0  # points that the program of the last x knew
        status = "time_limit"
        for _ in range(ROUNDS):
            if self.limits().seconds <= LEAST or state.stopped:
                break
            answer = None if quick is None else quick.all(at)
            fast = answer is not None
            z, solved = answer if answer is not None else self._responses(run, at)
            if z is None:
                break
            known = met and self._known(points[:used], z)
            if fast and (known or self._gap(z) <= self.limits().gap):
                # Nothing is known of the best response yet: it is solved to global optimality.
                z, solved = self._responses(run, at)
                fast = False
                if z is None:
                    break
            if not fast and met:
                state.keep(z, float(system.objective.value(z)[0]), solved)
                if state.objective - state.bound <= self._room():
                    status = "optimal"
                    break
                if self._known(points[:used], z):
                    status = "stuck"
                    state.why = "the followers' tolerances are worth more than the gap"
                    break
            if self._holds(z):
                points.append(z)
            began, used = time.perf_counter(), len(points)
            found = self._master(points).solve(replace(self.limits(), feasible=FEASIBLE))
            state.nodes += found.nodes
            if found.status in ("infeasible", "unbounded") or found.values is None:
                told = found.status in ("infeasible", "time_limit")
                status = found.status if told else "stuck"
                break
            state.bound = max(state.bound, found.bound)
            at, met = self._at(z, found.values), True
            until = time.perf_counter() + time.perf_counter() - began
            self._also(run, points, [self._at(z, other) for other in found.others], until)
        bound = min(state.bound, state.objective)
        return Outcome(status, state.best, state.objective, bound, state.nodes, 0.0)

    def _at(self, z: Array, values: Array) -> Array:
        """``z`` with the leader's part of a point of her program."""
        system, at = self.system, z.copy()
        leader = system.upper_columns
        at[leader] = values[: at.size][leader]
        integer = leader[system.columns.integer[leader]]
        at[integer] = np.round(at[integer])
        return at

    def _in_real_numbers(self, run: Followers, at: Array) -> list[Array]:
        """Responses to a leader whose whole numbers are real ones: her programs are linear then,
        and cuts hold for all x.
        """
        system = self.system
        points: list[Array] = []
        leader = system.upper_columns
        until = time.perf_counter() + REAL * self.limits().seconds
        if not system.columns.integer[leader].any():
            return []
        columns = replace(system.columns, integer=np.zeros(at.size, dtype=bool))
        for _ in range(ROUNDS):
            if time.perf_counter() > until or self.state.stopped:
                break
            z, _ = self._responses(run, at)
            if z is None or (points and self._known(points, z)) or not self._holds(z):
                break
            points.append(z)
            found = self._master(points, columns).solve(replace(self.limits(), feasible=FEASIBLE))
            if found.status != "optimal" or found.values is None:
                break
            self.state.bound = max(self.state.bound, found.bound)
            at = z.copy()
            at[leader] = found.values[: at.size][leader]
        return points

    def _also(self, run: Followers, points: list[Array], others: list[Array], until: float) -> None:
        """Responses to other points of her program, each at an x of its own."""
        leader, seen = self.system.upper_columns, set()
        for at in others:
            key = at[leader].tobytes()
            if time.perf_counter() > until or self.state.stopped:
                return
            if key in seen:
                continue
            seen.add(key)
            z, solved = self._responses(run, at)
            if z is None:
                return
            self.state.keep(z, float(self.system.objective.value(z)[0]), solved)
            if self._holds(z) and not self._known(points, z):
                points.append(z)

    def _room(self) -> float:
        return self.limits().gap * max(1.0, abs(self.state.objective))

    def _gap(self, z: Array) -> float:
        """Of the best point and the bound, with ``z`` as a point."""
        F = min(float(self.system.objective.value(z)[0]), self.state.objective)
        return (F - self.state.bound) / max(1.0, abs(F))

    def _known(self, points: list[Array], z: Array) -> bool:
        """Whether a cut from these responses says no more at their x than others do."""
        F = float(self.system.objective.value(z)[0])
        below = self.system.lower_columns
        there = -math.inf
        for point in points:
            mixed = z.copy()
            mixed[below] = point[below]
            there = max(there, float(self.system.objective.value(mixed)[0]))
        return there + 0.1 * self.limits().gap * max(1.0, abs(F)) >= F

    def _responses(self, run: Followers, at: Array) -> tuple[Array | None, dict[int, float]]:
        """Best responses to x, found globally, and their values."""
        z, solved = at.copy(), {}
        for k in range(len(self.system.followers)):
            answer = run.solve(k, at)
            if answer.status != "optimal" or answer.values is None:
                self.state.why = f"`{self.system.followers[k].name}` could not be solved at x"
                return None, {}
            own = self.system.columns.owner == k + 1
            z[own] = self._sharp(k, at, answer.values[: z.size])[own]
            solved[k] = float(self.system.lower_objectives.take([k]).value(z)[0])
        return z, solved

    def _sharp(self, k: int, at: Array, response: Array) -> Array:
        """The response with its whole numbers whole, and the best of linear other ones beside them:
        what is whole to 1e-6 only is worth more to F than the gap.
        """
        program = follower_program(self.system, k, at)
        whole = program.integer[program.free]
        if not whole.any():
            return response
        there = at.copy()
        there[program.free] = response[program.free]
        integer = program.free[whole]
        there[integer] = np.round(there[integer])
        program = replace(program, free=program.free[~whole], at=there)
        if not program.free.size or program.reduced().degree > 1:
            return there
        found = program.solve().values
        return there if found is None else found

    def _holds(self, z: Array) -> bool:
        """Whether the followers' rows hold, so that a cut from the point is valid."""
        rows = self.system.lower_rows
        return not bool((rows.violation(z) > EDGE * row_scales(rows, z)).any())

    def _master(self, points: list[Array], columns: Columns | None = None) -> Model:
        """``min t`` under the leader's rows and ``t >= F(x, z)``, perhaps over other columns."""
        system = self.system
        fixed = {int(j): float(points[0][j]) for j in system.lower_columns} if points else {}
        model = Model(columns or system.columns, fixed)
        model.rows(system.upper_rows)
        low, high = column_ranges(system)
        own = np.zeros(system.columns.count, dtype=bool)
        own[system.lower_columns] = True
        made = [placed(system.objective, own, z) for z in points]
        least = max((self._least(f, low, high) for f in made), default=-math.inf)
        top = model.scip.addVar("worst", "C", lb=least if math.isfinite(least) else None, ub=None)
        for f in made:
            model.row(model.expression(f, 0, 1.0) - top, -math.inf, 0.0)
        model.scip.setObjective(top + 0.0, "minimize")
        return model

    @staticmethod
    def _least(f: Functions, low: Array, high: Array) -> float:
        tree = tree_of(f, 0)
        return tree_range(tree, low, high)[id(tree)][0]
