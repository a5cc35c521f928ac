"""F over all best responses at a returned x: what the answer depends on where responses tie."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.expressions import INFINITE
from bilevelpy.backends.exact.relaxations.pairs import without_pairs
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import Followers, is_sharp
from bilevelpy.backends.exact.responses.leader import leaders_best
from bilevelpy.numerics.certificate.constrained import Ties
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions.optimality.pessimistic import Unfit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Seconds that the least and the greatest F over all best responses may take.
SECONDS = 10.0


def ties_by_conditions(program: KKT, v: Array, limits: Limits) -> Ties | None:
    """F over all responses (and multipliers) that satisfy the followers' conditions at x; None
    where it was not found in time.

    Where followers are linear these are two linear programs: with the rows of both sides, the
    pairs are complementary where ``sum of slack * multiplier`` is not positive.
    """
    limits = replace(limits, seconds=min(limits.seconds, SECONDS))
    found = _linear(program, v)
    if found is not None:
        return found
    fixed = {int(j): float(v[j]) for j in program.system.upper_columns}
    relaxed = Relaxed(program, fixed)
    low = relaxed.solve(limits)
    return _between(low, relaxed.solve(limits, sign=-1.0))


def _linear(program: KKT, v: Array) -> Ties | None:
    """The same by two linear programs, where these can say it."""
    rows = without_pairs(program)
    columns = program.columns
    if rows is None or bool(columns.integer[program.system.lower_columns].any()):
        return None
    at = columns.start.copy()
    at[: program.system.columns.count] = v[: program.system.columns.count]
    free = np.setdiff1d(np.arange(columns.count), program.system.upper_columns)
    whole = np.zeros(columns.count, dtype=bool)
    ends: list[float] = []
    for sign in (1.0, -1.0):
        goal = program.objective.scaled(sign)
        one = Program(goal, rows, columns.lower, columns.upper, whole, free, at)
        if one.degree != 1:
            return None
        found = one.solve()
        if found.status not in ("optimal", "unbounded"):
            return None
        ends.append(sign * (found.objective if found.status == "optimal" else -math.inf))
    return Ties(ends[0], ends[1])


def ties_by_values(
    followers: Followers, v: Array, solved: Mapping[int, float], limits: Limits
) -> Ties | None:
    """F over the responses whose objectives are the followers' least ones, ``solved``; None where
    it was not found in time, or where a follower is neither linear nor decides whole numbers only:
    the tolerance of its objective would be worth its square root in F.
    """
    system = followers.system
    if not solved or not all(is_sharp(system, k, v) for k in range(len(system.followers))):
        return None
    seconds = min(limits.seconds, SECONDS)
    inner = Followers(system, lambda: replace(limits, seconds=seconds))
    low = leaders_best(inner, v, solved)
    return _between(low, leaders_best(inner, v, solved, sign=-1.0))


def _between(low: Outcome, high: Outcome) -> Ties | None:
    """Both ends, where they were found, or there is none: squares of what SCIP takes for infinite
    may end a little below its infinity.
    """
    ends = []
    for end in (low, high):
        if end.status == "unbounded" or end.objective <= -1e-3 * INFINITE:
            ends.append(-math.inf)
        elif end.status == "optimal":
            ends.append(end.objective)
        else:
            return None
    return Ties(ends[0], -ends[1])


def worst_within(followers: Followers, v: Array, limits: Limits) -> float | None:
    """The greatest F over the responses at x that are best within the tolerance of a best response;
    None where that says nothing (see :func:`ties_by_values`) or was not found in time.
    """
    system = followers.system
    v = v[: system.columns.count]
    if not all(is_sharp(system, k, v) for k in range(len(system.followers))):
        return None
    inner = Followers(system, lambda: replace(limits, seconds=min(limits.seconds, SECONDS)))
    solved: dict[int, float] = {}
    for k in range(len(system.followers)):
        answer = inner.solve(k, v)
        if answer.status != "optimal":
            return None
        solved[k] = answer.objective
    high = leaders_best(inner, v, solved, sign=-1.0)
    return -high.objective if high.status == "optimal" else None


def require_sharp(system: System) -> None:
    """Refuse followers whose worst best response cannot be found by value.

    Raises
    ------
    Unfit
        Naming the follower.
    """
    for k, follower in enumerate(system.followers):
        if not is_sharp(system, k, system.columns.start):
            reason = f"`{follower.name}` is neither linear nor decides whole numbers only"
            raise Unfit(reason, follower.span)
