"""Followers that optimality conditions do not settle: nonconvex, integer, or with kinks.

A relaxation (the conditions that every best response meets, or just the rows) is solved to global
optimality. The followers are then solved to global optimality at its x. Where the response of the
relaxation is no best one, a better response ``z`` gives a cut that holds for every bilevel feasible
point::

    f(x, y) <= f(x, z)    or    z breaks a row of the follower at x

Bounds grow and candidates improve until they meet. ``z`` is taken with slack in its rows where
there is some, so that the cut removes a neighbourhood of the point, and moves with x where its rows
say how. Where a relaxation ends on the edge of what cuts allow, twins tell whether there is
anything behind it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.cuts.closure import twin_of
from bilevelpy.backends.exact.cuts.moving import moving
from bilevelpy.backends.exact.cuts.pool import Pool
from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST, Model
from bilevelpy.backends.exact.points.onto import onto_bounds
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.cut import Cut
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.judge import answers, judged
from bilevelpy.backends.exact.responses.leader import candidate
from bilevelpy.backends.exact.responses.progress import APART, Progress, contradicts

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# The rows alone as a relaxation: rounds, share of the time and seconds that they get.
QUICK_ROUNDS, QUICK, QUICK_SECONDS = 12, 0.2, 10.0
ROUNDS = 400
# Seconds of a relaxation, and part of the time gone by, after which the points that it has met give
# cuts, finished or not; twice as many where they give none.
PART, SHARE = 1.0, 0.5
# Seconds that a follower has at least before local solutions are looked for.
FIRST_LOOK = 0.5
# Points of local solutions that cuts are made from.
POINTS = 12
# Margins by which a response has to break its row at points inside, and the time for each of them.
MARGINS, INSIDE = (1e-2, 1e-4), 0.1
# On the way back from there so much is left to the edge.
BACK = 1e-2
# Where cuts end without a proof.
INFIMUM = (
    "a relaxation meets all cuts at a point where a follower prefers another response: the value "
    "may be an infimum that no point attains"
)


def solve_by_cuts(
    system: System,
    relaxation: KKT,
    given: Callable[[], Limits],
    relaxed: list[Array],
    state: Progress,
    after: float = math.inf,
    meanwhile: Callable[[Progress], list[Array]] | None = None,
    made: list[Cut] | None = None,
) -> Outcome:
    """Relaxations and cuts until bound and candidate meet, or the time is up.

    The points of the relaxations are added to ``relaxed``, the cuts to ``made``. After so many
    seconds ``meanwhile`` may improve the progress once; its points are checked like those of
    relaxations.
    """
    began = time.perf_counter()
    rounds = Rounds(system, relaxation, given, relaxed, state, after, meanwhile)
    status = rounds.solve()
    if made is not None:
        made += rounds.pool.cuts
    onto_bounds(rounds.pool.run, state, given().gap)
    values = state.best
    if contradicts(state.bound, -math.inf, state):  # the last point may be what shows it
        state.bound, status = -math.inf, "stuck"
    state.bound = min(state.bound, state.objective)
    return Outcome(
        status, values, state.objective, state.bound, state.nodes, time.perf_counter() - began
    )


class Rounds:
    """The relaxations, cuts in hand, and what is left of the time of each."""

    def __init__(
        self,
        system: System,
        relaxation: KKT,
        given: Callable[[], Limits],
        relaxed: list[Array],
        state: Progress,
        after: float,
        meanwhile: Callable[[Progress], list[Array]] | None,
    ) -> None:
        self.began = time.perf_counter()
        self.relaxation, self.given, self.relaxed, self.state = relaxation, given, relaxed, state
        self.after, self.meanwhile = after, meanwhile
        self.pool = Pool(Followers(system, self._limits))
        rows = high_point(system)
        self.rows, self.closed = rows.rows, False
        # The rows alone are quickly solved, and often enough; the conditions are tried afterwards.
        self.simply, self.full = (Relaxed(r, extra=self._write) for r in (rows, relaxation))
        integer = system.columns.integer
        # Real numbers of the leader go where F is best: points on the way there say little.
        self.whole = bool(
            integer[system.lower_columns].any() and integer[system.upper_columns].all()
        )
        self.quick, self.spent = min(QUICK * self._limits().seconds, QUICK_SECONDS), 0.0
        self.status, self.settled, self.times = "time_limit", -math.inf, 1.0

    def solve(self) -> str:
        """How the rounds ended."""
        for count in range(ROUNDS):
            if self.state.stopped or self.given().seconds <= LEAST:
                break
            if time.perf_counter() - self.began >= self.after:
                self._locally()
            if not self._one(count < QUICK_ROUNDS and self.spent < self.quick):
                break
        return self.status

    def _limits(self) -> Limits:
        """Those of a follower: local solutions are not to wait for one that is hard to solve."""
        found = replace(self.given(), feasible=FEASIBLE)
        if self.meanwhile is None:
            return found
        rest = max(self.after - (time.perf_counter() - self.began), FIRST_LOOK)
        return replace(found, seconds=min(found.seconds, rest))

    def _write(self, model: Model) -> None:
        self.pool.write(model, twin=twin_of(model, self.rows) if self.closed else None)

    def _locally(self) -> None:
        """Check the points of local solutions, once, like those of relaxations."""
        search, self.meanwhile = self.meanwhile, None
        if search is None:
            return
        for point in search(self.state)[:POINTS]:
            _round(self.pool, Outcome("", point, math.nan, -math.inf, 0, 0.0), self.state)

    def _one(self, simple: bool) -> bool:
        """One round, ``simple`` with the rows alone; whether another one follows."""
        state, before = self.state, len(self.pool.cuts)
        started = time.perf_counter()
        found = self._relaxation(simple)
        if self.meanwhile is not None and found.status in ("time_limit", "trouble", "unbounded"):
            self.after = 0.0  # not to be had so quickly: now is the time
            return True
        if found.status == "infeasible":
            self.status = _without_relaxation(state)
            return False
        solved = found.values is not None and found.status == "optimal"
        if simple and not solved and found.status != "interrupted":
            self.quick = 0.0
            return True
        if found.status in ("unbounded", "trouble", "interrupted"):
            self.status = found.status
            return False
        if found.status == "optimal" and not self._believes(found.bound):
            return False
        state.bound = max(state.bound, found.bound)
        unfinished = found.status == "time_limit" and self.whole and self.given().seconds > LEAST
        if found.values is None:
            self.times *= 2.0
            return unfinished
        self.relaxed.append(found.values[: self.pool.run.system.columns.count])
        gap = self._limits().gap
        ended = _round(self.pool, found, state, gap if simple else math.inf)
        _also(self.pool, found, state, time.perf_counter() - started)
        room = gap * max(1.0, abs(state.objective))
        if state.best is not None and state.objective - state.bound <= room:
            self.status = "optimal"
            return False
        if unfinished and ended != "unsolved":
            self.times = 1.0 if len(self.pool.cuts) > before else 2.0 * self.times
            return True
        return self._goes_on(ended, found, simple)

    def _relaxation(self, simple: bool) -> Outcome:
        """The relaxation solved with the cuts so far, in the time that a round gets."""
        bounds = self._limits()
        passed = time.perf_counter() - self.began
        if simple:
            bounds = replace(bounds, seconds=self.quick - self.spent)
        if self.meanwhile is not None:
            bounds = replace(bounds, seconds=min(bounds.seconds, max(self.after - passed, 0.05)))
        elif self.whole:
            part = self.times * max(PART, SHARE * passed)
            bounds = replace(bounds, seconds=min(bounds.seconds, part))
        started = time.perf_counter()
        found = (self.simply if simple else self.full).solve(bounds)
        # What a first look took before local solutions were found does not count.
        if simple and self.meanwhile is None:
            self.spent += time.perf_counter() - started
        self.state.nodes += found.nodes
        return found

    def _believes(self, bound: float) -> bool:
        """Whether the optimal value of a relaxation agrees with what is known."""
        if not contradicts(bound, self.settled, self.state):
            self.settled = max(self.settled, bound)
            return True
        self._locally()
        self.state.bound, self.status = -math.inf, "stuck"
        return False

    def _goes_on(self, ended: str, found: Outcome, simple: bool) -> bool:
        """Whether another round may lead on from a point that ``ended`` as :func:`_round` says."""
        if ended == "known" and simple:
            self.quick = 0.0  # the conditions may cut the point off
            return True
        if ended == "known" and not self.closed:
            self.closed = True
            return True
        if ended and self.meanwhile is not None:
            self.after = 0.0  # local solutions have points and more time
            return True
        assert found.values is not None
        known, where = ended == "known", (found.values, self._limits(), self.state)
        if known and _inside(self.pool, self.relaxation, *where):
            return True
        if ended:
            self.status = "stuck"
            return False
        return found.status != "time_limit"


def _without_relaxation(state: Progress) -> str:
    """The end where a relaxation has no point: the problem has none either. With a point in hand
    that is a contradiction within tolerances, and proves nothing.
    """
    if state.best is None:
        return "infeasible"
    state.why = "the relaxation has lost the best point within the tolerances of SCIP"
    return "stuck"


def _also(pool: Pool, found: Outcome, state: Progress, seconds: float) -> None:
    """Cuts from other points of a relaxation, each at an x of its own, for as long as that took: a
    follower is mostly solved far sooner.
    """
    until = time.perf_counter() + seconds
    leader = np.flatnonzero(pool.run.system.columns.owner == 0)
    seen = [] if found.values is None else [found.values[leader]]
    for point in found.others:
        if time.perf_counter() > until or state.stopped:
            return
        if all(float(np.abs(point[leader] - x).max(initial=0.0)) > 0.5 for x in seen):
            seen.append(point[leader])
            _round(pool, Outcome("", point, math.nan, -math.inf, 0, 0.0), state)


def _inside(pool: Pool, relaxation: KKT, edge: Array, limits: Limits, state: Progress) -> bool:
    """Whether a point beside the ``edge`` of what cuts allow is better, or gives a new cut.

    On the edge a response breaks its row by nothing, and the follower may still take it; where F
    does not fall towards the edge, it is as good a little inside. Where F falls, points on the way
    back come near to its value.
    """
    whole = pool.run.system.columns.integer
    best, before = state.objective, len(pool.cuts)
    for margin in MARGINS:

        def write(model: Model, margin: float = margin) -> None:
            pool.write(model, margin)

        seconds = max(INSIDE * limits.seconds, min(LEAST, limits.seconds))
        found = Relaxed(relaxation, extra=write).solve(replace(limits, seconds=seconds))
        state.nodes += found.nodes
        if found.values is None:
            continue
        points, way = [found.values], found.values - edge
        if float(np.abs(way[: whole.size][whole]).max(initial=0.0)) < 0.5:
            points.append(edge + BACK * way)
        known = state.bound
        for point in points:
            _round(pool, replace(found, values=point, bound=-math.inf), state)
        state.bound = known
        better = state.objective < best - APART * limits.gap * max(1.0, abs(best))
        if len(pool.cuts) > before or better:
            return True
    return False


def _round(pool: Pool, found: Outcome, state: Progress, worth: float = math.inf) -> str:
    """Check the point of a relaxation and add cuts; "unsolved" where a follower could not be solved
    there, "known" where all cuts are there already, or where its response is a best one within the
    tolerance of f, which is more than ``worth`` (relative) to F; else nothing.
    """
    run, system = pool.run, pool.run.system
    assert found.values is not None
    v = found.values[: system.columns.count].copy()
    whole = system.columns.integer
    v[whole] = np.round(v[whole])
    best = answers(run, v, state)
    if best is None:
        return "unsolved"
    judgement = judged(run, v, best)
    responses, solved = judgement.responses, judgement.solved
    if not judgement.worse:
        hidden = [(k, run.beside(k, v, least)) for k, least in solved.items()]
        made = [run.cut(k, z) for k, z in hidden if z is not None]
        if made:
            unknown = [cut for cut in made if not pool.is_known(cut)]
            pool.cuts += unknown
            state.why = INFIMUM
            return "" if unknown else "known"
        F, exact = (float(system.objective.value(at)[0]) for at in (v, responses))
        if abs(exact - F) > worth * max(1.0, abs(F)):
            # The conditions pin the response to first order, a tolerance of f to its root only.
            candidate(run, responses, solved, state)
            return "known"
        state.keep(found.values, F, solved)
        state.bound = max(state.bound, found.bound)
        return ""
    before = len(pool.cuts)
    for one in judgement.worse:
        k, response, half = one.follower, one.response, 0.5 * (one.here - one.least)
        # Among whole numbers responses with slack are mostly worse ones: they are asked for where
        # the best one has been cut from before, and x avoids its rows by nothing.
        discrete = bool(system.columns.integer[system.columns.owner == k + 1].any())
        new = discrete and not pool.is_known(Cut(k, response))
        inner = None if new else run.inner(k, v, one.here - half)
        responded = [response] if inner is None else [inner[: v.size], response]
        for cut in (run.cut(k, z) for z in responded):
            moves = moving(run, cut)
            # Where a response that moves leaves a way out at its edge, it may leave none as it is.
            ways = [c for c in (moves, cut) if c is not None and not pool.is_known(c)]
            pool.cuts += ways[:1]
    candidate(run, responses, solved, state)
    if len(pool.cuts) == before:
        state.why = INFIMUM
        return "known"
    return ""
