"""The search of ``nlp``: starts in one form or the other, further rows from better responses."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.nlp.boundless import ENDLESS, FAR, unbounded_ray
from bilevelpy.backends.nlp.branches import branch
from bilevelpy.backends.nlp.complementarity import (
    NEAR,
    STEEP,
    WIDE,
    Complementarity,
    stationary_program,
)
from bilevelpy.backends.nlp.course import Course
from bilevelpy.backends.nlp.forms import (
    is_linear,
    reduced_form,
    reducible,
    require_form,
)
from bilevelpy.backends.nlp.joined import (
    CONTENT,
    are_content,
    has_games,
    has_prices,
)
from bilevelpy.backends.nlp.reduced import Reduced
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.backends.nlp.starts import somewhere
from bilevelpy.backends.whole import Hooks, with_start
from bilevelpy.errors import BackendError
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.numerics.programs.follower import gain, row_scales
from bilevelpy.numerics.programs.interior_point import library
from bilevelpy.options import SolveOptions
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import system
from bilevelpy.system.deadline import TooLong, until

if TYPE_CHECKING:
    from bilevelpy.backends.nlp.options import NLPOptions
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]

# The part of a time limit that the search takes at most; the certificate has the rest.
SEARCH = 0.8
ROUNDS = 6
# The part of the search that the first form has at most where there is another; seconds that that
# has at least, and columns and rows up to which it may be conditions.
FIRST, ANEW, WRITABLE = 0.6, 1.0, 2000


class Search:
    """The best point so far, and the ways to better ones."""

    def __init__(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: NLPOptions,
        verify: bool,
        hooks: Hooks,
    ) -> None:
        self.began = time.perf_counter()
        self.deadline = self.began + SEARCH * options.time_limit
        self.options, self.settings, self.verify, self.hooks = options, settings, verify, hooks
        self.rng = np.random.default_rng(options.seed)
        try:
            self.system = with_start(separate(lift(system(bound))), hooks.start)
        except Refused as error:
            raise BackendError(str(error)) from error
        require_form(self.system, bound.program.stance)
        self.best: Array | None = None
        self.objective = math.inf
        self.starts = 0
        # Somebody wants no more; there was no time to begin.
        self.stopped = self.cut = False
        # How far F was followed on its way without end, and F there; a search ends with it.
        self.boundless: tuple[float, float] | None = None
        # What followers still gained where the response to be kept was solved again.
        self.restless: dict[str, float] = {}
        self.full: Array | None = None
        self.joined = has_games(self.system) or has_prices(self.system)
        self.quick = Responses.of(self.system, self.rng, convex=False)
        self.quick.deadline = self.deadline
        self.conditions: Complementarity | None = None
        self.joint = reduced_form(self.system, settings.form)
        self.reduced: Reduced | None = None
        self.course = Course(hooks.keep, self.rng, lambda: (self.best, self.full, self.objective))
        # A point of a start that was not behind when an earlier run was ended.
        self.spare: tuple[Array, float] | None = None
        if hooks.known is not None:
            self.spare = self.course.go_on(hooks.known, self.system.columns.count)
            v, self.full, objective = self.course.best
            if v is not None:
                self._seen(v, objective)

    def search(self) -> None:
        """Look for points for as long as there is time."""
        end = self.deadline
        if self._has_other_form() and math.isfinite(end):
            self.deadline = self.began + FIRST * (end - self.began)
        with self._ending(), until(self.deadline):
            if self.joint is not None:
                self._reduced(self.joint)
            else:
                library()
                self._conditions()
        self.deadline = self.quick.deadline = end
        kind = None
        if self.joint is None and self.best is None and self.settings.form == "auto":
            kind = self._kind
        if kind is not None and not self.stopped and time.perf_counter() < self.deadline:
            # Conditions with many rows fail, or take long to compile; responses may still be had.
            self.cut, self.joint = False, kind(self.system)
            with self._ending(), until(self.deadline):
                self._reduced(self.joint)
        self._other_form(time.perf_counter() - self.began)
        if self.spare is not None and self.spare[1] < self.objective and not self.joined:
            self._seen(*self.spare)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever is written out inside may run out of time, and be interrupted; what has been
        found is kept.
        """
        try:
            yield
        except TooLong:
            self.cut = True
        except KeyboardInterrupt:
            self.stopped = True

    # --- ways to a point --------------------------------------------------------------------------

    def _reduced(self, joint: JointResponse, known: Array | None = None) -> None:
        """Starts of the reduced form: a ``known`` point, the best of a scan, the given one, random
        ones.
        """
        joint.deadline = self.deadline
        run = Reduced(self.system, joint, self.deadline, self.options.tol, self._seen)
        run.best, run.objective = self.best, self.objective
        self.reduced = run
        if known is not None:
            run.run(known)
        self.starts += run.search(
            self.settings.starts,
            lambda: somewhere(self.system.columns, self.rng),
            lambda: self._late() or self.stopped,
            self.course,
        )

    @cached_property
    def _kind(self) -> type[JointResponse] | None:
        """The kind of reduced form that there is."""
        return reducible(self.system)

    def _has_other_form(self) -> bool:
        """Whether both forms are affordable, and the caller has chosen none."""
        if self.settings.form != "auto" or self.joined or is_linear(self.system):
            return False
        if self.joint is None:
            return self._kind is not None
        return self.system.columns.count + self.system.lower_rows.count <= WRITABLE

    def _other_form(self, spent: float) -> None:
        """The form that was not the first one, for as long as that took: conditions find ties that
        F along the responses steps over, and lose their way where rows are degenerate.
        """
        kind = self._kind
        over = self.stopped or self.boundless is not None or self.best is None
        late = time.perf_counter() > self.deadline
        if over or late or kind is None or not self._has_other_form():
            return
        end, first = self.deadline, (self.joint, self.reduced)
        self.deadline = min(end, time.perf_counter() + max(spent, ANEW))
        self.course = Course(None, self.rng)
        before, self.cut = self.objective, False
        with self._ending(), until(self.deadline):
            if self.joint is None:
                self.joint = kind(self.system)
                self._reduced(self.joint, self.best)
            else:
                library()
                self._conditions()
        self.deadline, self.cut = end, False
        if first[0] is None and self.objective >= before:
            self.joint, self.reduced = first

    def _conditions(self) -> None:
        try:
            program = stationary_program(self.system)
        except Refused as error:
            raise BackendError(str(error)) from error
        self.starts = self.course.count
        for t in range(self.course.count, max(self.settings.starts, self.course.count + 1)):
            run = Complementarity(program) if self.conditions is None else self.conditions
            self.conditions = run
            if t >= self.settings.starts or self._late() or self.stopped:
                return
            products = (WIDE, STEEP)[t] if t < 2 else (NEAR, WIDE)[t % 2]
            start = program.columns.start if t < 2 else run.random(self.rng)
            if products is NEAR:
                at = run.settled(start, self._left())
                products, start = (WIDE, start) if at is None else (NEAR, at)
            self.starts += 1
            self._from(program, run, start, products)
            if run.refused:
                self.cut = True
            if self._late() or self.stopped:
                return
            self.course.finished(t)

    def _from(
        self, program: KKT, run: Complementarity, start: Array, products: tuple[float, ...]
    ) -> None:
        """One start: with further rows until the followers are content."""
        branches: list[Any] = []
        for _ in range(ROUNDS):
            if self._late() or self.stopped:
                return
            found = run.solve(start, self._left(), products)
            if found is None or found.objective >= self.objective:
                return
            if self.joined:
                self._keep_joined(found.values[: program.columns.count])
                return
            v = found.values[: self.system.columns.count]
            answer = self.quick.all(v)
            if answer is None:
                return
            responses, least = answer
            made = [k for k in least if gain(self.system, k, v, least[k]) > CONTENT]
            if not made:
                self._keep(v)
                return
            self._keep_confirmed(responses)
            branches += [branch(self.system, k, responses) for k in made]
            if run.compiled > self._left():  # a larger program takes longer
                return
            run, start, products = Complementarity(program, branches), found.values, WIDE

    def _keep_joined(self, full: Array) -> None:
        """A point of the conditions at which no follower gains alone, if it is the best one."""
        v = full[: self.system.columns.count]
        if not are_content(self.system, self.quick, v):
            return
        before = self.objective
        self._keep(v)
        if self.objective < before:
            self.full = full

    def _keep_confirmed(self, responses: Array) -> None:
        """Responses that followers prefer to those of a local solution, where they prefer nothing
        to these: from other starts they may, and at the end of the time a run leaves what it has.
        """
        if float(self.system.objective.value(responses)[0]) >= self.objective or self._late():
            return
        again = self.quick.all(responses)
        if again is None:
            return
        followers = self.system.followers
        gains = {
            followers[k].level: gain(self.system, k, responses, f) for k, f in again[1].items()
        }
        self.restless = {level: much for level, much in gains.items() if much > CONTENT}
        if not self.restless:
            self._keep(responses)

    def _keep(self, v: Array) -> None:
        """A point with best responses, where it suits the leader and is the best one."""
        rows = self.system.upper_rows
        if bool((rows.violation(v) > 1e-6 * row_scales(rows, v)).any()):
            return
        self._seen(v, float(self.system.objective.value(v)[0]))

    def _seen(self, v: Array, objective: float) -> bool:
        if objective < self.objective:
            self.best, self.objective = v, objective
            self.course.better(v, objective)
            if self.hooks.observe is not None:
                seconds = time.perf_counter() - self.began
                self.stopped = self.hooks.observe(self.system, v, objective, -math.inf, seconds)
            self._look_far(v)
        return self.stopped or self.boundless is not None

    def _look_far(self, v: Array) -> None:
        """Whether x has left every scale of the problem, and F has no bound on its way."""
        chosen = self.system.upper_columns
        start = np.abs(self.system.columns.start[chosen]).max(initial=1.0)
        far = np.abs(v[chosen]).max(initial=0.0) > FAR * start or self.objective < ENDLESS
        if self.boundless is None and far:
            self.boundless = unbounded_ray(self.system, v, self._respond, self._late)

    def _respond(self, v: Array) -> Array | None:
        """Values of all columns at the best responses to the leader's part of ``v``; None where
        there are none.
        """
        if self.reduced is not None:
            return self.reduced.beside(v)
        if self.joined:
            assert self.full is not None
            assert self.conditions is not None
            full = self.full.copy()
            full[: v.size] = v
            answers = self.conditions.answers(full, self._left())
            return None if answers is None else answers[: v.size]
        answer = self.quick.all(v)
        return None if answer is None else answer[0]

    # --- time ------------------------------------------------------------------------------------

    def _left(self) -> float:
        return max(min(self.deadline - time.perf_counter(), 1e4), 0.25)

    def _late(self) -> bool:
        over = self.cut or self.boundless is not None
        return over or time.perf_counter() > self.deadline
