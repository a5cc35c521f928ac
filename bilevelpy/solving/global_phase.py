"""The global phase after a certified local end: whether F is better elsewhere in the upper set."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept
from bilevelpy.backends.whole import takes_programs
from bilevelpy.dispatcher import successor
from bilevelpy.dispatcher.conditions import (
    ABSOLUTE_VALUES,
    GROUP_NORMS,
    MERELY_CONVEX,
    POLYNOMIAL,
    SHARED,
    SMOOTH,
    TINY,
    UNIQUE,
)
from bilevelpy.errors import BackendError, ExportError
from bilevelpy.ir.types import Sense
from bilevelpy.options import SolveOptions
from bilevelpy.result import Result, Status
from bilevelpy.solving.multistart import better_point, is_small
from bilevelpy.solving.posed import posed
from bilevelpy.solving.small_weights import with_small_weights
from bilevelpy.solving.starts import start_at, start_vectors

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.model import Model
    from bilevelpy.solving.course import Course
    from bilevelpy.solving.request import Clock

Start = dict[str, Any]
# A run of a backend from a start.
Attempt = Callable[[str, Start, "Decision", SolveOptions], Result]
# Backend, start and options of a run to come.
Plan = tuple[str, Start, SolveOptions]

# A further backend is tried only where this part of the time limit is left.
WORTHWHILE = 0.05
# How far a point may be off to count as bilevel feasible, and F at the response to x.
FEASIBLE, APART = 1e-5, 1e-3
# Differences of F that count as none, and seconds of a global search that checks a local end.
SAME, CHECK = 1e-6, 10.0


@dataclass(frozen=True, slots=True)
class GlobalPhase:
    """Further runs after a solve, made by ``attempt``."""

    model: Model
    facts: Structure
    options: SolveOptions
    clock: Clock
    course: Course
    attempt: Attempt

    def run(
        self, results: list[Result], kept: Result, decision: Decision, tried: list[str]
    ) -> tuple[list[Result], Result, Decision]:
        """The runs with those that follow, the one that is kept and what is noted."""
        for planned in (self._from_better_point, self._by_continuation):
            plan = planned(kept) if time_is_left(self.options, self.clock) else None
            if plan is None:
                continue
            try:
                again, decision = self._followed(plan, kept, decision, tried)
            except (BackendError, ExportError) as error:  # what was found before is not lost
                decision = decision.noted(f"`{plan[0]}`: {said(error)}")
                continue
            if self._is_better(again, kept) and (again.success or again.status is Status.UNBOUNDED):
                found = "a better one" if again.success else "that F has no bound"
                decision = decision.noted(
                    f"F = {kept.F:.6g} was a local optimum of `{kept.backend}`: `{again.backend}` "
                    f"found {found} elsewhere in the upper set"
                )
                results, kept = [*results, again], again
            if not kept.success:
                break
        return results, kept, decision

    def _followed(
        self, plan: Plan, kept: Result, decision: Decision, tried: list[str]
    ) -> tuple[Result, Decision]:
        """The end of a run that was planned, or of the one after it: where F is lower, and this is
        no local optimum to the method, there are several responses, or kinks.
        """
        name, start, options = plan
        again = self.attempt(name, start, decision, options)
        if not (self._is_better(again, kept) and is_point(again)):
            return again, decision
        after = successor(self.facts, again, tried)
        if after is None or not time_is_left(self.options, self.clock):
            return again, decision
        decision, start = decision.noted(after[1]), start_at(again.upper, again.lower)
        with contextlib.suppress(BackendError, ExportError):
            again = self.attempt(after[0], start, decision, self._plain)
        return again, decision

    @property
    def _plain(self) -> SolveOptions:
        return replace(self.options, backend_options={})

    def _is_better(self, again: Result, kept: Result) -> bool:
        sign = -1.0 if self.model.program.upper.sense is Sense.MAXIMIZE else 1.0
        return sign * again.F < sign * kept.F - SAME * max(1.0, abs(kept.F))

    def _from_better_point(self, kept: Result) -> Plan | None:
        """From a better point, or by a global search. A run that was at it when the solve was ended
        has its start.

        Where responses are unique, or as good as that on their supports, points all over the upper
        set of a small model say whether one is better, and larger sparse models run again from
        where no weight holds a variable at 0: such a weight is moved by no slope. Where they are
        not, the leader's choice among them matters too: that is for a global search, for a while.
        """
        model, facts, options, clock = self.model, self.facts, self.options, self.clock
        if takes_programs(registry.get(kept.backend)):
            return None
        left = options.time_limit - clock.elapsed()
        if MERELY_CONVEX(facts) and TINY(facts) and POLYNOMIAL(facts):
            if not isinstance(registry.get("exact").accepts(facts), Accept):
                return None
            limit = clock.elapsed() + min(left, CHECK)
            return "exact", {}, replace(self._plain, time_limit=limit)
        known = self.course.following()
        if known is not None:
            return known, {}, self._plain
        taken = posed(model, facts, registry.get(kept.backend))
        # `kkt` has said where its responses are the only ones; what it goes on from is certified
        # anew.
        rows = kept.backend == "kkt"
        looked = (UNIQUE(facts) or rows) and SMOOTH(taken.facts)
        sparse = ABSOLUTE_VALUES(facts) or GROUP_NORMS(facts)
        x, y = start_vectors(taken.given, start_at(kept.upper, kept.lower), None)
        if not ((looked or sparse) and is_small(taken.functions, affine=rows)):
            upper = with_small_weights(taken.given, x, y) if sparse else None
            if upper is None:
                return None
            return kept.backend, start_at(upper, kept.lower), self._plain
        y = taken.widened(x, y)
        found = better_point(taken.functions, x, y, options.seed, clock.elapsed(), left)
        clock.lap("solve")
        if found is None:
            return None
        lower = taken.given.unflatten_y(taken.narrowed(found[1]))
        return kept.backend, start_at(taken.given.unflatten_x(found[0]), lower), self._plain

    def _by_continuation(self, kept: Result) -> Plan | None:
        """From the end, by the continuations of `kkt` in an added curvature: shares of a nearly
        linear follower jump from vertex to vertex, and points see little of what is between.
        """
        if kept.backend == "kkt" or takes_programs(registry.get(kept.backend)):
            return None
        if not (SHARED(self.facts) and UNIQUE(self.facts)):
            return None
        if not isinstance(registry.get("kkt").accepts(self.facts), Accept):
            return None
        return "kkt", start_at(kept.upper, kept.lower), self._plain


def time_is_left(options: SolveOptions, clock: Clock) -> bool:
    """Whether a further run is worth while."""
    return options.time_limit - clock.elapsed() > WORTHWHILE * min(options.time_limit, 1e9)


def is_point(result: Result) -> bool:
    """Whether the certificate shows a bilevel feasible point, whatever else is wrong with it."""
    c = result.certificate
    if c is None or not math.isfinite(result.F):
        return False
    resolved = c.details.get("F_at_resolved", result.F)
    # Flat followers have a small gap far from their best answer.
    apart = isinstance(resolved, float) and abs(resolved - result.F) > APART * max(
        abs(resolved), abs(result.F), SAME
    )
    return (
        not apart
        and max(c.lower_gap_relative, c.lower_feasibility, c.upper_feasibility) <= FEASIBLE
    )


def said(error: BackendError | ExportError) -> str:
    """The sentence of an error, without its code and place: notes are lines of their own."""
    return re.sub(r"^error\[BLV\d+\]: ", "", str(error).partition("\n")[0])
