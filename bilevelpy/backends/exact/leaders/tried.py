"""Optimistic leaders with few choices above followers that cuts do not settle: every x is tried.

Cuts exclude responses one by one, and where each is best at a few x only, they come to all of them.
A leader who decides whole numbers in finite ranges has finitely many x. At each one the least F
under the rows of all is a bound; where that is not below the best point, the followers are solved
to global optimality, and F is least among their best responses by value (``leader``), where it is
less than at the best point: that it is not is found out sooner than what it is. The x with the
least bounds come first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST
from bilevelpy.backends.exact.leaders.few_choices import few_choices
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import (
    EDGE,
    FEASIBLE,
    Followers,
    is_sharp,
    responses,
)
from bilevelpy.backends.exact.responses.leader import leaders_best
from bilevelpy.backends.exact.responses.progress import Progress

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Choices that are worth it: a few solves each.
MOST = 2000


def choices_to_try(system: System) -> Array | None:
    """The points x over ``upper_columns`` that the leader's own rows allow; None where they are
    many, or where the best responses of a follower are not told by value.
    """
    if any(f.nash for f in system.followers) or bool((system.columns.owner == -1).any()):
        return None
    points = few_choices(system, coupled=True)
    if points is None or len(points) > MOST:
        return None
    sharp = (is_sharp(system, k, system.columns.start) for k in range(len(system.followers)))
    return points if all(sharp) else None


def best_of_tried(
    system: System, points: Array, limits: Callable[[], Limits], state: Progress
) -> Outcome:
    """The best x and its proof; ``state`` has the best point so far, and may stop. Of what was not
    solved in time the least bound is left.
    """

    def sharper() -> Limits:
        return replace(limits(), feasible=FEASIBLE)

    followers = Followers(system, sharper)
    own = system.upper_columns

    def ended(status: str, bound: float) -> Outcome:
        return Outcome(status, state.best, state.objective, bound, state.nodes, 0.0)

    bounds = _bounds(system, points, sharper, state)
    for i in np.argsort(bounds, kind="stable"):
        x, bound = points[i], float(bounds[i])
        room = sharper().gap * max(1.0, abs(state.objective)) if state.best is not None else 0.0
        if bound >= state.objective - room:
            break
        if sharper().seconds <= LEAST or state.stopped:
            return ended("time_limit", bound)
        at = system.columns.start.copy()
        at[own] = x
        solved, status = responses(followers, at)
        if status == "infeasible":
            continue
        if status != "optimal":
            return ended("time_limit", bound)
        below = state.objective - room
        found = leaders_best(followers, at, solved, below=below)
        state.nodes += found.nodes
        if found.status == "infeasible":
            wide = EDGE, 10.0 * FEASIBLE
            found = leaders_best(followers, at, solved, *wide, below=below)
            state.nodes += found.nodes
            if found.values is not None:
                # What only wider rows make better than the best point is not.
                strict = leaders_best(followers, at, solved)
                found = found if strict.status == "infeasible" else strict
        if found.status == "infeasible":
            continue
        if found.status != "optimal" or found.values is None:
            return ended("time_limit", bound)
        state.keep(found.values[: at.size], found.objective, solved)
    if state.best is None:
        return ended("infeasible", np.inf)
    gap = sharper().gap * max(1.0, abs(state.objective))
    return ended("optimal", state.objective - gap)


def _bounds(system: System, points: Array, limits: Callable[[], Limits], state: Progress) -> Array:
    """The least F at every x under the rows of all: infinite where they leave nothing, minus
    infinity where it was not found in time.
    """
    rows, bounds = high_point(system), np.full(len(points), -np.inf)
    bounded = Relaxed(rows).is_bounded(1.0)  # then it is at every x
    for i, x in enumerate(points):
        if limits().seconds <= LEAST or state.stopped:
            break
        at_x = Relaxed(rows, dict(zip(system.upper_columns.tolist(), x.tolist(), strict=True)))
        found = at_x.model(rows.objective).solve(limits()) if bounded else at_x.solve(limits())
        state.nodes += found.nodes
        if found.status in ("optimal", "infeasible"):
            bounds[i] = np.inf if found.status == "infeasible" else found.bound
    return bounds
