"""Leaders of few choices above convex followers: every choice is answered by a convex program.

Conditions of followers that are neither linear nor quadratic (congestion, entropies) are as hard as
any other equation for a global solver. At a fixed x nothing of that is needed: a local minimum is
the global one, which the tangent there proves. What is needed instead is that the leader's value
does not depend on which of several best responses it is: what she reads must be the same in all
(:mod:`bilevelpy.reductions.rewriting.determined`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST
from bilevelpy.backends.exact.leaders.few_choices import few_choices
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.certificate.constrained import FEASIBLE
from bilevelpy.numerics.programs.follower import follower_program, objective_scale, row_scales
from bilevelpy.numerics.programs.interior_point import is_installed
from bilevelpy.numerics.programs.linearised import tangent_bound
from bilevelpy.reductions.rewriting.determined import determined

if TYPE_CHECKING:
    from bilevelpy.backends.exact.responses.progress import Progress
    from bilevelpy.numerics.programs.smooth import Program
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# A response is the best one where the tangent allows less than this, relative to the terms of f.
BEST = 1e-7


def convex_choices(system: System) -> Array | None:
    """The points x that are tried, for convex followers whose conditions are no polynomials of
    degree two; None where they are too many, or nothing solves such followers.
    """
    if not system.lower_objectives.trees or not is_installed():
        return None
    return few_choices(system, coupled=True)


def answered_choices(
    system: System,
    points: Array,
    limits: Callable[[], Limits],
    state: Progress,
    rng: np.random.Generator,
) -> Outcome | None:
    """The x with the least F at the best responses to it; None where what the leader reads may
    differ among them. ``state`` keeps the best point with the followers' objectives.
    """
    own, responses = system.upper_columns, Responses.of(system, rng, convex=True)
    at, values = system.columns.start.copy(), None
    best, status, tried = math.inf, "optimal", 0
    for x in points:
        if limits().seconds <= LEAST or state.stopped:
            return Outcome("time_limit", values, best, -math.inf, tried, 0.0)
        at[own] = x
        tried += 1
        responses.deadline = time.perf_counter() + limits().seconds
        answer = responses.all(at)
        if answer is None:
            if not _has_no_response(system, at):
                status = "trouble"
            continue
        at, least = answer
        programs = {k: follower_program(system, k, at).reduced() for k in least}
        if not _is_told(system, programs):
            return None
        if not all(_is_best(system, k, programs[k], least[k]) for k in least):
            status = "trouble"
            continue
        rows = system.upper_rows
        if bool((rows.violation(at) > FEASIBLE * row_scales(rows, at)).any()):
            continue
        value = float(system.objective.value(at)[0])
        if value < best:
            best, values = value, at.copy()
            state.keep(values, best, least)
    if values is None and status == "optimal":
        status = "infeasible"
    # Responses are known to a tolerance, and F is no better known.
    bound = best - BEST * max(1.0, abs(best)) if status == "optimal" else -math.inf
    return Outcome(status, values, best, bound, tried, 0.0)


def _is_told(system: System, programs: Mapping[int, Program]) -> bool:
    """Whether all that the leader reads is the same in every best response."""
    known = set(system.upper_columns.tolist())
    for program in programs.values():
        known |= determined(program.objective, program.free)
    rows = system.upper_rows.functions
    read = set(system.objective.reads(0)).union(*(rows.reads(r) for r in range(rows.count)))
    return read <= known


def _is_best(system: System, k: int, program: Program, least: float) -> bool:
    v = program.at
    size = max(objective_scale(system.lower_objectives, k, v, program.free), abs(least), 1e-3)
    return least - tangent_bound(program, v) <= BEST * size


def _has_no_response(system: System, v: Array) -> bool:
    """Whether a follower has no feasible point: a linear program without an objective."""
    nothing = np.zeros(v.size)
    programs = (follower_program(system, k, v) for k in range(len(system.followers)))
    return any(p.with_slope(nothing).solve().status == "infeasible" for p in programs)
