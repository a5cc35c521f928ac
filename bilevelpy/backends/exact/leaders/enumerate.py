"""Leaders with few choices: every x is tried, with the worst best response to it, or the best.

For a leader who decides whole numbers in finite ranges ::

    min_x max { F(x, y, lam) : (y, lam) satisfies the followers' conditions at x }

is a finite minimum, so it is attained, which a pessimistic value in real numbers need not be.
Multipliers that the leader reads as prices are among what the worst is taken over. Where followers
are linear, the conditions at a fixed x are linear too, with all pairs in one row (strong duality).
Then the worst response is one linear program.

Followers that conditions do not settle are solved to global optimality at every x, and the worst of
their best responses is found by value: ``max F`` under ``f <= f*``. That is sharp for whole numbers
and linear programs; elsewhere the tolerance of ``f*`` would be worth its square root.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST
from bilevelpy.backends.exact.leaders.demands import demands_of, without
from bilevelpy.backends.exact.relaxations.pairs import without_pairs
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers, responses
from bilevelpy.backends.exact.responses.leader import leaders_best
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions.rows import Rows

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

Array = np.ndarray[Any, np.dtype[Any]]


def best_of(program: KKT, points: Array, limits: Callable[[], Limits], state: Progress) -> Outcome:
    """The x with the least F over the best responses and multipliers there; followers without a
    response at x rule it out. ``state`` keeps the best point, and may stop.
    """
    own = program.system.upper_columns
    best, values, nodes, status = math.inf, None, 0, "optimal"
    for x in points:
        left = limits()
        if left.seconds <= LEAST or state.stopped:
            return Outcome("time_limit", values, best, -math.inf, nodes, 0.0)
        fixed = {int(j): float(v) for j, v in zip(own, x, strict=True)}
        found = Relaxed(program, fixed).solve(left)
        nodes += found.nodes + 1
        if found.status == "unbounded":
            return found
        if found.status not in ("optimal", "infeasible"):
            status = found.status
        if found.values is not None and found.objective < best:
            best, values = found.objective, found.values
            state.keep(values, best, {})
    bound = best if status == "optimal" else -math.inf
    if values is None and status == "optimal":
        status = "infeasible"
    return Outcome(status, values, best, bound, nodes, 0.0)


def worst_of_few(
    program: KKT, settled: bool, points: Array, limits: Callable[[], Limits], state: Progress
) -> tuple[Outcome, dict[int, float] | None]:
    """The x whose worst best response is the least; with the followers' least objectives there,
    where conditions do not settle them. ``state`` keeps the best point, and may stop.
    """
    if settled:
        return worst_of(program, points, limits, state), None

    def sharper() -> Limits:
        return replace(limits(), feasible=FEASIBLE)

    return worst_by_values(Followers(program.system, sharper), points, sharper, state)


def worst_of(program: KKT, points: Array, limits: Callable[[], Limits], state: Progress) -> Outcome:
    """The x whose worst best response is the least; followers without one at x rule it out, and so
    do best responses that break a row of the leader.
    """
    own = program.system.upper_columns
    upper = [kind == "upper" for kind in program.kinds]
    demands = demands_of(program.rows, np.array(upper, dtype=bool), own)
    program = replace(program, rows=without(program.rows, demands))
    asked = [(replace(program, objective=d.function), d) for d in demands]
    rows = without_pairs(program)
    best, values = math.inf, None
    for x in points:
        left = limits()
        if left.seconds <= LEAST or state.stopped:
            return Outcome("time_limit", values, best, -math.inf, len(points), 0.0)
        status, worst, at = _worst_at(program, rows, own, x, left)
        if status in ("infeasible", "unbounded"):
            continue  # no response, or one that is as bad as one likes
        if status != "optimal":
            return Outcome("time_limit", values, best, -math.inf, len(points), 0.0)
        if worst < best - 1e-9 * max(1.0, abs(worst)):
            said = [(*_worst_at(one, rows, own, x, limits())[:2], d) for one, d in asked]
            if any(s == "optimal" and value > d.end + d.room for s, value, d in said):
                continue
            if any(s == "unbounded" for s, _, _ in said):
                continue
            if any(s != "optimal" for s, _, _ in said):
                return Outcome("time_limit", values, best, -math.inf, len(points), 0.0)
            best, values = worst, at
            if at is not None:
                state.keep(at, best, {})
    status = "infeasible" if values is None else "optimal"
    return Outcome(status, values, best, best, len(points), 0.0)


def worst_by_values(
    followers: Followers, points: Array, limits: Callable[[], Limits], state: Progress
) -> tuple[Outcome, dict[int, float]]:
    """The x whose worst best response is the least, and the followers' least objectives there; all
    best responses have to meet the rows of the leader.
    """
    system = followers.system
    own, given = system.upper_columns, system.upper_rows
    demands = demands_of(given, np.ones(given.count, dtype=bool), own)
    system = replace(system, upper_rows=without(given, demands))
    followers = replace(followers, system=system)
    asked = [(replace(followers, system=replace(system, objective=d.function)), d) for d in demands]
    best, values = math.inf, None
    known: dict[int, float] = {}
    nodes = 0

    def ended(status: str, bound: float) -> tuple[Outcome, dict[int, float]]:
        return Outcome(status, values, best, bound, nodes, 0.0), known

    for x in points:
        if limits().seconds <= LEAST or state.stopped:
            return ended("time_limit", -math.inf)
        at = system.columns.start.copy()
        at[own] = x
        solved, status = responses(followers, at)
        if status == "infeasible":
            continue
        if status != "optimal":
            return ended("trouble" if status == "trouble" else "time_limit", -math.inf)
        if float(system.objective.value(at)[0]) >= best:
            continue  # the worst response is no better than the one in hand
        found = leaders_best(followers, at, solved, sign=-1.0)
        nodes += found.nodes + len(solved)
        if found.status == "unbounded":
            continue
        if found.status != "optimal" or found.values is None:
            return ended("time_limit", -math.inf)
        if -found.objective < best - 1e-9 * max(1.0, abs(best) if values is not None else 0.0):
            said = [(leaders_best(one, at, solved, sign=-1.0), d) for one, d in asked]
            if any(s.status == "unbounded" for s, _ in said):
                continue
            if any(s.status == "optimal" and -s.objective > d.end + d.room for s, d in said):
                continue
            if any(s.status != "optimal" for s, _ in said):
                return ended("time_limit", -math.inf)
            best, values, known = -found.objective, found.values[: at.size], solved
            state.keep(values, best, solved)
    return ended("infeasible" if values is None else "optimal", best)


def _worst_at(
    program: KKT, rows: Rows | None, own: Array, x: Array, limits: Limits
) -> tuple[str, float, Array | None]:
    """Status, the greatest F over the best responses to x, and where."""
    if rows is not None:
        columns = program.columns
        at = columns.start.copy()
        at[own] = x
        free = np.setdiff1d(np.arange(columns.count), own)
        whole = np.zeros(columns.count, dtype=bool)
        lower, upper = columns.lower, columns.upper
        linear = Program(program.objective.scaled(-1.0), rows, lower, upper, whole, free, at)
        if linear.degree == 1:
            found = linear.solve()
            if found.status != "unknown":
                return found.status, -found.objective, found.values
    fixed = {int(j): float(v) for j, v in zip(own, x, strict=True)}
    outcome = Relaxed(program, fixed).solve(limits, sign=-1.0)
    return outcome.status, -outcome.objective, outcome.values
