"""Ways of ``exact`` to a point and a bound: conditions, cuts, single choices, searches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.adversaries.packing import Packing
from bilevelpy.backends.exact.adversaries.packing_tree import PackingTree
from bilevelpy.backends.exact.adversaries.zero_sum import ZeroSum, is_zero_sum
from bilevelpy.backends.exact.branch_and_cut.linking import has_tree, is_linked
from bilevelpy.backends.exact.branch_and_cut.rounds import solve_by_cuts
from bilevelpy.backends.exact.branch_and_cut.tree import solve_by_tree
from bilevelpy.backends.exact.certificate.infeasible import boundless
from bilevelpy.backends.exact.certificate.status import is_close
from bilevelpy.backends.exact.engine.outcome import Interlude, Limits, Outcome
from bilevelpy.backends.exact.engine.pace import Pace
from bilevelpy.backends.exact.engine.scip import LEAST
from bilevelpy.backends.exact.leaders.convex_choices import answered_choices, convex_choices
from bilevelpy.backends.exact.leaders.enumerate import best_of, worst_of_few
from bilevelpy.backends.exact.leaders.few_choices import few_choices
from bilevelpy.backends.exact.leaders.pessimistic import Pessimist
from bilevelpy.backends.exact.leaders.tried import best_of_tried, choices_to_try
from bilevelpy.backends.exact.points.local import LocalPhase, confirm, first_look
from bilevelpy.backends.exact.points.search import good_point, search_on
from bilevelpy.backends.exact.programs import Programs
from bilevelpy.backends.exact.relaxations.duality import write_duality
from bilevelpy.backends.exact.relaxations.price_bounds import with_price_bounds
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.exact.responses.whole_answer import in_whole_numbers
from bilevelpy.backends.whole import Hooks
from bilevelpy.ir.walk import duals

if TYPE_CHECKING:
    from bilevelpy.backends.exact.options import ExactOptions
    from bilevelpy.backends.exact.responses.cut import Cut
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.options import SolveOptions

Array = np.ndarray[Any, np.dtype[Any]]

# Columns up to which a search follows a proof that does not end.
SMALL = 60
# Part of that time for rounds of cuts before a tree.
ROUNDS = 0.2
# Share of the time for a proof; the rest is for a search where it does not end.
SHARE = 0.75
# The same where every choice of the leader may be tried afterwards, and seconds at least and for
# each of them.
TRIED, FIRST, EACH = 0.25, 2.0, 0.02
# Share of the time for cuts of adversaries.
ADVERSARIES = SHARE
# Local solutions may take this share of the time, so many seconds, and so many starts.
LOCAL, LOCAL_SECONDS = 0.3, 60.0
# The same where another method follows, which looks for nothing else.
FOLLOWED = 0.1
STARTS = 24
# Share of the time for best responses to the point that a caller starts from.
START = 0.1
# Seconds that they take at least, up to half of what is left.
AT_START = 1.0
# Choices of a leader who multiplies prices that are tried one by one at most.
FEW = 100
# Seconds that a response may take in the search.
RESPONSE = 1.0


class Ways(Programs):
    """A model with the time that there is, the best point so far, and the ways to better ones."""

    def __init__(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: ExactOptions,
        verify: bool,
        hooks: Hooks,
    ) -> None:
        self.began = time.perf_counter()
        self.options, self.settings, self.verify, self.hooks = options, settings, verify, hooks
        super().__init__(bound, hooks.start)
        self.state = Progress(watch=self._observe)
        # Cuts need not end: without a limit of the caller's they get one.
        free = math.isinf(options.time_limit) and not self.settled
        self.seconds = settings.patience if free else options.time_limit
        self.solved: dict[int, float] | None = None
        # Whether the leader reads the same in all best responses.
        self.told = False
        self.why = ""

    def limits(self, share: float = 1.0, until: float = math.inf) -> Limits:
        """A share of what is left of the time (up to ``until`` seconds from the beginning)."""
        left = min(self.seconds, until) - (time.perf_counter() - self.began)
        return Limits(
            max(share * left, LEAST), self.settings.gap or self.options.tol, self.options.seed
        )

    def _found(self) -> Outcome:
        """What the way for this model leads to."""
        if self.choices is not None:
            found, self.solved = worst_of_few(
                self.program, self.settled, self.choices, lambda: self.limits(0.8), self.state
            )
            return found
        if self.worst is not None:

            def share(part: float) -> Limits:
                return self.limits(0.8 * part)  # the rest is for the certificate

            return Pessimist(self.program, self.whole, self.worst, share, self.state).solve()
        if not self.settled and boundless(self.system) is not None:
            return Outcome("infeasible", None, math.inf, math.inf, 0, 0.0)
        if self.settled:
            return self._by_conditions()
        if self.hooks.start:
            limits = replace(self.limits(START), feasible=FEASIBLE)
            inner = Followers(self.system, lambda: limits)
            confirm(inner, self.system.columns.start, self.state, self.began + limits.seconds)
        packing = Packing.of(self.system)
        if packing is not None:
            return self._by_stages(packing)
        if is_zero_sum(self.system):
            end, rng = ADVERSARIES * self.seconds, np.random.default_rng(self.options.seed)
            found = ZeroSum(self.system, lambda: self.limits(until=end), self.state, rng).solve()
            self.solved = self.state.solved
            if found.status in ("optimal", "infeasible") or self.state.stopped:
                return found
            if found.status == "time_limit" and self.limits(until=end).seconds <= LEAST:
                # Cuts of another kind would begin without a bound.
                return self._search(found, self.state, [])
            self.state.bound = -math.inf  # a bound beside that of cuts would contradict them
        return self._by_cuts()

    def _by_stages(self, packing: Packing) -> Outcome:
        """A tree over stages, and a search where it does not end."""
        end, state = ADVERSARIES * self.seconds, self.state
        found = PackingTree(self.system, packing, lambda: self.limits(until=end), state).solve()
        self.solved = state.solved
        ended = found.status in ("optimal", "infeasible") or state.stopped
        return found if ended else self._search(found, state, [])

    def _observe(self, values: Array, objective: float, bound: float) -> bool:
        """A better point: whoever watches may stop the run."""
        if self.hooks.observe is None:
            return False
        seconds = time.perf_counter() - self.began
        unit = self.units.upper
        v = self.units.given(self._in_whole_numbers(values))
        return self.hooks.observe(self.given, v, unit * objective, unit * bound, seconds)

    def _in_whole_numbers(self, v: Array) -> Array:
        """The point with whole responses, where the model asks for them and they were found in real
        numbers.
        """
        if self.system is self.units.system:
            return v
        limits = replace(self.limits(0.5), feasible=FEASIBLE)
        run = Followers(self.units.system, lambda: limits)
        return in_whole_numbers(run, v, -1.0 if self.pessimistic else 1.0)

    def _by_conditions(self) -> Outcome:
        """SCIP, with local solutions on the way; where a small problem is not solved in time, a
        search in what is left.
        """
        whole = self.whole
        written = self.program if whole is None else whole.program
        games = any(f.nash for f in self.system.followers)
        reports = [r.value for r in self.system.bound.program.reports.values()]
        read = bool((self.system.columns.owner == -1).any())
        prices = read or bool(duals(reports))
        if not games and not prices:
            answered = self._answered_choices()
            if answered is not None:
                return answered
        if read and written.objective.degree > 1:
            # Products with prices have no bounds to branch on.
            few = few_choices(self.system)
            if few is not None and len(few) <= FEW:
                return best_of(self.program, few, lambda: self.limits(0.8), self.state)
            if whole is None:
                written = with_price_bounds(written, self.limits(START))
        program = Relaxed(written, extra=lambda model: write_duality(written, model))
        small = self.system.columns.count <= SMALL and not games and not prices
        limited = math.isfinite(self.seconds) and small
        pace = self._pace()
        state, looks = self.state, [self._local(LOCAL if pace is None else FOLLOWED)]
        if self.hooks.start:
            program = replace(program, start=self._answered(program, state))

        def point() -> Array | None:
            while looks:  # once: SCIP may ask again
                looks.pop()(state)
                if state.best is None and not self.hooks.start:
                    # Any point at all: her start, where her rows hold.
                    self._answered(program, state)
            if state.best is None or whole is None:
                return state.best
            return whole.complete(state.best)

        found = program.solve(
            self.limits(SHARE if limited else 0.9),
            interlude=Interlude(
                first_look(self.program, self.whole, self.seconds), point, state, pace
            ),
        )
        if whole is not None and found.values is not None:
            found = replace(found, values=self._with_multipliers(found.values))
        if state.best is not None and state.objective < found.objective:
            found = replace(found, values=state.best, objective=state.objective)
        if found.values is not None:
            state.best, state.objective = found.values, found.objective
        if found.status == "stuck":
            self.why = (
                "the relaxation has no bound, and too many parts of it would have to be solved"
            )
        elif found.status == "hopeless":
            self.why = "its bound did not come near"
        if found.status not in ("time_limit", "trouble", "stuck") or not limited or state.stopped:
            return found
        return self._search(found, state, [])

    def _with_multipliers(self, v: Array) -> Array:
        """The columns of the conditions at a point of the program without some pairs: multipliers
        that it has not are found beside the responses.
        """
        count = self.program.columns.count
        if v.size >= count or self.state.stopped:
            return v[:count]
        fixed = {j: float(v[j]) for j in range(self.system.columns.count)}
        found = Relaxed(self.program, fixed).solve(self.limits(START))
        return v if found.values is None else found.values

    def _pace(self) -> Pace | None:
        """What ends a proof early: where another method goes on, and the problem is not small."""
        count = self.system.columns.count
        return Pace() if self.hooks.followed and count > SMALL else None

    def _answered_choices(self) -> Outcome | None:
        """Every choice of the leader answered by convex programs, where there are such."""
        points = convex_choices(self.system)
        if points is None:
            return None
        rng = np.random.default_rng(self.options.seed)
        found = answered_choices(self.system, points, lambda: self.limits(0.8), self.state, rng)
        if found is not None:
            self.solved, self.told = self.state.solved, True
        return found

    def _answered(self, program: Relaxed, state: Progress) -> Array | None:
        """The start with best responses to its x, where they are found in time."""
        fixed = {int(j): float(self.system.columns.start[j]) for j in self.system.upper_columns}
        share = max(START, min(0.5, AT_START / self.limits().seconds))
        found = replace(program, fixed=fixed).solve(self.limits(share))
        if found.values is not None:
            state.keep(found.values[: self.program.columns.count], found.objective, {})
        return found.values

    def _local(self, share: float = LOCAL) -> Callable[[Progress], list[Array]]:
        """What looks for local solutions, and returns the points that it met."""

        def run(state: Progress) -> list[Array]:
            left = self.limits().seconds
            seconds = min(share * self.seconds, LOCAL_SECONDS, 0.5 * left)
            deadline = time.perf_counter() + seconds

            def limits() -> Limits:
                rest = deadline - time.perf_counter()
                return replace(
                    self.limits(), seconds=max(min(RESPONSE, rest), 0.05), feasible=FEASIBLE
                )

            inner = Followers(self.system, limits)
            rng = np.random.default_rng(self.options.seed)
            phase = LocalPhase(inner, state, self.program, self.settled, rng, deadline)
            phase.run(STARTS)
            return phase.points

        return run

    def _by_cuts(self) -> Outcome:
        """Cuts for a proof; where time runs out, a search for a better point in what is left."""
        limited = math.isfinite(self.seconds)
        few = choices_to_try(self.system)
        until = self.seconds * (SHARE if limited else 1.0)
        if few is not None:  # cuts get as much time as the other way takes
            until = min(TRIED * self.seconds, max(FIRST, EACH * len(few)))
        relaxed: list[Array] = []
        state = self.state
        found = self._by_tree(until, relaxed)
        if found is None:
            found = solve_by_cuts(
                self.system,
                self.program,
                lambda: self.limits(until=until),
                relaxed,
                state,
                0.0 if self.hooks.start else first_look(self.program, self.whole, self.seconds),
                self._local(),
            )
        self.why = state.why
        ended = found.status not in ("time_limit", "stuck", "trouble")
        ended = ended or is_close(found, self.limits().gap) or state.stopped
        if not ended and few is not None:
            tried = best_of_tried(self.system, few, lambda: self.limits(0.8), state)
            ended = tried.status in ("optimal", "infeasible")
            best = replace(found, values=state.best, objective=state.objective)
            found = tried if ended else replace(best, bound=max(found.bound, tried.bound))
        if not ended and limited and not state.stopped:
            found = self._search(found, state, relaxed)
        self.solved = state.solved
        return found

    def _by_tree(self, until: float, relaxed: list[Array]) -> Outcome | None:
        """One tree, where there is one: after cuts, which few responses may end, and a search."""
        system, state = self.system, self.state
        cuts: list[Cut] = []
        if not has_tree(system):
            return None
        if not is_linked(system):
            end = ROUNDS * min(until, self.seconds)
            found = solve_by_cuts(
                system, self.program, lambda: self.limits(until=end), relaxed, state, made=cuts
            )
            if found.status not in ("time_limit", "stuck", "trouble") or state.stopped:
                return found
            inner = Followers(system, lambda: replace(self.limits(START), feasible=FEASIBLE))
            good_point(inner, state, self.options.seed, relaxed)
        return solve_by_tree(system, lambda: self.limits(until=until), state, cuts)

    def _search(self, found: Outcome, state: Progress, points: list[Array]) -> Outcome:
        """The better of what is known and what a search finds in the time that is left."""

        def limits() -> Limits:
            left = self.limits(0.9)
            return replace(left, seconds=min(left.seconds, RESPONSE), feasible=FEASIBLE)

        deadline = self.began + 0.9 * self.seconds
        rng = np.random.default_rng(self.options.seed + 1)
        inner = Followers(self.system, limits)
        search_on(inner, state, self.program, self.settled, rng, deadline, points, STARTS)
        if state.best is not None and state.best.size < self.program.columns.count and self.settled:
            state.solved = {}
        return replace(found, values=state.best, objective=state.objective)
