"""Whole followers below whole numbers of the leader: one tree of SCIP, with cuts from responses.

A point of the relaxation is checked as SCIP finds it: the followers are solved at its x. A better
response gives a set without bilevel feasible points, which cuts and splits leave out
(:mod:`outside`), and where all that followers read is binary perhaps a cut that is tight there, one
linear row (:mod:`linear_cut`). Where every row that reads the leader is a link of one variable of
each, cuts between whole points come from what responses are worth there (:mod:`links`).

Where all is decided that followers read, the leader's best among the best responses ends the node:
with finite ranges the tree is finite. Where the leader loses what the followers gain, all that
counts of a response is its value, which cuts bound: responses need not be whole in the tree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bilevelpy.backends.exact.adversaries.zero_sum import is_opposed
from bilevelpy.backends.exact.branch_and_cut.linking import has_tree, linking
from bilevelpy.backends.exact.branch_and_cut.outside import Outside
from bilevelpy.backends.exact.branch_and_cut.plugins import include
from bilevelpy.backends.exact.cuts.directions import Directions
from bilevelpy.backends.exact.cuts.intersection import FreeSet
from bilevelpy.backends.exact.cuts.linear_cut import LinearCut, hitting_cut, linear_cut
from bilevelpy.backends.exact.cuts.links import Links
from bilevelpy.backends.exact.cuts.pool import Pool
from bilevelpy.backends.exact.engine.expressions import engine
from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import EDGE, FEASIBLE, Followers
from bilevelpy.backends.exact.responses.judge import Judgement, answers, judged
from bilevelpy.backends.exact.responses.leader import candidate, leaders_best
from bilevelpy.backends.exact.responses.progress import contradicts
from bilevelpy.backends.exact.responses.resolve import resolved

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.backends.exact.responses.cut import Cut
    from bilevelpy.backends.exact.responses.progress import Progress
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")

# Rows are added where points are off by this part of what f is worth.
SHARP = 1e-2
# Seconds, and part of the time gone by, that cuts at points that are not whole may take.
FIRST, SEPARATING = 1.0, 0.25
# The same of the leader's choice among best responses.
CHOOSING = 0.1
# Depth in a set from which on a node is split by it where its point is not whole.
CLEARLY = 0.05


def solve_by_tree(
    system: System,
    limits: Callable[[], Limits],
    state: Progress,
    cuts: Sequence[Cut] = (),
) -> Outcome | None:
    """The end of the tree, which begins with ``cuts``; None where there is none, where F has no
    bound under the rows alone, or where a follower failed in it.
    """
    rows = high_point(system)
    # SCIP may drop parts of a tree whose relaxation is unbounded.
    if not has_tree(system) or not Relaxed(rows).is_bounded(1.0):
        return None
    run = Followers(system, lambda: replace(limits(), feasible=FEASIBLE))
    opposed = is_opposed(system)
    if opposed:
        # What is worth as much to the leader as a best response is one to her: no response has to
        # be whole.
        whole = system.columns.integer & (system.columns.owner == 0)
        rows = replace(rows, columns=replace(rows.columns, integer=whole))
    found = Tree(Pool(run), rows, opposed, replace(limits(), feasible=FEASIBLE), state).solve(cuts)
    if found is None:
        return None
    status = found.status
    if contradicts(found.bound, -math.inf, state):
        state.bound, status = -math.inf, "stuck"
    else:
        state.bound = max(state.bound, found.bound)
    return replace(
        found,
        status=status,
        values=state.best,
        objective=state.objective,
        bound=min(state.bound, state.objective),
        nodes=state.nodes,
    )


@dataclass(slots=True)
class Tree:
    """One run: points that SCIP meets, by the x that followers read, and cuts from them."""

    pool: Pool
    relaxation: KKT
    # Whether all that counts of a response is its value.
    opposed: bool
    limits: Limits
    state: Progress
    failed: bool = False
    raised: BaseException | None = None
    _model: Model | None = None
    _known: dict[bytes, list[Outcome]] = field(default_factory=dict)
    _cut: set[tuple[int, bytes]] = field(default_factory=set)
    # Rows that wait for a place where they may be added.
    _waiting: list[LinearCut] = field(default_factory=list)
    _links: Links | None = None
    _inner: Outside | None = None
    # What followers read; whether all of that is binary.
    _linking: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _binary: bool = False
    # Whether there are rows that only points better than the best one meet.
    _hits: bool = False
    _choosing: float = 0.0
    _began: float = field(default_factory=time.perf_counter)
    _separating: float = 0.0
    _shown: float = math.inf

    @property
    def run(self) -> Followers:
        """The followers."""
        return self.pool.run

    def solve(self, cuts: Sequence[Cut] = ()) -> Outcome | None:
        """The end of the tree, which begins with ``cuts``; None where a follower failed in it."""
        model = self._model = Relaxed(self.relaxation).model(self.relaxation.objective)
        columns = self.run.system.columns
        self._linking = linking(self.run.system)
        low, high = columns.lower[self._linking], columns.upper[self._linking]
        self._binary = bool((low >= 0.0).all() and (high <= 1.0).all())
        self._links = Links.of(self.run.system) if self._binary else None
        if self._links is None:
            model.scip.setHeuristics(engine().SCIP_PARAMSETTING.OFF)
        # Where responses need not be whole, whole steps say nothing; among binaries of the leader
        # they are worth less than the splits that they take.
        some = not (self.opposed or self._binary)
        self._inner = Outside(model, columns.count, Directions.all(self.run.system) if some else ())
        for cut in cuts:
            if cut.slopes is None:
                self._leave_out(cut)
        include(self, model)
        if self.state.best is not None:
            model.offer(self.state.best)
        found = model.solve(self.limits)
        if self.raised is not None:
            raise self.raised
        self.state.nodes += found.nodes
        if self.failed or found.status in ("trouble", "unbounded", "unclear"):
            return None
        if self._hits:
            status = "optimal" if found.status == "infeasible" else found.status
            found = replace(found, status=status, bound=min(found.bound, self.state.objective))
        return found

    @property
    def _scip(self) -> Model:
        assert self._model is not None
        return self._model

    @property
    def _outside(self) -> Outside:
        assert self._inner is not None
        return self._inner

    # --- what SCIP asks ---------------------------------------------------------------------------

    def accepts(self, solution: Any) -> bool:
        """Whether a point (None: that of the relaxation) is bilevel feasible; cuts from where it is
        not wait.
        """
        v = self._values(solution)
        return self._guarded(lambda: self._accepts(v), False)

    def _values(self, solution: Any = None) -> Array:
        """The columns at a point of SCIP."""
        return self._scip.point(solution)[: self.run.system.columns.count]

    def _accepts(self, v: Array) -> bool:
        if self.failed or self.state.stopped:
            return self._fail()
        system = self.run.system
        whole = self.relaxation.columns.integer
        v[whole] = np.round(v[whole])
        key = self._key(v)
        seen = key in self._known
        if not seen:
            found = answers(self.run, v, self.state)
            if found is None:
                return self._fail()
            self._known[key] = found
        judgement = judged(self.run, v, self._known[key])
        if not judgement.worse:
            if not self.opposed:
                self.state.keep(v, float(system.objective.value(v)[0]), judgement.solved)
            elif not seen:
                self._keep(judgement)
            return True
        new = [w for w in judgement.worse if (w.follower, key) not in self._cut]
        if new:
            self._keep(judgement)
        for one in new:
            self._cut.add((one.follower, key))
            cut = self.run.cut(one.follower, one.response)
            row = linear_cut(self.pool, cut, v) if self._binary else None
            if row is None and self._binary and self.opposed:
                row = hitting_cut(self.pool, cut, v, self.state.objective)
                self._hits = self._hits or row is not None
            if row is not None:
                self._waiting.append(row)
            if row is None or self._links is None:
                self._leave_out(cut)
        return False

    def _leave_out(self, cut: Cut) -> None:
        width = self.run.system.columns.count
        self._outside.add(FreeSet.of(*self.pool.formula(cut), cut.room, width))

    def _key(self, v: Array) -> bytes:
        return bytes(v[self._linking].tobytes())

    def _keep(self, judgement: Judgement) -> None:
        """The leader's best with best responses: any of them where only its value counts."""
        if not self.opposed:
            began = time.perf_counter()
            if self._choosing <= FIRST + CHOOSING * (began - self._began):
                candidate(self.run, judgement.responses, judgement.solved, self.state)
                self._choosing += time.perf_counter() - began
            return
        v, whole = judgement.responses.copy(), self.run.system.columns.integer
        v[whole] = np.round(v[whole])
        self.state.keep(v, float(self.run.system.objective.value(v)[0]), judgement.solved)

    def _fail(self) -> bool:
        self.failed = self.failed or not self.state.stopped
        self._scip.halt()
        return False

    def enforce(self, solved: bool) -> str:
        """Check the point of the relaxation (``solved``: of its linear program), and exclude it
        where it is none.
        """
        if self.accepts(None):
            return "yes"
        if self.failed or self.state.stopped:
            return "no"
        if self._waiting:
            for row in self._waiting:
                row.write(self._scip)
            self._waiting.clear()
            return "cut"
        return self._guarded(lambda: self._exclude(solved), "no")

    def _exclude(self, solved: bool) -> str:
        """Where all is decided that followers read, the node is settled; else its point is cut off,
        or the node is split.
        """
        scip, v = self._scip.scip, self._values()
        variables = [scip.getTransformedVar(self._scip.variables[j]) for j in self._linking]
        room = np.array([x.getUbLocal() - x.getLbLocal() for x in variables])
        if bool((room < 0.5).all()):
            return "cutoff" if self._settle(v) else "no"
        said = self._outside.cut(v) if solved else "none"
        if said == "none":
            said = self._outside.split(v)
        if said == "none":
            n = int(np.argmax(room))
            scip.branchVarVal(variables[n], float(np.round(v[self._linking[n]])))
            said = "branched"
        return said

    def _settle(self, v: Array) -> bool:
        """The leader's best where all that followers read is decided; whether it was found."""
        system = self.run.system
        whole = system.columns.integer
        v[whole] = np.round(v[whole])
        solved = {k: answer.objective for k, answer in enumerate(self._known[self._key(v)])}
        for edge, room in ((0.0, 0.0), (EDGE, 10.0 * FEASIBLE)):
            found = leaders_best(self.run, v, solved, edge, room, fixed=self._linking)
            self.state.nodes += found.nodes
            if found.status != "infeasible":
                break
        if found.status == "infeasible":
            return True
        if found.status != "optimal" or found.values is None:
            return self._fail()
        values, value = resolved(system, found.values[: v.size])
        self.state.keep(values, value, solved)
        shown = self.better()
        if shown is not None:
            self._scip.try_point(shown)
        return True

    def branch(self) -> str:
        """Split the node by a set that the vertex is inside of, whole or not."""
        if self.failed or self.state.stopped or self._links is not None:
            return "none"
        return self._guarded(lambda: self._outside.split(self._values(), CLEARLY), "none")

    def _guarded(self, answer: Callable[[], T], otherwise: T) -> T:
        """An answer to SCIP, which prints errors and forgets them."""
        try:
            return answer()
        except BaseException as error:
            self.raised = error
            self._fail()
            return otherwise

    def separate(self) -> str:
        """Cuts at the point of the relaxation, whole or not."""
        began = time.perf_counter()
        spent = began - self._began
        # Links find responses that may fall back; where rows are to be hit there are none.
        if self.failed or self._hits or self._separating > FIRST + SEPARATING * spent:
            return "none"
        ask = self._outside.cut if self._links is None else self._by_links
        said = self._guarded(lambda: ask(self._values()), "none")
        self._separating += time.perf_counter() - began
        return said

    def _by_links(self, v: Array) -> str:
        assert self._links is not None
        cuts = self._links.cuts(self.run, v)
        made = [linear_cut(self.pool, cut, self._links.harmless) for cut in cuts]
        sharp = [row for row in made if row is not None and row.off(v) > SHARP * row.most]
        for row in sharp:
            row.write(self._scip)
        return "cut" if sharp else "none"

    def better(self) -> Array | None:
        """The best point where SCIP has not seen it."""
        if self.state.best is None or self.state.objective >= self._shown:
            return None
        self._shown = self.state.objective
        return self.state.best
