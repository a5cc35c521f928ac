"""The conformance suite for backends: problems with known answers, and the promises of the
protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bilevelpy import loading, solving
from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Backend, Reject
from bilevelpy.backends.whole import ProgramBackend
from bilevelpy.errors import UsageError
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.model import Model
from bilevelpy.numerics.certificate.examine import settle
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.driver.loop import IterationState, RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status
from bilevelpy.solving.posed import posed
from bilevelpy.testing.cases import CASES, Case
from bilevelpy.testing.outcomes import Outcome, Report, error_of, judged

__all__ = ["CASES", "Case", "Outcome", "Report", "check_backend"]


def check_backend(
    backend: Backend[Any],
    *,
    models: Sequence[Case] | None = None,
    options: Mapping[str, Any] | None = None,
    max_iter: int = 2000,
    time_limit: float = 60.0,
) -> Report:
    """Check a backend against the promises of the protocol.

    Every model that it accepts must be solved: the run ends at a known optimum, or, for a method
    whose class says ``accuracy = e``, passes within e of one. ``converged`` must mean a known
    optimum in any case. Further: runs that limits cut short keep a point with finite objectives, a
    status that says what ended them, and a certificate with reasons; hypergradients at the start
    (of backends whose state exposes them as ``state.point.gradient``; continuation methods, which
    begin with a perturbed problem, say so by ``perturbed_start = True``), the same run under the
    same seed, callbacks, refusals with reasons, and unknown options.

    Parameters
    ----------
    backend
        An instance.
    models
        Cases with known solutions; :data:`CASES` by default.
    options
        Options of the backend in all runs.
    max_iter, time_limit
        Limits of each solve.

    Returns
    -------
    Report
        What was checked.

    Raises
    ------
    AssertionError
        Where a check fails; the message lists all that did.
    """
    suite = Suite(backend, dict(options or {}), max_iter, time_limit)
    for case in CASES if models is None else models:
        suite.model(case)
    suite.conclude()
    report = Report(backend.name, tuple(suite.outcomes), suite.rejected, tuple(suite.solved))
    if report.failures:
        lines = "\n".join(f"  {o.check} ({o.model}): {o.detail}" for o in report.failures)
        raise AssertionError(f"backend `{backend.name}` fails:\n{lines}")
    return report


# Seconds for a few iterations, on a busy machine.
PATIENCE = 120.0
# Condition number of the lower level up to which loose first solves make good hypergradients.
MILD = 100.0
# Models on which runs are cut short, and by what. A certificate takes as long as it takes.
SHORT = 6
LIMITS: tuple[dict[str, Any], ...] = (
    {"max_iter": 1},
    {"time_limit": 0.05},
    {"time_limit": 0.5},
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a solve ended, judged by the certificate."""

    x: np.ndarray
    F: float
    f: float
    status: Status
    message: str
    certificate: Certificate | None


@dataclass(slots=True)
class Suite:
    """The checks of one backend."""

    backend: Backend[Any]
    options: dict[str, Any]
    max_iter: int
    time_limit: float
    outcomes: list[Outcome] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    solved: list[str] = field(default_factory=list)
    accepted: int = 0

    @property
    def accuracy(self) -> float:
        """Errors that the method itself calls solved; 0: those of the cases."""
        return float(getattr(self.backend, "accuracy", 0.0))

    @property
    def whole(self) -> bool:
        """Whether the backend takes programs as a whole, outside the driver."""
        return not hasattr(self.backend, "init")

    def note(self, check: str, model: str, passed: bool, detail: str = "") -> None:
        """Keep an outcome."""
        self.outcomes.append(Outcome(check, model, passed, "" if passed else detail))

    def model(self, case: Case) -> None:
        """All checks of one model."""
        model = loading.parse(case.text, data=dict(case.data))
        facts = solving.structure(model, 0)
        verdict = self.backend.accepts(facts)
        reasoned = isinstance(verdict, (Accept, Reject)) and (bool(verdict) or bool(verdict.reason))
        self.note("a verdict with a reason", case.name, reasoned, f"accepts() gave {verdict!r}")
        if isinstance(verdict, Reject):
            self.rejected[case.name] = verdict.reason
            return
        cost = self.backend.cost(facts)
        known = all(
            math.isfinite(v) and v >= 0 for v in (cost.gradients, cost.products, cost.memory)
        )
        self.note("a finite cost", case.name, known, repr(cost))
        self._solves(case, model, facts)
        if self.accepted < SHORT:
            for limits in LIMITS:
                self._cut_short(case, model, facts, limits)
        self.accepted += 1
        if self.whole:
            return
        taken = posed(model, facts, self.backend)
        functions, facts = taken.functions, taken.facts
        if facts.condition is None or facts.condition <= MILD:
            self._hypergradient(case, functions)
        if self.accepted == 1:
            self._repeats(case, functions, facts)
            self._limits(case, functions, facts)
            self._callbacks(case, functions, facts)

    def conclude(self) -> None:
        """What concerns the backend as a whole."""
        try:
            self.backend.options.from_mapping({"no_such_option": 1}, self.backend.name)
            refused = False
        except UsageError:
            refused = True
        self.note("refuses unknown options", "all", refused, "`no_such_option` was taken")

    def _run(
        self, functions: TorchOracle, facts: Structure, *, callback: Any = None, **limits: Any
    ) -> RunResult:
        """A run of the backend."""
        given = {"max_iter": self.max_iter, "time_limit": self.time_limit, **limits}
        settings = SolveOptions(backend_options=self.options, **given)
        return drive(functions, self.backend, facts, settings, callback=callback)

    def _ended(
        self, model: Model, facts: Structure, *, callback: Any = None, **limits: Any
    ) -> Ended:
        """A run and its certificate."""
        if isinstance(self.backend, ProgramBackend):
            given = {"max_iter": self.max_iter, "time_limit": self.time_limit, **limits}
            settings = self.backend.options.from_mapping(self.options, self.backend.name)
            answer = self.backend.solve(model.bound, SolveOptions(**given), settings, True)
            F, below = answer.objectives()
            x = answer.values[answer.system.upper_columns]
            return Ended(
                x, F, sum(below.values()), answer.status, answer.message, answer.certificate
            )
        taken = posed(model, facts, self.backend)
        raw = self._run(taken.functions, taken.facts, callback=callback, **limits)
        seen = judged(taken.functions, raw, taken.facts)
        found = settle(raw, seen)
        return Ended(found.x.numpy(), found.F, found.f, found.status, found.message, seen)

    def _solves(self, case: Case, model: Model, facts: Structure) -> None:
        """The run ends at a known optimum, and ``converged`` means that."""
        accuracy = max(self.accuracy, case.within)
        passed: list[bool] = []

        def close(state: IterationState) -> bool:
            near = bool(self.accuracy) and error_of(case, state.x, state.F)[0] <= accuracy
            passed.append(near)
            return near

        ended = self._ended(model, facts, callback=close)
        error, nearest = error_of(case, ended.x, ended.F)
        claimed = ended.status is Status.CONVERGED
        detail = (
            f"ended as {ended.status} at F = {ended.F:.7g}, the optimum is {nearest:.7g} "
            f"(error {error:.1e}): {ended.message}"
        )
        right = error <= case.within
        self.note("`converged` means a known optimum", case.name, right or not claimed, detail)
        solved = right or any(passed)
        self.note("solves the model that it accepts", case.name, solved, detail)
        self.note("a message", case.name, bool(ended.message), "the message is empty")
        if solved:
            self.solved.append(case.name)

    def _cut_short(
        self, case: Case, model: Model, facts: Structure, limits: Mapping[str, Any]
    ) -> None:
        """The best point so far is kept, and nothing is claimed of it that is not true."""
        ended = self._ended(model, facts, **limits)
        which = ", ".join(f"{name} = {value:g}" for name, value in limits.items())
        check = f"a point and an honest status at {which}"
        if self.whole and not math.isfinite(ended.F):
            # A program without a point that suits leader and follower says so.
            named = ended.status is Status.TIME_LIMIT and bool(ended.message)
            self.note(check, case.name, named, f"no point, and ended as {ended.status}")
            return
        finite = math.isfinite(ended.F) and math.isfinite(ended.f)
        self.note(check, case.name, finite, f"F = {ended.F}, f = {ended.f} as {ended.status}")
        error, _ = error_of(case, ended.x, ended.F)
        honest = ended.status is not Status.CONVERGED or error <= case.within
        self.note(check, case.name, honest, f"claims {ended.F:.7g}, with an error of {error:.1e}")
        reasons = ended.certificate is not None and bool(ended.certificate.reasons)
        self.note(f"a certificate with reasons at {which}", case.name, reasons, "none")

    def _hypergradient(self, case: Case, functions: TorchOracle) -> None:
        """Where the state shows dPhi/dx at the start, it is the one of an independent solve, or the
        result is warned of.
        """
        if getattr(self.backend, "perturbed_start", False):
            return
        settings = self.backend.options.from_mapping(self.options, self.backend.name)
        x, y = functions.domain_x.project(functions.x0), functions.domain_y.project(functions.y0)
        state = self.backend.init(functions, x, y, settings, torch.Generator().manual_seed(0))
        shown = getattr(getattr(state, "point", None), "gradient", None)
        if shown is None or case.optimistic or self.backend.measure(functions, state).warnings:
            return
        if functions.g.size:  # the independent solve here knows no rows
            return
        rng = torch.Generator().manual_seed(0)
        exact = Resolver(functions, x, y, rng).answer(x, y)
        if exact is None or exact.lower.face.weak:
            return
        error = float((shown - exact.gradient).norm()) / max(exact.size, 1e-300)
        self.note(
            "the hypergradient at the start",
            case.name,
            error <= 3e-2,
            f"relative error {error:.1e}",
        )

    def _repeats(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        # Where the limit of time cuts a run off is nobody's choice.
        given = {"max_iter": 3, "seed": 7, "time_limit": max(self.time_limit, PATIENCE)}
        one, two = (self._run(functions, facts, **given) for _ in range(2))
        same = torch.equal(one.x, two.x) and torch.equal(one.y, two.y) and one.counts == two.counts
        self.note("the same run under the same seed", case.name, same, "two runs differ")

    def _limits(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        none = self._run(functions, facts, max_iter=0, tol=1e-13)
        self.note(
            "no iteration for max_iter = 0",
            case.name,
            none.iterations == 0,
            f"made {none.iterations}",
        )
        one = self._run(functions, facts, max_iter=1, tol=1e-13)
        self.note(
            "one iteration for max_iter = 1",
            case.name,
            one.iterations <= 1,
            f"made {one.iterations}",
        )
        late = self._run(functions, facts, time_limit=1e-9)
        stopped = late.status is Status.TIME_LIMIT
        self.note("the time limit", case.name, stopped, f"ended as {late.status}")

    def _callbacks(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        seen: list[int] = []
        stop = _stopping(seen)
        patience = max(self.time_limit, PATIENCE)
        halted = self._run(functions, facts, tol=1e-13, callback=stop, time_limit=patience)
        self.note(
            "a callback stops the run",
            case.name,
            halted.status is Status.INTERRUPTED,
            f"{halted.status}",
        )
        self.note(
            "a callback sees every iteration",
            case.name,
            seen == list(range(len(seen))),
            f"saw {seen}",
        )
        finite = all(math.isfinite(r.F) and math.isfinite(r.f) for r in halted.history)
        self.note("finite objectives in the history", case.name, finite, "F or f is not finite")


def _stopping(seen: list[int]) -> Callable[[IterationState], bool]:
    """A callback that stops at once after noting the iteration."""

    def callback(state: IterationState) -> bool:
        seen.append(state.iteration)
        return True

    return callback
