"""``nlp``: local optima of problems with smooth constrained followers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.nlp_branches import branch
from bilevelpy.backends.nlp_complementarity import (
    NEAR,
    STEEP,
    WIDE,
    Complementarity,
    stationary_program,
)
from bilevelpy.backends.nlp_reduced import Reduced
from bilevelpy.backends.nlp_response import Responses
from bilevelpy.backends.whole import Hooks, ProgramAnswer, with_start
from bilevelpy.errors import BackendError
from bilevelpy.ir.types import Stance
from bilevelpy.numerics.constrained_certificate import certify_local, objective_scale, row_scales
from bilevelpy.numerics.interior_point import library
from bilevelpy.numerics.joint_response import JointResponse
from bilevelpy.numerics.local_probe import Probe, probe
from bilevelpy.options import BackendOptions, SolveOptions
from bilevelpy.reductions.kkt import KKT
from bilevelpy.reductions.lift import lift
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import system
from bilevelpy.reductions.separate import separate
from bilevelpy.reductions.validity import is_definite
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]

# Lower variables and constraints beyond which the conditions are not written out.
WRITTEN = 20_000
# Lower variables up to which the reduced form (of any number of upper variables) is affordable.
SOLVED = 200_000
# From this many lower variables on the reduced form comes first, where there is one.
MANY = 300
# A follower that gains less than this (relative to its terms) is content.
CONTENT = 1e-6
ROUNDS = 6

# What the claim of a local optimum cannot be checked for by solving followers again.
_UNCHECKED = {
    "nash": "does not solve games between followers",
    "duals": "does not take multipliers of followers into the upper level",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NLPOptions(BackendOptions):
    """Options of ``nlp``.

    ``starts``: how many starts are tried. ``form``: "conditions" (the followers' conditions in one
    program), "reduced" (F along solved responses; convex quadratic followers) or "auto".
    """

    starts: int = 8
    form: str = "auto"


class NLP:
    """Local optima, by the followers' conditions or by the reduced form.

    Small and middling problems: conditions with relaxed complementarity from several starts::

        min F   s.t.   G <= 0,   grad_y L = 0,   0 <= lam, 0 <= s,  lam s <= eps,   eps -> 0

    Followers that are not convex are solved from several starts at every point found; a response
    that a follower prefers becomes a further row. Large families of convex quadratic followers: F
    along their solved responses, with derivatives by the KKT adjoint.
    """

    name: ClassVar[str] = "nlp"
    title: ClassVar[str] = "optimality conditions or reduced form, interior point, local"
    reference: ClassVar[str] = "Scholtes2001"
    options: ClassVar[type[BackendOptions]] = NLPOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Smooth followers in continuous variables."""
        s = structure
        for key in ("single_level", "psd"):
            if key in s.unsupported:
                return Reject("needs followers in scalar rows", s.unsupported[key])
        for key, reason in _UNCHECKED.items():
            if key in s.unsupported:
                return Reject(reason, s.unsupported[key])
        if s.externs.value:
            return Reject("needs every function written in the model", s.externs)
        if s.lower.discrete.value or s.upper.discrete.value:
            fact = s.lower.discrete if s.lower.discrete.value else s.upper.discrete
            return Reject("needs continuous variables", fact)
        if s.stance == "pessimistic" and not s.unique.value:
            return Reject("takes the optimistic reading", s.unsupported.get("pessimistic"))
        size = s.dim_x + s.dim_y + s.lower_constraints
        quadratic = s.lower.form.value in ("linear", "quadratic")
        if size > (SOLVED if quadratic else WRITTEN):
            return Reject(
                f"takes followers other than quadratic ones up to {WRITTEN:,} variables and rows",
                s.lower.form,
            )
        warnings: tuple[str, ...] = ()
        if s.convexity.value not in ("convex", "strongly convex"):
            warnings = ("the lower level is not known to be convex: responses are local ones",)
        return Accept("a local optimum, from several starts", warnings)

    def cost(self, structure: Structure) -> Cost:
        """A sparse factor of the conditions, for some hundred iterations."""
        size = structure.dim_x + structure.dim_y + structure.lower_constraints
        return Cost(gradients=1e2, products=0.0, flops=1e3 * (1.0 + size), note="per start")

    def solve(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: NLPOptions,
        verify: bool,
        hooks: Hooks | None = None,
    ) -> ProgramAnswer:
        """Solve a bound program."""
        if settings.form not in ("auto", "conditions", "reduced"):
            raise BackendError(
                f"nlp.form takes auto, conditions or reduced, found `{settings.form}`"
            )
        return _Run(bound, options, settings, verify, hooks or Hooks()).answer()


class _Run:
    """One solve."""

    def __init__(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: NLPOptions,
        verify: bool,
        hooks: Hooks,
    ) -> None:
        self.began = time.perf_counter()
        self.deadline = self.began + 0.9 * options.time_limit
        self.options, self.settings, self.verify, self.hooks = options, settings, verify, hooks
        self.rng = np.random.default_rng(options.seed)
        try:
            self.system = with_start(separate(lift(system(bound))), hooks.start)
            if bound.program.stance is Stance.PESSIMISTIC and not is_definite(self.system):
                raise BackendError("the backend `nlp` takes the optimistic reading")
        except Refused as error:
            raise BackendError(str(error)) from error
        self.best: Array | None = None
        self.objective = math.inf
        self.starts = 0
        self.stopped = False
        self.quick = Responses.of(self.system, self.rng, convex=False)
        self.joint = self._joint()

    def answer(self) -> ProgramAnswer:
        """The answer, whatever it is."""
        if self.joint is not None:
            self._reduced(self.joint)
        else:
            library()
            self._conditions()
        solved = time.perf_counter()
        if self.best is None:
            return self._nothing(solved)
        v = self.best[: self.system.columns.count]
        certificate, status, message = None, Status.STALLED, "not verified"
        if self.verify:
            seen = probe(self.system, v, self._respond, self.rng, self._until())
            if seen.place is not None and not self._late():
                # A point beside is better: go on from there once.
                v = self._onward(seen)
                seen = probe(self.system, v, self._respond, self.rng, self._until())
            certificate = self._certificate(v, seen)
            status, message = self._status(certificate)
        return ProgramAnswer(
            self.system, v, {}, status, message, certificate, self.starts, (),
            solved - self.began,
        )  # fmt: skip

    # --- ways to a point --------------------------------------------------------------------------

    def _joint(self) -> JointResponse | None:
        """The reduced form, where it is wanted and there is one."""
        fits = JointResponse.fits(self.system) and self._convex()
        if self.settings.form == "reduced" and not fits:
            raise BackendError(
                "nlp.form = reduced takes convex quadratic followers with rows affine in their "
                "variables"
            )
        many = self.system.lower_columns.size >= MANY
        wanted = self.settings.form == "reduced" or (self.settings.form == "auto" and many)
        return JointResponse(self.system) if fits and wanted else None

    def _convex(self) -> bool:
        from bilevelpy.reductions.validity import require_convex

        try:
            require_convex(self.system)
        except Refused:
            return False
        return True

    def _reduced(self, joint: JointResponse) -> None:
        run = Reduced(self.system, joint, self.deadline, self.options.tol, self._seen)
        start = self.system.columns.start
        low, high = self.system.columns.lower, self.system.columns.upper
        for t in range(self.settings.starts):
            if self._late() or self.stopped:
                return
            at = start.copy()
            if t:
                at = start + self.rng.standard_normal(start.size) * 10.0 ** self.rng.uniform(-1, 1)
                inside = np.isfinite(low) & np.isfinite(high)
                at[inside] = low[inside] + (high - low)[inside] * self.rng.random(int(inside.sum()))
                at = np.clip(at, low, high)
            self.starts += 1
            run.run(at)

    def _conditions(self) -> None:
        try:
            program = stationary_program(self.system)
        except Refused as error:
            raise BackendError(str(error)) from error
        for t in range(self.settings.starts):
            if self._late() or self.stopped:
                return
            run = Complementarity(program)
            products = (WIDE, STEEP)[t] if t < 2 else (NEAR, WIDE)[t % 2]
            start = program.columns.start if t < 2 else run.random(self.rng)
            if products is NEAR:
                at = run.settled(start, self._left())
                products, start = (WIDE, start) if at is None else (NEAR, at)
            self.starts += 1
            self._from(program, run, start, products)

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
            v = found.values[: self.system.columns.count]
            answer = self.quick.all(v)
            if answer is None:
                return
            responses, least = answer
            made = [k for k in least if self._gain(k, v, least[k]) > CONTENT]
            if not made:
                self._keep(v)
                return
            self._keep(responses)
            branches += [branch(self.system, k, responses) for k in made]
            run, start, products = Complementarity(program, branches), found.values, WIDE

    def _gain(self, k: int, v: Array, least: float) -> float:
        own = np.flatnonzero(self.system.columns.owner == k + 1)
        here = float(self.system.lower_objectives.take([k]).value(v)[0])
        size = max(objective_scale(self.system.lower_objectives, k, v, own), abs(least), 1e-3)
        return (here - least) / size

    def _keep(self, v: Array) -> None:
        """A point with best responses, where it suits the leader and is the best one."""
        rows = self.system.upper_rows
        if bool((rows.violation(v) > 1e-6 * row_scales(rows, v)).any()):
            return
        self._seen(v, float(self.system.objective.value(v)[0]))

    def _seen(self, v: Array, objective: float) -> bool:
        if objective < self.objective:
            self.best, self.objective = v, objective
            if self.hooks.observe is not None:
                seconds = time.perf_counter() - self.began
                self.stopped = self.hooks.observe(self.system, v, objective, -math.inf, seconds)
        return self.stopped

    # --- end --------------------------------------------------------------------------------------

    def _left(self) -> float:
        return max(min(self.deadline - time.perf_counter(), 1e4), 0.25)

    def _late(self) -> bool:
        return time.perf_counter() > self.deadline

    def _until(self) -> float:
        """When probes end: they may take as long as the solve, or ten seconds."""
        now = time.perf_counter()
        end = self.began + self.options.time_limit
        return min(now + max(10.0, now - self.began), max(end, now + 0.5))

    def _respond(self, v: Array) -> Array | None:
        if self.joint is not None:
            found = self.joint.solve(v)
            return None if found is None else found.values
        answer = self.quick.all(v)
        return None if answer is None else answer[0]

    def _onward(self, seen: Probe) -> Array:
        """A descent from a better point beside the best one."""
        assert seen.place is not None
        self._keep(seen.place)
        if self.joint is not None:
            Reduced(self.system, self.joint, self._until(), self.options.tol, self._seen).run(
                seen.place
            )
        else:
            program = stationary_program(self.system)
            run = Complementarity(program)
            count = self.system.columns.count
            start = np.concatenate([seen.place, program.columns.start[count:]])
            at = run.settled(start, self._left())
            if at is not None:
                self._from(program, run, at, NEAR)
        assert self.best is not None
        return self.best[: self.system.columns.count]

    def _certificate(self, v: Array, seen: Probe) -> Certificate:
        known = None
        solved = self.joint.solve(v) if self.joint is not None else None
        if self.joint is not None and solved is not None:
            known = dict(enumerate(self.joint.least(solved).tolist()))
        return certify_local(
            self.system, v, seen, convex=self._convex(), known=known, seed=self.options.seed
        )

    def _status(self, certificate: Certificate) -> tuple[Status, str]:
        if self.stopped:
            return Status.INTERRUPTED, "interrupted; the best point is kept"
        if certificate.kind == "local":
            message = f"a local optimum, the best of {self.starts} starts"
            return Status.CONVERGED, message
        if self._late():
            return Status.TIME_LIMIT, "the best point within the time limit is kept"
        return Status.STALLED, "; ".join(certificate.reasons)

    def _nothing(self, solved: float) -> ProgramAnswer:
        empty = np.full(self.system.columns.count, math.nan)
        status = Status.TIME_LIMIT if self._late() else Status.STALLED
        message = f"no start of {self.starts} led to a point that suits followers and leader"
        return ProgramAnswer(
            self.system, empty, {}, status, message, None, self.starts, (), solved - self.began
        )
