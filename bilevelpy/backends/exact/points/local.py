"""Good points before, or instead of, a proof: local solutions of the followers' conditions from
many starts, each confirmed by best responses.

Where the conditions are the bilevel problem itself, a local solution is a point of it. Where they
are only necessary, the followers are solved at its x; a response that a follower prefers becomes a
further row, ``f(x, y) <= f(x, z)``, and the local solution is looked for again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.points.nearest import near_responses
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.leader import candidate
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.nlp.branches import Branch, branch
from bilevelpy.backends.nlp.complementarity import (
    NEAR,
    STEEP,
    WIDE,
    Complementarity,
    stationary_program,
)
from bilevelpy.backends.nlp.forms import is_linear
from bilevelpy.backends.nlp.reduced import Reduced
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.followers.response import JointResponse, with_multipliers
from bilevelpy.numerics.programs.follower import gain, row_scales
from bilevelpy.numerics.programs.interior_point import is_installed
from bilevelpy.reductions.refusal import Refused

if TYPE_CHECKING:
    from bilevelpy.reductions.linearization.integer_duality import Whole
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Local solutions are looked for where a proof takes longer than this share of the time, or that
# many seconds.
FIRST, FIRST_SECONDS = 0.08, 2.0
# Rounds of further rows for one start.
ROUNDS = 6
# A follower that gains less than this (relative to its terms) is content.
CONTENT = 1e-6
# Upper rows may be off by this (relative to their terms) at a point that is worth a confirmation.
OFF = 1e-5
# Distance to a bound or zero at which x all but lies there, and a jump of F that says something.
NEARBY, JUMP = 1e-5, 1e-3
# From this many lower variables on quadratic followers are solved jointly; curved ones from fewer
# on, for a part of the time.
MANY, SOME, HALF = 200, 20, 0.5
# Where they lead to no point, this part of their time more for one by linear programs.
NEAREST = 0.5
# Columns beyond which compiling trees entry by entry takes longer than the search is worth.
LARGEST = 20_000


@dataclass(slots=True)
class LocalPhase:
    """Local solutions that improve ``state``.

    ``settled``: the conditions in ``program`` are the bilevel problem; ``followers`` solves single
    followers globally; ``deadline`` is a reading of ``time.perf_counter``.
    """

    followers: Followers
    state: Progress
    program: KKT
    settled: bool
    rng: np.random.Generator
    deadline: float = math.inf
    kept: list[Branch] = field(default_factory=list)
    points: list[Array] = field(default_factory=list)

    @property
    def system(self) -> System:
        """The program."""
        return self.followers.system

    def run(self, starts: int, enough: int = 8) -> None:
        """Local solutions from the given start and random ones; after ``enough`` starts in a row
        that lead to no better point than the best one, the rest is left out.
        """
        size = self.system.lower_columns.size
        if self.settled and (size >= MANY or (size >= SOME and not is_linear(self.system))):
            self._reduced(starts)
        began = time.perf_counter()
        self._from_starts(starts, enough)
        if self.settled and self.state.best is None and not self.state.stopped:
            found = near_responses(self.program, NEAREST * (self.deadline - began))
            if found is not None:
                self._keep(*found)

    def _from_starts(self, starts: int, enough: int) -> None:
        programs = self._programs()
        if not programs:
            return
        idle = 0
        for t in range(starts):
            if not self._time() or idle >= enough * len(programs):
                return
            program = programs[t % len(programs)]
            before = self.state.objective
            run = Complementarity(program, self.kept)
            start, products = self._start(run, t // len(programs))
            self._from(run, start, products)
            better = self.state.objective < before - 1e-6 * max(1.0, abs(self.state.objective))
            # Without a point there is no reason to stop before the last start.
            idle = 0 if better or self.state.best is None else idle + 1

    def _reduced(self, starts: int) -> None:
        """Many quadratic followers: F along their responses, solved jointly."""
        if not JointResponse.fits(self.system):
            return
        joint = JointResponse(self.system)
        columns = self.system.columns
        low = np.where(np.isfinite(columns.lower), columns.lower, columns.start - 10.0)
        high = np.where(np.isfinite(columns.upper), columns.upper, columns.start + 10.0)
        end = self.deadline
        if self.system.lower_columns.size < MANY:  # conditions may be better
            now = time.perf_counter()
            end = now + HALF * (end - now)
        run = Reduced(self.system, joint, end, 1e-6, lambda v, F: False)
        run.search(
            starts,
            lambda: low + (high - low) * self.rng.random(low.size),
            lambda: not self._time() or time.perf_counter() > end,
        )
        response = None if run.best is None else joint.solve(run.best)
        if run.best is not None and response is not None:
            # Multipliers of one best response are those of all, also of the leader's choice.
            full = with_multipliers(self.program, replace(response, values=run.best))
            self.state.keep(full, run.objective, {})

    def from_points(self, points: list[Array]) -> None:
        """Local solutions from points of relaxations, each on the piece that it lies on."""
        for program in self._programs()[:1]:
            run = Complementarity(program, self.kept)
            count = self.system.columns.count
            for point in points:
                left = self.deadline - time.perf_counter()
                if left <= 0 or self.state.stopped:
                    return
                start = np.concatenate([point[:count], program.columns.start[count:]])
                at = run.settled(start, left)
                if at is not None:
                    self._from(run, at, NEAR)

    def _programs(self) -> list[KKT]:
        """The conditions, and where they are weakened, also those of Karush, Kuhn and Tucker."""
        columns = self.system.columns
        if not is_installed() or bool(columns.integer.any()):
            return []
        if self.program.columns.count > LARGEST:
            return []
        found = [self.program]
        if not self.settled:
            try:
                found.insert(0, stationary_program(self.system))
            except Refused:
                return found
            if found[0].columns.count == self.program.columns.count:
                del found[1]
        return found

    def _start(self, run: Complementarity, t: int) -> tuple[Array, tuple[float, ...]]:
        """Where to begin, and with which relaxed programs: wide ones see far and lead to the same
        point from nearly everywhere, near ones stay about the responses to a random x.
        """
        if t < 2:
            return run.program.columns.start, (WIDE, STEEP)[t]
        start = run.random(self.rng)
        if t % 2 == 0:
            at = run.settled(start, max(self.deadline - time.perf_counter(), 0.25))
            if at is not None:
                return at, NEAR
        return start, STEEP if t % 4 == 1 else WIDE

    def _time(self) -> bool:
        return time.perf_counter() < self.deadline and not self.state.stopped

    def _from(self, run: Complementarity, start: Array, products: tuple[float, ...]) -> None:
        """One start: local solutions, with further rows until the followers are content."""
        cuts = list(self.kept)
        at = start
        for _ in range(ROUNDS):
            left = self.deadline - time.perf_counter()
            if left <= 0:
                return
            found = run.solve(at, min(left, 60.0), products)
            products = WIDE
            if found is None and len(cuts) > len(self.kept):
                # From the followers' side: what they prefer, and no multipliers of anything else.
                count = self.system.columns.count
                at = np.concatenate([at[:count], run.program.columns.start[count:]])
                for cut in cuts:
                    own = self.system.columns.owner == cut.follower + 1
                    at[: own.size][own] = cut.values[: own.size][own]
                found = run.solve(at, min(left, 60.0))
            if found is None:
                return
            goal = self.state.objective - 1e-9 * max(1.0, abs(self.state.objective))
            if found.objective >= goal:
                return
            v = found.values[: self.system.columns.count]
            if self.settled:
                self._keep(found.values, found.objective)
                return
            better = self._better(v)
            if not better:
                return
            cuts += better
            self.kept += [c for c in better if not self._moves(c.follower)]
            run, at = Complementarity(run.program, cuts), found.values

    def _keep(self, values: Array, objective: float) -> None:
        """A point of the bilevel problem, confirmed by fresh solves of the followers."""
        v = values[: self.system.columns.count]
        quick = Responses.of(self.system, self.rng, convex=True)
        for k in range(len(self.system.followers)):
            answer = quick.solve(k, v)
            if answer is None or gain(self.system, k, v, answer[1]) > 10.0 * CONTENT:
                return
        self.state.keep(values, objective, {})

    def _better(self, v: Array) -> list[Branch]:
        """Responses that followers prefer at x; none where ``v`` is bilevel feasible (it is then
        kept) or nothing is known.
        """
        self.points.append(v)
        quick = Responses.of(self.system, self.rng, convex=False)
        found = quick.all(v)
        if found is None:
            return []
        made: list[Branch] = []
        for k in range(len(self.system.followers)):
            if gain(self.system, k, v, found[1][k]) > CONTENT:
                made.append(branch(self.system, k, found[0]))
        if made:
            self._confirm(found[0])
            return made
        value, responses = self._confirm(v)
        if math.isfinite(value) or responses is None:
            return []
        answers = range(len(self.system.followers))
        return [
            branch(self.system, k, responses)
            for k in answers
            if self._gains(k, v, responses) > CONTENT
        ]

    def _gains(self, k: int, v: Array, responses: Array) -> float:
        mixed = v.copy()
        own = self.system.columns.owner == k + 1
        mixed[own] = responses[own]
        return gain(
            self.system, k, v, float(self.system.lower_objectives.take([k]).value(mixed)[0])
        )

    def _confirm(self, v: Array) -> tuple[float, Array | None]:
        """F at the leader's best among the best responses to the leader's part of ``v``, and best
        responses; the point is kept where it is the best so far.
        """
        if not self._promising(v):
            return math.inf, None
        return confirm(self.followers, v, self.state, self.deadline)

    def _promising(self, v: Array) -> bool:
        """Whether ``v`` would be better than what is known, if its responses are best ones."""
        rows = self.system.upper_rows
        if bool((rows.violation(v) > OFF * row_scales(rows, v)).any()):
            return False
        return float(self.system.objective.value(v)[0]) < self.state.objective

    def _moves(self, k: int) -> bool:
        """Whether rows of follower k read variables of others: its responses are then not feasible
        everywhere.
        """
        rows, owner = self.system.lower_rows, self.system.columns.owner
        chosen = np.flatnonzero(rows.follower == k + 1)
        return any(owner[j] != k + 1 for r in chosen for j in rows.functions.reads(int(r)))


def first_look(program: KKT, whole: Whole | None, seconds: float) -> float:
    """Seconds after which local solutions are looked for, of so many that a proof may take."""
    # Their programs are compiled entry by entry: the larger, the later.
    size = max(1.0, program.columns.count / 1000)
    if whole is not None and not whole.program.pairs:
        # Mixed-integer linear: SCIP has good heuristics, and responses no derivatives.
        return min(0.5 * seconds, 10.0 * FIRST_SECONDS * size)
    return min(min(FIRST * size, 0.4) * seconds, FIRST_SECONDS * size)


def confirm(
    followers: Followers, v: Array, state: Progress, deadline: float
) -> tuple[float, Array | None]:
    """F at the leader's best among the best responses, found globally, to the leader's part of
    ``v``; infinite where there are none. With them, values of all columns at best responses.
    """
    system = followers.system
    v = np.clip(v, system.columns.lower, system.columns.upper)
    least: dict[int, float] = {}
    try:
        for k in range(len(system.followers)):
            if time.perf_counter() > deadline:
                return math.inf, None
            answer = followers.solve(k, v)
            if answer.status != "optimal" or answer.values is None:
                return math.inf, None
            own = system.columns.owner == k + 1
            v[own] = answer.values[: v.size][own]
            least[k] = answer.objective
        return candidate(followers, v, least, state), v
    except (ValueError, ArithmeticError):  # a function has no value there
        return math.inf, None


def is_attained(followers: Followers, v: Array, units: Array) -> tuple[str, ...]:
    """A doubt where x all but lies on a bound or at zero and F there is much greater: the value may
    be an infimum that no point attains. Nothing otherwise. ``units`` are those of the columns.
    """
    system = followers.system
    columns = system.columns
    near, moved = v[: columns.count].copy(), []
    for j in system.upper_columns:
        for end in (0.0, float(columns.lower[j]), float(columns.upper[j])):
            if math.isfinite(end) and 0.0 < abs(v[j] - end) <= NEARBY * max(1.0, abs(end)):
                near[j] = end
                moved.append(f"{columns.names[j]} = {end * units[j]:g}")
    if not moved:
        return ()
    here = float(system.objective.value(v[: columns.count])[0])
    there, _ = confirm(followers, near, Progress(), math.inf)
    if not math.isfinite(there) or there <= here + JUMP * max(1.0, abs(here)):
        return ()
    sign = system.sign
    return (
        f"F jumps from {sign * here:.6g} to {sign * there:.6g} at {', '.join(moved[:3])}: the "
        "value may be approached without being attained",
    )
