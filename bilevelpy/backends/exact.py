"""``exact``: optimality conditions with complementarity, solved to global optimality by SCIP."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.exact_cuts import FEASIBLE, Followers, Progress, solve_by_cuts
from bilevelpy.backends.exact_duality import write_duality
from bilevelpy.backends.exact_necessary import necessary, rows_are_affine
from bilevelpy.backends.exact_polish import polish
from bilevelpy.backends.exact_prices import check_prices, shadow_prices
from bilevelpy.backends.exact_relax import Relaxed, explain_infeasible
from bilevelpy.backends.exact_scip import Limits, Outcome, engine
from bilevelpy.backends.exact_search import Search
from bilevelpy.backends.whole import ProgramAnswer
from bilevelpy.errors import BackendError
from bilevelpy.ir.walk import duals
from bilevelpy.numerics.constrained_certificate import Claim, Ties, certify_rows
from bilevelpy.options import BackendOptions, SolveOptions
from bilevelpy.reductions.kkt import KKT, kkt
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import System, system
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]

# Complementarity pairs beyond which branching does not end in useful time.
LARGEST = 20_000
# Variables of both levels up to which followers are settled by cuts.
SMALL = 60

# Share of the time for a proof by cuts; the rest is for a search where it does not end.
SHARE = 0.6
# Seconds that a response may take in the search.
RESPONSE = 1.0

_ONLY_CONDITIONS = {
    "nash": "takes games between linear or convex quadratic followers",
    "duals": "takes multipliers of linear or convex quadratic followers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactOptions(BackendOptions):
    """Options of ``exact``.

    ``gap``: relative distance of objective and bound at which optimality counts as proved (0: the
    tolerance of the run). ``ties``: find the least and the greatest F over all best responses.
    """

    gap: float = 0.0
    ties: bool = True


class Exact:
    """Global optima of problems with linear or convex quadratic followers.

    Every follower is replaced by its optimality conditions; multipliers and slacks are tied by
    special ordered sets, so no bound of a multiplier has to be guessed::

        min F   s.t.   G <= 0,   grad_y f + sum_r lam_r grad_y g_r = 0,   0 <= lam_r  _|_  -g_r >= 0

    SCIP solves that to global optimality. The answer counts as proved only where the followers,
    solved again at the returned x by another solver, confirm it.
    """

    name: ClassVar[str] = "exact"
    title: ClassVar[str] = "optimality conditions with SOS1 in SCIP, global"
    reference: ClassVar[str] = "FortunyAmat1981"
    options: ClassVar[type[BackendOptions]] = ExactOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Linear or convex quadratic followers in continuous variables; an optimistic leader."""
        s = structure
        if "single_level" in s.unsupported:
            return Reject("needs a follower", s.unsupported["single_level"])
        if "psd" in s.unsupported:
            return Reject("has no scalar rows for matrices", s.unsupported["psd"])
        if s.externs.value:
            return Reject("needs every function written in the model", s.externs)
        if s.stance == "pessimistic" and not s.unique.value:
            return Reject(
                "takes the optimistic reading; it reports the pessimistic value at the answer",
                s.unsupported.get("pessimistic"),
            )
        if s.lower_constraints > LARGEST:
            return Reject(f"branches on at most {LARGEST} constraints of followers", None)
        conditions = s.lower.form.value in ("linear", "quadratic") and (
            s.lower.constraints.value in ("none", "bounds", "linear")
        )
        convex = s.convexity.value in ("convex", "strongly convex")
        game = s.unsupported.get("nash")
        if conditions and not s.lower.discrete.value and (convex or game is not None):
            return Accept("global optimum by branch and bound over complementarity")
        return self._accepts_small(s)

    def _accepts_small(self, s: Structure) -> Accept | Reject:
        """Followers that are settled by cuts and global solves."""
        for key, reason in _ONLY_CONDITIONS.items():
            if key in s.unsupported:
                return Reject(reason, s.unsupported[key])
        if s.dim_x + s.dim_y > SMALL:
            if s.lower.discrete.value:
                return Reject(f"takes whole followers up to {SMALL} variables", s.lower.discrete)
            fact = s.lower.constraints
            if s.lower.form.value not in ("linear", "quadratic"):
                fact = s.lower.form
            if s.convexity.value not in ("convex", "strongly convex"):
                fact = s.convexity
            return Reject(
                f"takes followers other than linear and convex quadratic ones up to {SMALL} "
                "variables of both levels",
                fact,
            )
        return Accept("global optimum by cuts from the followers' best responses")

    def cost(self, structure: Structure) -> Cost:
        """Exponential in the number of constraints in the worst case."""
        pairs = structure.lower_constraints + structure.dim_y
        return Cost(gradients=1e3, products=0.0, flops=1e4 * (1.0 + pairs) ** 2, note="a tree")

    def solve(
        self, bound: BoundProgram, options: SolveOptions, settings: ExactOptions, verify: bool
    ) -> ProgramAnswer:
        """Solve a bound program; every outcome of the mathematics is an answer."""
        return _Run(bound, options, settings, verify).answer()


class _Run:
    """One solve."""

    def __init__(
        self, bound: BoundProgram, options: SolveOptions, settings: ExactOptions, verify: bool
    ) -> None:
        engine()
        self.began = time.perf_counter()
        self.options, self.settings, self.verify = options, settings, verify
        try:
            self.system = system(bound)
            self.program, self.settled = _conditions(self.system)
        except Refused as error:
            raise BackendError(str(error)) from error
        self.solved: dict[int, float] | None = None
        self.why = ""

    def limits(self, share: float = 1.0, until: float = math.inf) -> Limits:
        """A share of what is left of the time (up to ``until`` seconds from the beginning)."""
        left = min(self.options.time_limit, until) - (time.perf_counter() - self.began)
        return Limits(
            max(share * left, 0.05), self.settings.gap or self.options.tol, self.options.seed
        )

    def answer(self) -> ProgramAnswer:
        found = self._by_conditions() if self.settled else self._by_cuts()
        solved = time.perf_counter()
        if found.values is None:
            return self._without_point(found)
        v = found.values
        if self.settled and v.size == self.program.columns.count:
            v = polish(self.program, v)
        objective = float(self.system.objective.value(v[: self.system.columns.count])[0])
        better = replace(found, values=v, objective=objective)
        certificate = None
        if self.verify:
            certificate = self._certificate(better)
        status, message = self._status(better, certificate)
        return ProgramAnswer(
            self.system,
            v[: self.system.columns.count],
            shadow_prices(self.program, v)
            if self.settled and v.size > self.system.columns.count
            else {},
            status,
            message,
            certificate,
            found.nodes,
            (*self.program.warnings,),
            solved - self.began,
        )

    def _by_conditions(self) -> Outcome:
        """SCIP once; where a small problem is not solved in time, a search in what is left."""
        program = Relaxed(self.program, extra=lambda model: write_duality(self.program, model))
        games = any(f.nash for f in self.system.followers)
        reports = [r.value for r in self.system.bound.program.reports.values()]
        prices = bool((self.system.columns.owner == -1).any()) or bool(duals(reports))
        small = self.system.columns.count <= SMALL and not games and not prices
        limited = math.isfinite(self.options.time_limit) and small
        found = program.solve(self.limits(SHARE if limited else 0.9))
        if found.status not in ("time_limit", "trouble") or not limited:
            return found
        state = Progress()
        if found.values is not None:
            state.best, state.objective = found.values, found.objective
        return self._search(found, state, [])

    def _by_cuts(self) -> Outcome:
        """Cuts for a proof; where time runs out, a search for a better point in what is left."""
        limited = math.isfinite(self.options.time_limit)
        until = self.options.time_limit * (SHARE if limited else 1.0)
        relaxed: list[Array] = []
        found, state = solve_by_cuts(
            self.system, self.program, lambda: self.limits(until=until), relaxed
        )
        self.why = state.why
        if found.status in ("time_limit", "stuck", "trouble") and limited:
            found = self._search(found, state, relaxed)
        self.solved = state.solved
        return found

    def _search(self, found: Outcome, state: Progress, points: list[Array]) -> Outcome:
        """The better of what is known and what a search finds in the time that is left."""

        def limits() -> Limits:
            left = self.limits(0.9)
            return replace(left, seconds=min(left.seconds, RESPONSE), feasible=FEASIBLE)

        inner = Followers(self.system, limits)
        deadline = self.began + 0.9 * self.options.time_limit
        rng = np.random.default_rng(self.options.seed)
        Search(inner, state, deadline, rng).run(points, self.program)
        return replace(found, values=state.best, objective=state.objective)

    def _certificate(self, found: Outcome) -> Certificate:
        assert found.values is not None
        claim = Claim(
            found.status == "optimal" and found.gap <= 10 * self.limits().gap,
            found.bound,
            found.gap,
            *check_prices(self.program, found.values, self.limits(0.3)),
        )
        v = found.values[: self.system.columns.count]
        ties = None
        if self.settings.ties and self.settled and found.status == "optimal":
            ties = self._ties(found.values)
        return certify_rows(
            self.system, v, claim, ties=ties, solved=self.solved, seed=self.options.seed
        )

    def _ties(self, v: Array) -> Ties | None:
        """F over all best responses (and multipliers) at the returned x."""
        fixed = {int(j): float(v[j]) for j in self.system.upper_columns}
        program = Relaxed(self.program, fixed)
        limits = replace(self.limits(0.3), seconds=min(self.limits(0.3).seconds, 10.0))
        low = program.solve(limits)
        high = program.solve(limits, sign=-1.0)
        if low.status != "optimal":
            return None
        if high.status == "unbounded":
            return Ties(low.objective, math.inf)
        return Ties(low.objective, -high.objective) if high.status == "optimal" else None

    def _without_point(self, found: Outcome) -> ProgramAnswer:
        empty = np.full(self.system.columns.count, math.nan)
        status, message = {
            "infeasible": (Status.INFEASIBLE, ""),
            "unbounded": (
                Status.UNBOUNDED,
                "the leader's objective has no bound over the best responses",
            ),
            "trouble": (Status.STALLED, "SCIP met numerical trouble that it could not resolve"),
            "stuck": (Status.STALLED, self.why),
            "interrupted": (Status.INTERRUPTED, "interrupted before a point was found"),
        }.get(found.status, (Status.TIME_LIMIT, "no point was found within the time limit"))
        if status is Status.INFEASIBLE:
            message = explain_infeasible(self.program, self.limits(0.9))
        return ProgramAnswer(
            self.system, empty, {}, status, message, None, found.nodes, self.program.warnings,
            time.perf_counter() - self.began,
        )  # fmt: skip

    def _status(self, found: Outcome, certificate: Certificate | None) -> tuple[Status, str]:
        if found.status == "interrupted":
            return Status.INTERRUPTED, "interrupted; the best point is kept"
        if found.status == "time_limit":
            return (
                Status.TIME_LIMIT,
                f"stopped after {self.options.time_limit:g} s (time_limit) with a gap of "
                f"{found.gap:.2e}; the best point is kept",
            )
        if found.status in ("stuck", "trouble"):
            return Status.STALLED, f"the best point is kept: {self.why or 'numerical trouble'}"
        if certificate is None:
            return Status.STALLED, "SCIP calls the point optimal; not verified"
        if certificate.kind == "global":
            return Status.CONVERGED, f"global optimum, gap {found.gap:.1e}"
        return Status.STALLED, "SCIP calls the point optimal, but " + "; ".join(certificate.reasons)


def _conditions(model: System) -> tuple[KKT, bool]:
    """The program to solve, and whether it is the bilevel problem itself (else: a relaxation)."""
    games = any(f.nash for f in model.followers)
    prices = bool((model.columns.owner == -1).any())
    try:
        program = kkt(model, "the backend `exact`")
        if games or prices or rows_are_affine(model):
            return program, True
    except Refused:
        if games or prices:
            raise
    return necessary(model), False
