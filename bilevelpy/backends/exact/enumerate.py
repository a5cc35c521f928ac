"""Leaders with few choices: every x is tried, with the worst best response to it, or the best.

For a leader who decides whole numbers in finite ranges ::

    min_x max { F(x, y, lam) : (y, lam) satisfies the followers' conditions at x }

is a finite minimum, so it is attained, which a pessimistic value in real numbers need not be.
Multipliers that the leader reads as prices are among what the worst is taken over. Where followers
are linear, the conditions at a fixed x are linear too: every pair is complementary where the sum of
``slack * multiplier`` over all pairs (the primal minus the dual objective) is not positive. Then
the worst response is one linear program.

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
import scipy.sparse as sp

from bilevelpy.backends.exact.demands import demands_of, without
from bilevelpy.backends.exact.followers import FEASIBLE, Followers, Progress
from bilevelpy.backends.exact.leader import leaders_best
from bilevelpy.backends.exact.outcome import Limits, Outcome
from bilevelpy.backends.exact.relax import Relaxed
from bilevelpy.backends.exact.scip import LEAST
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions.optimality.kkt import own_slopes
from bilevelpy.reductions.rows import Functions, Rows, join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Choices of the leader that are tried one by one at most.
MOST = 5000
# Parts of choices that are looked at on the way to them, and rounding of rows.
STEPS, ROOM = 100_000, 1e-9


def few_choices(system: System, *, coupled: bool = False) -> Array | None:
    """The points x that satisfy the leader's rows, one a row (over ``upper_columns``); None where
    they are not finitely many, too many, or a row of the leader reads responses (unless these are
    left to the caller, ``coupled``).
    """
    columns, own = system.columns, system.upper_columns
    low, high = columns.lower[own], columns.upper[own]
    whole = columns.integer[own] | (low == high)
    if not whole.all() or not np.isfinite(low).all() or not np.isfinite(high).all():
        return None
    rows, mine = system.upper_rows, set(own.tolist())
    alone = [r for r in range(rows.count) if rows.functions.reads(r) <= mine]
    if len(alone) < rows.count and not coupled:
        return None
    rows = rows.take(alone)
    ranges = [
        [float(a)] if a == b else np.arange(math.ceil(a), math.floor(b) + 1).tolist()
        for a, b in zip(low, high, strict=True)
        if b - a <= MOST
    ]
    if len(ranges) < own.size:
        return None
    found = _points(ranges, rows, own)
    if found is None:
        return None
    points = np.array(found, dtype=float).reshape(-1, own.size)
    at = columns.start.copy()

    def allowed(x: Array) -> bool:
        at[own] = x
        return float(rows.violation(at).max(initial=0.0)) <= 1e-9

    return points[[allowed(x) for x in points]]


def _points(ranges: list[list[float]], rows: Rows, own: Array) -> list[tuple[float, ...]] | None:
    """All points within the ranges that the linear rows allow; None where they are too many. Values
    are chosen one after the other, and given up where a row has no more room.
    """
    f = rows.functions
    linear = [r for r in range(rows.count) if r not in f.quadratic and r not in f.trees]
    A = sp.csr_array(f.linear[linear])[:, own].toarray()
    ends = np.array([[values[0], values[-1]] if values else [0.0, 0.0] for values in ranges])
    least = np.minimum(A * ends[:, 0], A * ends[:, 1])
    most = np.maximum(A * ends[:, 0], A * ends[:, 1])
    # What the columns from j on add to a row.
    rest = [np.cumsum(part[:, ::-1], axis=1)[:, ::-1] for part in (least, most)]
    rest = [np.hstack([part, np.zeros((len(linear), 1))]) for part in rest]
    room = ROOM * np.maximum(1.0, np.abs(A).sum(axis=1))
    low = rows.lower[linear] - f.constant[linear] - room
    high = rows.upper[linear] - f.constant[linear] + room
    found: list[tuple[float, ...]] = []
    stack: list[tuple[tuple[float, ...], Array]] = [((), np.zeros(len(linear)))]
    steps = 0
    while stack:
        chosen, sums = stack.pop()
        j = len(chosen)
        steps += 1
        if bool((sums + rest[0][:, j] > high).any() or (sums + rest[1][:, j] < low).any()):
            continue
        if j == len(ranges):
            found.append(chosen)
            if len(found) > MOST:
                return None
            continue
        if steps > STEPS:
            return None
        stack += [((*chosen, v), sums + A[:, j] * v) for v in reversed(ranges[j])]
    return found


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


def responses(followers: Followers, at: Array) -> tuple[dict[int, float], str]:
    """The least objectives of all followers at x; ``at`` takes their responses. A linear follower
    without a bound has no best response: "infeasible".
    """
    solved: dict[int, float] = {}
    for k in range(len(followers.system.followers)):
        answer = followers.solve(k, at)
        if answer.status in ("unbounded", "unclear"):
            linear = follower_program(followers.system, k, at).degree == 1
            return solved, "infeasible" if linear else "trouble"
        if answer.status != "optimal" or answer.values is None:
            return solved, answer.status
        mine = followers.system.columns.owner == k + 1
        at[mine] = answer.values[: at.size][mine]
        solved[k] = answer.objective
    return solved, "optimal"


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


def without_pairs(program: KKT) -> Rows | None:
    """The rows and, in place of the pairs, ``sum of slack * multiplier <= 0``; None where a row or
    an objective of a follower is neither linear nor quadratic.
    """
    system, rows, columns = program.system, program.rows, program.columns
    if system.lower_objectives.trees or rows.functions.trees:
        return None
    owner, width = system.columns.owner, columns.count
    linear: dict[int, float] = {}
    products: list[tuple[int, int, float]] = []
    slopes = own_slopes(system)
    for j in program.stationary:
        k = int(owner[j]) - 1
        linear[j] = linear.get(j, 0.0) + float(slopes[j])
        if k in system.lower_objectives.quadratic:
            q = system.lower_objectives.quadratic[k]
            span = slice(q.indptr[j], q.indptr[j + 1])
            products += [
                (j, int(i), float(c)) for i, c in zip(q.indices[span], q.data[span], strict=True)
            ]
    for pair in (*program.pairs, *program.equations):
        low, high = (columns.lower, columns.upper) if pair.row is None else (rows.lower, rows.upper)
        place = pair.column if pair.row is None else pair.row
        assert place is not None
        sign = -1.0 if pair.side == "lower" else 1.0
        end = float((low if pair.side == "lower" else high)[place])
        linear[pair.multiplier] = linear.get(pair.multiplier, 0.0) + sign * end
        if pair.row is not None:
            follower = int(rows.follower[pair.row])
            products += [
                (pair.multiplier, i, -sign * c)
                for i, c in linear_terms(rows.functions, pair.row)
                if not (i < owner.size and owner[i] == follower)
            ]
            if pair.row in rows.functions.quadratic:
                return None
    entries = ([p[2] for p in products], ([p[0] for p in products], [p[1] for p in products]))
    half = sp.csr_array(entries, shape=(width, width))
    places = list(linear)
    row = sp.csr_array(([linear[p] for p in places], ([0] * len(places), places)), shape=(1, width))
    functions = Functions(np.zeros(1), row, {0: sp.csr_array(half + half.T)} if products else {})
    zero, upper_level = np.zeros(1), np.zeros(1, dtype=np.int64)
    gap = Rows(("duality",), functions, zero - np.inf, zero, upper_level, (None,), (None,))
    return join_rows([rows, gap], width)
