"""Whole followers below binaries: one tree of SCIP, with cuts where it meets whole points.

Where all that followers read of others is binary, and they decide whole numbers, a point of the
relaxation is checked as SCIP finds it: the followers are solved at its x, and a better response
gives a cut that is tight there, one linear row (:mod:`linear_cut`). Where binaries are not whole,
cuts come from what responses are worth then (:mod:`links`).

Where the leader loses what the followers gain, all that counts of a response is its value, which
cuts bound: responses need not be whole in the tree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.cuts import contradicts
from bilevelpy.backends.exact.expressions import engine
from bilevelpy.backends.exact.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.judge import Judgement, answers, judged
from bilevelpy.backends.exact.leader import candidate
from bilevelpy.backends.exact.linear_cut import LinearCut, linear_cut
from bilevelpy.backends.exact.links import Links
from bilevelpy.backends.exact.necessary import high_point
from bilevelpy.backends.exact.outcome import Limits, Outcome
from bilevelpy.backends.exact.pool import Pool
from bilevelpy.backends.exact.relax import Relaxed
from bilevelpy.backends.exact.zero_sum import is_opposed

if TYPE_CHECKING:
    from bilevelpy.backends.exact.followers import Progress
    from bilevelpy.backends.exact.scip import Model
    from bilevelpy.reductions.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Rows are added where points are off by this part of what f is worth.
SHARP = 1e-2
# Seconds, and part of the time gone by, that cuts at points that are not whole may take.
FIRST, SEPARATING = 1.0, 0.25
# Points are checked after all other rows.
LAST = -9_000_000
# Settings that are not true of rows that come later: symmetries and parts are those of the rows
# that are there, and points are handed over by values of all variables.
OFF = {
    "misc/usesymmetry": 0,
    "misc/allowweakdualreds": False,
    "misc/allowstrongdualreds": False,
    "constraints/components/maxprerounds": 0,
    "presolving/donotaggr": True,
    "presolving/donotmultaggr": True,
}


def has_tree(system: System) -> bool:
    """Whether followers decide whole numbers in finite ranges, are linear in them, and read binary
    variables of the leader only, in rows.
    """
    columns, rows, objectives = system.columns, system.lower_rows, system.lower_objectives
    if any(f.nash for f in system.followers) or bool((columns.owner == -1).any()):
        return False
    own = system.lower_columns
    ends = np.concatenate([columns.lower[own], columns.upper[own]])
    if not own.size or not columns.integer[own].all() or not np.isfinite(ends).all():
        return False
    if rows.functions.degree > 1 or objectives.degree > 1:
        return False
    binary = columns.integer & (columns.lower >= 0.0) & (columns.upper <= 1.0)
    reads = {j for r in range(rows.count) for j in rows.functions.reads(r)}
    others = [j for j in reads if columns.owner[j] <= 0]
    return bool(others) and all(binary[j] for j in others)


def solve_by_tree(system: System, limits: Callable[[], Limits], state: Progress) -> Outcome | None:
    """The end of the tree; None where there is none, where F has no bound under the rows alone, or
    where a follower or a cut failed in it.
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
    found = Tree(Pool(run), rows, opposed, replace(limits(), feasible=FEASIBLE), state).solve()
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
    _began: float = field(default_factory=time.perf_counter)
    _separating: float = 0.0
    _shown: float = math.inf

    @property
    def run(self) -> Followers:
        """The followers."""
        return self.pool.run

    def solve(self) -> Outcome | None:
        """The end of the tree; None where a follower or a cut failed in it."""
        model = self._model = Relaxed(self.relaxation).model(self.relaxation.objective)
        for name, value in OFF.items():
            model.scip.setParam(name, value)
        self._links = Links.of(self.run.system)
        _include(self, model)
        if self.state.best is not None:
            model.offer(self.state.best)
        found = model.solve(self.limits)
        if self.raised is not None:
            raise self.raised
        self.state.nodes += found.nodes
        if self.failed or found.status in ("trouble", "unbounded", "unclear"):
            return None
        return found

    # --- what SCIP asks ---------------------------------------------------------------------------

    def accepts(self, solution: Any) -> bool:
        """Whether a point (None: that of the relaxation) is bilevel feasible; cuts from where it is
        not wait.
        """
        v, enforced = self._values(solution), solution is None
        try:
            return self._accepts(v, enforced)
        except BaseException as error:  # SCIP prints and forgets it
            self.raised = error
            return self._fail()

    def _values(self, solution: Any = None) -> Array:
        """The columns at a point of SCIP."""
        model = self._model
        assert model is not None
        columns = model.variables[: self.run.system.columns.count]
        return np.array([model.scip.getSolVal(solution, x) for x in columns])

    def _accepts(self, v: Array, enforced: bool) -> bool:
        if self.failed or self.state.stopped:
            return self._fail()
        system = self.run.system
        whole = self.relaxation.columns.integer
        v[whole] = np.round(v[whole])
        key = v[whole & (system.columns.owner == 0)].tobytes()
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
        if enforced and not new and not self._waiting:
            return self._fail()  # its cuts should have excluded the point
        for one in new:
            row = linear_cut(self.pool, self.run.cut(one.follower, one.response), v)
            if row is None:
                return self._fail()
            self._cut.add((one.follower, key))
            self._waiting.append(row)
        if new:
            self._keep(judgement)
        return False

    def _keep(self, judgement: Judgement) -> None:
        """The leader's best with best responses: any of them where only its value counts."""
        if not self.opposed:
            candidate(self.run, judgement.responses, judgement.solved, self.state)
            return
        v, whole = judgement.responses.copy(), self.run.system.columns.integer
        v[whole] = np.round(v[whole])
        self.state.keep(v, float(self.run.system.objective.value(v)[0]), judgement.solved)

    def _fail(self) -> bool:
        self.failed = self.failed or not self.state.stopped
        assert self._model is not None
        self._model.scip.interruptSolve()
        return False

    def enforce(self) -> str:
        """Check the point of the relaxation and add the rows that wait: "cut", "no" or "yes"."""
        good, model = self.accepts(None), self._model
        assert model is not None
        if self._waiting and not self.failed:
            for row in self._waiting:
                row.write(model)
            self._waiting.clear()
            return "cut"
        return "yes" if good else "no"

    def separate(self) -> bool:
        """Whether cuts are added at the point of the relaxation, whole or not."""
        model = self._model
        assert model is not None
        began = time.perf_counter()
        spent = began - self._began
        if self._links is None or self.failed or self._separating > FIRST + SEPARATING * spent:
            return False
        try:
            v = self._values()
            made = [
                linear_cut(self.pool, cut, self._links.harmless)
                for cut in self._links.cuts(self.run, v)
            ]
        except BaseException as error:
            self.raised = error
            return self._fail()
        self._separating += time.perf_counter() - began
        sharp = [row for row in made if row is not None and row.off(v) > SHARP * row.most]
        for row in sharp:
            row.write(model)
        return bool(sharp)

    def better(self) -> Array | None:
        """The best point where SCIP has not seen it."""
        if self.state.best is None or self.state.objective >= self._shown:
            return None
        self._shown = self.state.objective
        return self.state.best


def _include(tree: Tree, model: Model) -> None:
    """The tree's questions as plugins of SCIP."""
    module = engine()
    results = module.SCIP_RESULT
    said = {
        "cut": {"result": results.CONSADDED},
        "yes": {"result": results.FEASIBLE},
        "no": {"result": results.INFEASIBLE},
        "none": {"result": results.DIDNOTFIND},
    }

    variables = model.scip.getVars()

    class Checks(module.Conshdlr):  # type: ignore[misc, name-defined]
        def conscheck(self, constraints: Any, solution: Any, *_: Any) -> dict[str, Any]:
            return said["yes" if tree.accepts(solution) else "no"]

        def consenfolp(self, *_: Any) -> dict[str, Any]:
            return said[tree.enforce()]

        def consenfops(self, *_: Any) -> dict[str, Any]:
            return said[tree.enforce()]

        def conssepalp(self, *_: Any) -> dict[str, Any]:
            return said["cut" if tree.separate() else "none"]

        def conslock(self, constraint: Any, kind: Any, up: int, down: int) -> None:
            for variable in variables:
                self.model.addVarLocks(variable, up + down, up + down)

    class Points(module.Heur):  # type: ignore[misc, name-defined]
        def heurexec(self, timing: Any, infeasible: bool) -> dict[str, Any]:
            values = tree.better()
            if values is None:
                return {"result": results.DIDNOTRUN}
            point = self.model.createSol(self)
            for variable, value in zip(model.variables, values, strict=True):
                self.model.setSolVal(point, variable, float(value))
            for variable, compute in model.derived:
                self.model.setSolVal(point, variable, compute(values))
            taken = self.model.trySol(point)
            result = results.FOUNDSOL if taken else results.DIDNOTFIND
            return {"result": result}

    model.scip.includeConshdlr(
        Checks(), "followers", "responses are best ones", enfopriority=LAST, chckpriority=LAST,
        sepafreq=1, propfreq=-1, needscons=False,
    )  # fmt: skip
    timing = module.SCIP_HEURTIMING
    model.scip.includeHeur(
        Points(), "responses", "best responses", "b", priority=1_000_000, freq=1,
        timingmask=timing.AFTERLPNODE | timing.AFTERPSEUDONODE | timing.DURINGLPLOOP,
    )  # fmt: skip
