"""The certificate of a point that the caller gives: from another solver, a paper, code of one's
own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.backends import registry
from bilevelpy.backends.exact.given import Given
from bilevelpy.backends.rescaled import SCALABLE
from bilevelpy.backends.whole import takes_programs
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.numerics.certificate.conic import applies
from bilevelpy.numerics.certificate.examine import best_response
from bilevelpy.numerics.certificate.steps import Replay
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.result import Result, Status
from bilevelpy.solving.driven import packed
from bilevelpy.solving.facts import check_unchanged, chosen, oracle, structure, units
from bilevelpy.solving.judge import Judge
from bilevelpy.solving.posed import posed
from bilevelpy.solving.request import Clock, Request
from bilevelpy.solving.starts import given_values, named_values, start_vectors
from bilevelpy.solving.whole import solve_whole
from bilevelpy.system.deadline import LEAST, TooLong, until

if TYPE_CHECKING:
    from torch import Tensor

    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.model import Model
    from bilevelpy.options import SolveOptions
    from bilevelpy.solving.posed import Posed

# Rows of followers whose local optima are global where the objective is convex.
CONVEX_ROWS = ("none", "bounds", "linear", "convex")


def certify(model: Model, answer: Any, options: SolveOptions, began: float) -> Result:
    """The point with its objectives and its certificate; nothing of it is changed.

    Models that a global search would be chosen for are searched, from the point; others are checked
    to first order, as the ends of runs are. Responses that are not given are computed.

    Raises
    ------
    UsageError
        Where the answer lacks variables of the leader, or names what there is not.
    BackendError
        No method takes the model, so that nothing is known of its answers.
    """
    clock = Clock(began)
    check_unchanged(model)
    named = named_values(answer)
    if not isinstance(named, Mapping):
        raise UsageError(
            f"answer takes a mapping of variables to values, a result or a file, found {named!r}"
        )
    values = given_values(model.bound, named, "answer")
    try:
        with until(max(began + options.time_limit, time.perf_counter() + LEAST)):
            with contextlib.suppress(BackendError):
                oracle(model, options.time_limit - clock.elapsed())
            clock.lap("compile")
            facts = structure(model, options.seed)
            decision = chosen(model, options)
    except TooLong:
        raise _late(options) from None
    clock.lap("analyze")
    above, below = _missing(model, values)
    if above:
        raise UsageError(f"answer: it lacks {', '.join(above)} of the leader")
    if below and len(below) < sum(len(level.variables) for level in model.program.lowers):
        raise UsageError(
            f"answer: it lacks {', '.join(below)} of the followers, and has others of theirs: give "
            "all of them, or none, and their best response is computed"
        )
    driven = [n for n in decision.ranked if not takes_programs(registry.get(n))]
    if driven and decision.chosen != "exact":
        return _driven(model, driven[0], facts, values, not below, decision, options, clock)
    lower = facts.lower
    smooth = lower.constraints.value in CONVEX_ROWS and not lower.discrete.value
    given = Given(
        searches="exact" in decision.ranked,
        responds=bool(below),
        convex=facts.is_known_convex and smooth,
    )
    return solve_whole(model, "exact", given, decision, options, Request(values), clock)


def _missing(model: Model, values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Variables of the leader and of followers that have no value."""
    found: tuple[list[str], list[str]] = ([], [])
    for level in model.program.levels:
        below = level is not model.program.upper
        for variable in level.variables:
            full = f"{level.name}.{variable.name}"
            if variable.name not in values and full not in values:
                found[below].append(f"`{full if below else variable.name}`")
    return found


def _driven(
    model: Model,
    name: str,
    facts: Structure,
    values: Mapping[str, Any],
    complete: bool,
    decision: Decision,
    options: SolveOptions,
    clock: Clock,
) -> Result:
    """The point checked as the end of a run of backend ``name`` would be."""
    backend: Any = registry.get(name)
    taken = posed(model, facts, backend)
    x, y = start_vectors(taken.given, values, None)
    scaling = units(model) if name in SCALABLE else None
    judge = Judge(taken, scaling, options, True, clock)
    y, message = taken.widened(x, y), "the point as it was given"
    if not complete:
        y = _response(taken, backend, x, y, options, judge.run_limit())
        message = f"{message}, with the response that was computed"
    clock.lap("solve")
    o = taken.functions
    raw = RunResult(
        x, y, o.F_sign * o.F(x, y), o.f_sign * o.f(x, y), Status.STALLED, message, 0, (), {}, 0.0,
        math.nan, math.nan, math.nan, True,
    )  # fmt: skip
    final, certificate = judge.verdict(raw)
    clock.lap("verify")
    return packed(model, taken, name, final, certificate, decision, clock, None, options)


def _response(
    taken: Posed, backend: Any, x: Tensor, y: Tensor, options: SolveOptions, seconds: float
) -> Tensor:
    """The follower's response to x: with rows as a run begins with it."""
    functions, facts = taken.functions, taken.facts
    rng = torch.Generator().manual_seed(options.seed)
    if facts.steps is not None:
        return Replay(functions, x, y, rng, facts.steps.value).path(x)[-1]
    if not applies(functions) and not functions.g.size:
        try:
            with until(time.perf_counter() + seconds):
                found = best_response(functions, x, y, facts, options, rng)
        except TooLong:
            raise _late(options) from None
        if found is None:
            raise UsageError("answer: the followers have no finite best response to it")
        return found
    at_start = replace(options, max_iter=0, time_limit=seconds)
    return drive(functions, backend, facts, at_start, start=(x, y)).y


def _late(options: SolveOptions) -> UsageError:
    return UsageError(
        f"the time limit of {options.time_limit:g} s was over before the point could be looked at"
    )
