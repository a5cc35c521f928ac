"""From a model to a result: compile, analyse, decide, run, certify, pack; and another backend
where the first one fails.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from bilevelpy.backends import registry
from bilevelpy.backends.whole import GIVEN_UP, takes_programs
from bilevelpy.dispatcher import successor
from bilevelpy.errors import BackendError, ExportError, MissingEngine
from bilevelpy.ir.types import Sense
from bilevelpy.lowering.device import check_device
from bilevelpy.model import Model
from bilevelpy.options import SolveOptions
from bilevelpy.records.checkpoint import add_counts
from bilevelpy.result import Record, Result, Status
from bilevelpy.solving.course import Course, from_saved
from bilevelpy.solving.driven import solve_driven
from bilevelpy.solving.facts import check_unchanged, chosen, oracle, structure
from bilevelpy.solving.global_phase import GlobalPhase, Start, is_point, said, time_is_left
from bilevelpy.solving.out_of_time import answer_at_start
from bilevelpy.solving.request import Clock, Request
from bilevelpy.solving.starts import given_values, start_at
from bilevelpy.solving.whole import solve_whole
from bilevelpy.system.deadline import LEAST, TooLong, until
from bilevelpy.system.garbage import imports_done

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision

__all__ = ["Clock", "Request", "check_unchanged", "oracle", "run", "structure"]

# Where one of these could follow it, a search for the global optimum leaves it this part of a time
# limit, or goes on for so many seconds without one: it may end without any answer.
FOLLOWING, LEFT, ALONE = ("direct", "aid", "kkt", "nlp"), 0.25, 60.0
# By how much F has to be better to outweigh a local claim.
BETTER = 1e-3


def run(model: Model, options: SolveOptions, request: Request, began: float) -> Result:
    """Solve ``model`` and certify the answer.

    A backend that was asked for by name is the only one that runs. A chosen one that stalls,
    diverges or is refuted by its certificate is followed by the next of the decision, which is
    made anew where the run has shown facts to be wrong; ``decision.notes`` tell. Where the time is
    up before one could be chosen, the answer is the point to start from.
    """
    imports_done()
    clock, doing = Clock(began), "compiled"
    check_device(options.device)  # also where the method has no use for one
    check_unchanged(model)
    if request.start:
        request = replace(request, start=given_values(model.bound, request.start))
    try:
        with until(max(began + options.time_limit, time.perf_counter() + LEAST)):
            with contextlib.suppress(BackendError):
                oracle(model, options.time_limit - clock.elapsed())
            clock.lap("compile")
            doing = "analysed"
            facts = structure(model, options.seed)
            decision = chosen(model, options)
    except TooLong:
        return answer_at_start(model, options, request, clock, doing)
    clock.lap("analyze")
    if request.decided is not None:
        request.decided(facts, decision)
    course = Course(model, options, request, clock)
    if course.note is not None:
        decision = decision.noted(course.note)
    # The backend's own defaults < what the dispatcher chose for this model < what the user says.
    both = {**decision.options, **options.backend_options}
    settings = replace(options, backend_options=both) if decision.options else options
    # A run that a report may end has its end there: nothing follows it.
    goes_on = options.backend == "auto" and request.verify and request.stop_by is None
    tried, results = [decision.chosen], list[Result]()
    following = _following(decision) if goes_on else None
    if following is not None:
        left = options.time_limit - clock.elapsed()
        share = ALONE if math.isinf(left) else (1.0 - LEFT) * left
        settings = settings.within(clock.elapsed() + share)
    while not results:
        name = tried[-1]
        asked = request if following is None else replace(request, followed=True)
        try:
            results.append(_attempt(model, name, facts, decision, settings, asked, clock, course))
        except MissingEngine:  # the user installs it, or names another backend
            raise
        except (BackendError, ExportError) as error:  # a model that it accepted, but cannot take
            others = [n for n in decision.ranked if n not in tried]
            if options.backend == "auto" and not time_is_left(options, clock):
                return answer_at_start(model, options, request, clock, f"written out for `{name}`")
            if options.backend != "auto" or not others:
                raise
            tried.append(others[0])
            decision = decision.noted(f"`{name}`: {said(error)}; went on with `{others[0]}`")
            settings, following = replace(options, backend_options={}), None
    sign = -1.0 if model.program.upper.sense is Sense.MAXIMIZE else 1.0
    while goes_on and time_is_left(options, clock):
        # A certified end that is worse than what a failed run has reached is no end.
        kept = _kept(results, sign)
        seen = kept if results[-1].success and not kept.success else results[-1]
        if following is not None and seen.status is Status.TIME_LIMIT:
            words = f"`{tried[0]}` came to no end in its part of the time"
            if seen.message.startswith(GIVEN_UP):
                words = f"`{tried[0]}` was {seen.message}"
            after: tuple[str, str] | None = following, f"{words}; went on with `{following}`"
            following = None
        else:
            after = successor(facts, seen, tried, earlier=[r for r in results if r is not seen])
        if after is None:
            break
        name, note = after
        tried.append(name)
        decision = decision.noted(note)
        settings, asked = replace(options, backend_options={}), _from_there(request, kept)
        try:
            results.append(_attempt(model, name, facts, decision, settings, asked, clock, course))
        except (BackendError, ExportError) as error:  # what was found before is not lost
            decision = decision.noted(f"`{name}`: {said(error)}")
    kept = _kept(results, sign)
    proved = kept.certificate is not None and kept.certificate.kind == "global"
    if goes_on and kept.success and not (proved or request.start) and course.note is None:

        def attempt(name: str, start: Start, noted: Decision, options: SolveOptions) -> Result:
            asked = replace(request, start=start)
            return _attempt(model, name, facts, noted, options, asked, clock, course)

        phase = GlobalPhase(model, facts, options, clock, course, attempt)
        results, kept, decision = phase.run(results, kept, decision, tried)
    best = _of_all(results, kept, decision, clock)
    # A run may have had a part of the time only; to do it again takes what was asked for.
    known = best.provenance
    asked_for = {**known["options"], "time_limit": options.time_limit}
    return replace(best, provenance={**known, "options": asked_for})


def _following(decision: Decision) -> str | None:
    """The local method that follows a global search which a limit ends; None where none takes the
    model.
    """
    if decision.chosen != "exact":
        return None
    return next((name for name in decision.ranked if name in FOLLOWING), None)


def _attempt(
    model: Model,
    name: str,
    facts: Structure,
    decision: Decision,
    options: SolveOptions,
    request: Request,
    clock: Clock,
    course: Course,
) -> Result:
    """The answer of one backend; where it was found before the solve was ended, that one."""
    known = course.finished(name)
    if known is not None:
        return replace(known, decision=decision)
    backend, earlier, keeper = registry.get(name), course.begin(name), course.keeper
    asked = from_saved(request, earlier)
    if takes_programs(backend):
        result = solve_whole(model, name, backend, decision, options, asked, clock, earlier, keeper)
    else:
        result = solve_driven(model, name, facts, decision, options, asked, clock, earlier, keeper)
    course.end(result, time_is_left(options, clock))
    return result


def _of_all(results: list[Result], best: Result, decision: Decision, clock: Clock) -> Result:
    """The answer that is kept, with the work of all runs."""
    if len(results) == 1 and not decision.notes:
        return best
    counts: dict[str, int] = {}
    history: list[Record] = []
    for result in results:
        history += [_after(counts, history, record) for record in result.history]
        counts = add_counts(counts, result.counts)
    return replace(
        best,
        decision=decision,
        counts=counts,
        iterations=sum(r.iterations for r in results),
        history=history,
        time=clock.total(),
        warnings=tuple(dict.fromkeys((*decision.notes, *best.warnings))),
    )


def _kept(results: list[Result], sign: float) -> Result:
    """The certified answer, or the least bad one.

    A local claim does not replace a point that its certificate shows to be bilevel feasible and
    that has a clearly better F (``sign`` is -1 where F is maximised).
    """
    best = min(results, key=_badness)
    for result in results:
        gain = sign * (best.F - result.F)
        if is_point(result) and gain > BETTER * max(1.0, abs(best.F)):
            best = result
    return best


def _from_there(request: Request, kept: Result) -> Request:
    """The request, to start from the point of a global search that could not be certified: a local
    method brings it to its digits. Where a local method has failed, the next one starts anew.
    """
    if not takes_programs(registry.get(kept.backend)) or not is_point(kept):
        return request
    return replace(request, start=start_at(kept.upper, kept.lower))


def _after(counts: Mapping[str, int], before: list[Record], record: Record) -> Record:
    """A record of a further run, counted on from those ``before``."""
    if not before:
        return record
    last = before[-1]
    return replace(
        record,
        iteration=last.iteration + record.iteration,
        time=last.time + record.time,
        counts=add_counts(counts, record.counts),
    )


def _badness(result: Result) -> tuple[bool, bool, bool, int]:
    """Certified ends first (also that there is no answer), then bilevel feasible points, then
    finite ones, then those with the fewest reasons against them.
    """
    c = result.certificate
    against = len(c.reasons) if c is not None else 99
    none = result.status is Status.INFEASIBLE and c is not None and c.kind == "global"
    return not (result.success or none), not is_point(result), not math.isfinite(result.F), against
