"""Followers that optimality conditions do not settle: nonconvex, integer, or with kinks.

A relaxation (the conditions that every best response meets, or just the rows) is solved to global
optimality. The followers are then solved to global optimality at its x. Where the response of the
relaxation is no best one, a better response ``z`` gives a cut that holds for every bilevel feasible
point::

    f(x, y) <= f(x, z)    or    z breaks a row of the follower at x

Bounds grow and candidates improve until they meet. ``z`` is taken with slack in its rows where
there is some, so that the cut removes a neighbourhood of the point.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact_necessary import high_point
from bilevelpy.backends.exact_relax import Relaxed
from bilevelpy.backends.exact_scip import Limits, Model, Outcome
from bilevelpy.numerics.constrained_certificate import objective_scale, row_scales
from bilevelpy.reductions.fixing import fix
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.kkt import KKT
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# A response whose objective is within this of the least one (relative to its terms) is a best one.
BEST = 2e-7
# Rows may be off by this only: what a response gains by it changes F by as much as its square root.
FEASIBLE = 1e-8
EDGE = 1e-6
RESPONSE_GAP = 1e-8
# The rows alone as a relaxation: rounds, share of the time and seconds that they get.
QUICK_ROUNDS, QUICK, QUICK_SECONDS = 12, 0.2, 10.0
ROUNDS = 400


@dataclass(frozen=True, slots=True)
class Cut:
    """A response of follower k, as values of all columns (those of others do not matter)."""

    follower: int
    response: Array


@dataclass(slots=True)
class Progress:
    """The best bilevel feasible point so far, the bound, and the followers' least values there."""

    best: Array | None = None
    objective: float = math.inf
    bound: float = -math.inf
    solved: dict[int, float] = field(default_factory=dict)
    nodes: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Followers:
    """Global solves of single followers, and cuts from their answers."""

    system: System
    limits: Callable[[], Limits]

    def model(self, k: int, v: Array) -> Model:
        """Follower k with everything else fixed at ``v``: its rows and bounds."""
        columns = self.system.columns
        fixed = {j: float(v[j]) for j in range(columns.count) if columns.owner[j] != k + 1}
        model = Model(columns, fixed)
        own = np.flatnonzero(columns.owner == k + 1)
        rows = self.loosened(k, v)
        model.rows(replace(rows, functions=fix(rows.functions, own, v)))
        return model

    def loosened(self, k: int, v: Array) -> Rows:
        """The rows of follower k, as wide as ``v`` needs within the tolerance: x may lie on the
        edge of what the follower can meet.
        """
        rows = self.system.lower_rows.take(self._rows(k))
        off = rows.violation(v)
        off = np.where(off <= EDGE * row_scales(rows, v), 1.01 * off, 0.0)
        return replace(rows, lower=rows.lower - off, upper=rows.upper + off)

    def _rows(self, k: int) -> Array:
        return np.flatnonzero(self.system.lower_rows.follower == k + 1)

    def objective(self, k: int, v: Array) -> Functions:
        """The objective of follower k in its own columns."""
        own = np.flatnonzero(self.system.columns.owner == k + 1)
        return fix(self.system.lower_objectives.take([k]), own, v)

    def solve(self, k: int, v: Array) -> Outcome:
        """The best response of follower k."""
        model = self.model(k, v)
        model.minimize(self.objective(k, v))
        return model.solve(replace(self.limits(), gap=RESPONSE_GAP))

    def inner(self, k: int, v: Array, level: float) -> Array | None:
        """A response with f at most ``level`` and as much slack in its rows as there is."""
        rows = self.system.lower_rows.take(self._rows(k))
        moving = [r for r in range(rows.count) if self._reads_others(rows.functions, r, k)]
        columns = self.system.columns
        if not moving or bool(columns.integer[columns.owner == k + 1].any()):
            return None
        model = self.model(k, v)
        room = model.scip.addVar("room", "C", lb=0.0, ub=1.0)
        own = np.flatnonzero(columns.owner == k + 1)
        functions = fix(rows.functions, own, v)
        for r in moving:
            value = model.expression(functions, r)
            if rows.lower[r] == rows.upper[r]:
                return None
            if math.isfinite(rows.upper[r]):
                model.row(value + room, -math.inf, float(rows.upper[r]))
            if math.isfinite(rows.lower[r]):
                model.row(value - room, float(rows.lower[r]), math.inf)
        model.row(model.expression(self.objective(k, v), 0), -math.inf, level)
        model.scip.setObjective(-1.0 * room, "minimize")
        found = model.solve(replace(self.limits(), gap=1e-3))
        return found.values if found.values is not None and found.objective < -1e-7 else None

    def _reads_others(self, functions: Functions, row: int, k: int) -> bool:
        return any(self.system.columns.owner[j] != k + 1 for j in functions.reads(row))

    def write(self, model: Model, cut: Cut) -> None:
        """The cut as rows of a relaxation."""
        k, system = cut.follower, self.system
        rows = system.lower_rows.take(self._rows(k))
        own = system.columns.owner == k + 1
        others = np.flatnonzero(~own)
        there = fix_at(system.lower_objectives.take([k]), others, cut.response)
        fall = model.expression(system.lower_objectives.take([k]), 0) - model.expression(there, 0)
        moving = [r for r in range(rows.count) if self._reads_others(rows.functions, r, k)]
        if not moving:
            model.row(fall, -math.inf, 0.0)
            return
        add = model.scip
        choices = [_switch(model, fall, 0.0)]
        placed = fix_at(rows.functions, others, cut.response)
        for r in moving:
            value = model.expression(placed, r)
            step = _whole_step(system, placed, r, float(rows.upper[r]), float(rows.lower[r]))
            if math.isfinite(rows.upper[r]):
                choices.append(_switch(model, float(rows.upper[r]) + step - value, 0.0))
            if math.isfinite(rows.lower[r]):
                choices.append(_switch(model, value - float(rows.lower[r]) + step, 0.0))
        add.addCons(sum(choices[1:], choices[0] + 0.0) >= 1.0)


def fix_at(functions: Functions, others: Array, response: Array) -> Functions:
    """The functions with the follower's own columns at a response; only ``others`` still move."""
    base = response.copy()
    base[others] = 0.0
    fixed = fix(functions, others, response)
    mask = np.zeros(response.size)
    mask[others] = 1.0
    constant = fixed.constant + fixed.linear @ base
    linear = (fixed.linear * mask).tolil()
    quadratic = {}
    for r, q in fixed.quadratic.items():
        constant[r] += 0.5 * float(base @ (q @ base))
        linear[[r], :] = linear[[r], :].toarray() + (q @ base * mask)[None, :]
        kept = (q * mask).T * mask
        kept = kept.T.tocsr()
        kept.eliminate_zeros()
        if kept.nnz:
            quadratic[r] = kept
    return type(functions)(constant, linear.tocsr(), quadratic, fixed.trees)


def _switch(model: Model, expression: Any, level: float) -> Any:
    """A binary that, where it is 1, forces ``expression <= level``."""
    scip = model.scip
    number = scip.getNVars()
    z = scip.addVar(f"choice.{number}", "B")
    s = scip.addVar(f"value.{number}", "C", lb=None, ub=None)
    scip.addCons(s - expression >= 0.0)
    scip.addConsIndicator(s <= level, z)
    return z


def _whole_step(
    system: System, functions: Functions, row: int, upper: float, lower: float
) -> float:
    """1 where a row takes whole values only (then breaking it means by 1), else 0."""
    if row in functions.trees or row in functions.quadratic:
        return 0.0
    terms = linear_terms(functions, row)
    whole = all(system.columns.integer[j] and float(c).is_integer() for j, c in terms)
    ends = [e - functions.constant[row] for e in (upper, lower) if math.isfinite(e)]
    return 1.0 if whole and all(float(e).is_integer() for e in ends) else 0.0


def solve_by_cuts(
    system: System, relaxation: KKT, given: Callable[[], Limits], relaxed: list[Array]
) -> tuple[Outcome, Progress]:
    """Relaxations and cuts until bound and candidate meet, or the time is up.

    The points of the relaxations are added to ``relaxed``.
    """
    began = time.perf_counter()

    def limits() -> Limits:
        return replace(given(), feasible=FEASIBLE)

    run = Followers(system, limits)
    cuts: list[Cut] = []
    state = Progress()

    def write(model: Model) -> None:
        for cut in cuts:
            run.write(model, cut)

    # The rows alone are quickly solved, and often enough; the conditions are tried afterwards.
    rows, full = Relaxed(high_point(system), extra=write), Relaxed(relaxation, extra=write)
    status = "time_limit"
    quick = min(QUICK * limits().seconds, QUICK_SECONDS)
    for count in range(ROUNDS):
        simple = count < QUICK_ROUNDS and time.perf_counter() - began < quick
        bounds = replace(limits(), seconds=quick) if simple else limits()
        found = (rows if simple else full).solve(bounds)
        if simple and (found.values is None or found.status != "optimal"):
            if found.status == "infeasible":
                status = "infeasible" if state.best is None else "optimal"
                state.bound = state.objective
                break
            quick = 0.0
            continue
        state.nodes += found.nodes
        if found.status in ("infeasible", "unbounded", "trouble", "interrupted"):
            status = found.status
            if found.status == "infeasible" and state.best is not None:
                status, state.bound = "optimal", state.objective
            break
        state.bound = max(state.bound, found.bound)
        if found.values is None:
            break
        relaxed.append(found.values[: system.columns.count])
        ended = _round(run, found, cuts, state)
        gap = limits().gap
        if state.best is not None and state.objective - state.bound <= gap * max(
            1.0, abs(state.objective)
        ):
            status = "optimal"
            break
        if ended:
            status = "stuck"
            break
        if found.status == "time_limit":
            break
    values = state.best
    state.bound = min(state.bound, state.objective)
    outcome = Outcome(
        status, values, state.objective, state.bound, state.nodes, time.perf_counter() - began
    )
    return outcome, state


def _round(run: Followers, found: Outcome, cuts: list[Cut], state: Progress) -> bool:
    """Check the point of a relaxation and add cuts; True where no progress is possible."""
    system = run.system
    assert found.values is not None
    v = found.values[: system.columns.count].copy()
    whole = system.columns.integer
    v[whole] = np.round(v[whole])
    responses = v.copy()
    solved: dict[int, float] = {}
    worse: list[tuple[int, Array, float, float]] = []
    for k in range(len(system.followers)):
        answer = run.solve(k, v)
        state.nodes += answer.nodes
        if answer.status != "optimal" or answer.values is None:
            state.why = f"`{system.followers[k].name}` could not be solved at x: {answer.status}"
            return True
        own = np.flatnonzero(system.columns.owner == k + 1)
        here = float(system.lower_objectives.take([k]).value(v)[0])
        responses[own] = answer.values[own]
        terms = objective_scale(system.lower_objectives, k, responses, own)
        size = max(terms, abs(answer.objective), 1e-3)
        solved[k] = min(answer.objective, here)
        if here - answer.objective > BEST * size:
            worse.append((k, answer.values[: v.size], here, answer.objective))
    if not worse:
        value = float(system.objective.value(v)[0])
        if value < state.objective:
            state.best, state.objective, state.solved = found.values, value, solved
        state.bound = max(state.bound, found.bound)
        return False
    for k, response, here, least in worse:
        inner = run.inner(k, v, here - 0.5 * (here - least))
        cuts.append(Cut(k, response if inner is None else inner[: v.size]))
        if inner is not None:
            cuts.append(Cut(k, response))
    candidate(run, responses, solved, state)
    return False


def candidate(run: Followers, v: Array, solved: dict[int, float], state: Progress) -> float:
    """F at the leader's best among the best responses at x (``v`` holds some of them).

    It is kept in ``state`` where it is the best so far, and infinite where no response suits the
    leader's rows.
    """
    system = run.system
    upper = {int(j): float(v[j]) for j in np.flatnonzero(system.columns.owner <= 0)}
    model = Model(system.columns, upper)
    model.rows(system.upper_rows)
    for k, least in solved.items():
        model.rows(run.loosened(k, v))
        own = np.flatnonzero(system.columns.owner == k + 1)
        size = max(objective_scale(system.lower_objectives, k, v, own), abs(least), 1e-3)
        value = model.expression(system.lower_objectives, k)
        model.row(value, -math.inf, least + 0.2 * BEST * size)
    model.minimize(system.objective)
    found = model.solve(run.limits())
    state.nodes += found.nodes
    if found.values is None:
        return math.inf
    value = float(system.objective.value(found.values)[0])
    if value < state.objective:
        state.best, state.objective, state.solved = found.values, value, dict(solved)
    return value
