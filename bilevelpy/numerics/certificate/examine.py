"""The certificate: residuals of a point recomputed from the oracle alone, and the final status
that follows.

Nothing of a backend enters. The lower level is re-solved from the returned y and from other
starts; the hypergradient is computed at the re-solved response by an adjoint of its own, compared
with a finite difference, and Phi is probed along feasible directions. All tests are relative to
scales found here, so units do not matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.errors import BackendError
from bilevelpy.numerics.certificate.case import Case, make_case
from bilevelpy.numerics.certificate.lower import LowerCheck
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.certificate.upper import UpperCheck
from bilevelpy.numerics.driver.deadline import DeadlineOracle, OutOfTime
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.lower.grouped import grouped_oracle
from bilevelpy.numerics.lower.halves import halves, is_split, joined, split_oracle
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# How far variables may leave their domain, relative to the largest of them.
FEASIBLE = 1e-8
# Lower gradients that are left at a response, relative to those that belong to y itself.
UNSOLVED = 1e-3
# Other starts of the lower level may take this part of the time: the hypergradient comes after.
SEARCH = 0.4


def certify(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
    *,
    seconds: float = math.inf,
    patience: float = math.inf,
) -> Certificate:
    """The certificate that :func:`examine` finds."""
    return examine(oracle, x, y, structure, options, rng, seconds=seconds, patience=patience)[0]


def examine(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
    *,
    seconds: float = math.inf,
    patience: float = math.inf,
) -> tuple[Certificate, tuple[Vec, Vec] | None]:
    """Check the point (x, y) of a bilevel problem, and say where to go on from.

    Parameters
    ----------
    oracle, x, y, structure, options, rng
        The problem, the point, what is known of it, the options (their tolerance), and the source
        of randomness.
    seconds
        Wall time at most. What there is no time for is named in ``reasons``; without the re-solve
        at x and the hypergradient there is no certificate.
    patience
        Wall time at most for each of the two parts that a claim can do without: other starts of
        the lower level, and what looks around the point.

    Returns
    -------
    Certificate
        ``kind`` "local" where all first-order checks hold, else "none"; ``reasons`` says why in
        words.
    tuple or None
        A lower point (with y) where all that is wrong is that a probe found one: it lies beside a
        maximum, a saddle or a kink at which every first-order method stands still. Or a better
        response to x, of a lower level that is not convex: the run has followed another minimiser.
    """
    start = y
    oracle, y = on_support(oracle, x, y, rng)
    timed = None
    if math.isfinite(min(seconds, patience)):
        timed = DeadlineOracle(oracle, time.perf_counter() + seconds)
    seen: Any = oracle if timed is None else timed
    case = make_case(seen, x, y, structure, options, rng)
    check = _Check(case, timed, min(SEARCH * seconds, patience), patience)
    try:
        check.required()
        check.optional()
    except OutOfTime:
        case.fail(
            f"there was no time to check the point: {check.stage} takes longer than the "
            f"{seconds:.2g} s that were left"
        )
    certificate, found = check.certificate(), case.found
    if found.better is not None:
        return certificate, (x, joined(found.better) if is_split(case.oracle) else found.better)
    if found.downhill is not None and len(found.failures) == 1:
        return certificate, (found.downhill, start)
    return certificate, None


def best_response(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
) -> Vec | None:
    """The minimiser of f(x, .) without rows that the re-solves of a certificate from y and from
    other starts find, the optimistic one where they tie; None where no finite one is.
    """
    oracle, y = on_support(oracle, x, y, rng)
    case = make_case(oracle, x, y, structure, options, rng)
    solver = Resolver(oracle, x, y, rng)
    base = solver.answer(x, y)
    if base is None:
        return None
    check = LowerCheck(case, solver, base, base.lower.f)
    check.search()
    least = min(check.found, key=lambda s: s.f)
    if least.f < base.lower.f and (better := solver.answer(x, least.y)) is not None:
        check = LowerCheck(case, solver, better, better.lower.f)
        check.search()
    check.ties()
    found = check.base.lower.y
    return joined(found) if is_split(oracle) else found


def settle(run: RunResult, certificate: Certificate) -> RunResult:
    """The run with its final status: "converged" only where the certificate supports it."""
    local = certificate.kind in ("local", "global")
    choice = certificate.details.get("F_optimistic", 0.0)
    if isinstance(choice, float) and math.isinf(choice) and not local:
        return replace(run, status=Status.UNBOUNDED, message="; ".join(certificate.reasons))
    if run.status is Status.CONVERGED and not local:
        why = "; ".join(certificate.reasons) or "the certificate fails"
        return replace(run, status=Status.STALLED, message=f"the backend stopped, but {why}")
    if run.status is Status.STALLED and local:
        return replace(
            run, status=Status.CONVERGED, message=f"{run.message}; the certificate holds there"
        )
    if run.status is Status.STALLED and certificate.reasons:
        return replace(run, message=f"{run.message}; {'; '.join(certificate.reasons)}")
    return run


def on_support(oracle: Oracle, x: Vec, y: Vec, rng: torch.Generator) -> tuple[Oracle, Vec]:
    """The problem by the support of groups, or with absolute values split into halves."""
    grouped = _grouped(oracle)
    if grouped is not None:
        return grouped, y
    split = split_oracle(oracle, x, rng)
    return (oracle, y) if split is None else (split, halves(y))


def _grouped(oracle: Oracle) -> Oracle | None:
    """The problem by the support of groups; None where it has none, or norms of another form."""
    try:
        return grouped_oracle(oracle)
    except BackendError:
        return None


class _Check:
    """One certification: what a claim rests on first, then what might still refute it."""

    def __init__(
        self, case: Case, timed: DeadlineOracle | None, searching: float, looking: float
    ) -> None:
        self.case = case
        self.timed, self.searching, self.looking = timed, searching, looking
        self.stage = "the lower objective at the point"
        self.stationarity = self.gap = self.relative_gap = self.hyper = math.nan
        self.mismatch: float | None = None
        o = case.oracle
        self.outside_x = o.domain_x.violation(case.x)
        self.outside_y = o.domain_y.violation(case.y)
        self._feasible("upper", self.outside_x, case.x)
        self._feasible("lower", self.outside_y, case.y)
        self.lower: LowerCheck | None = None
        self.upper: UpperCheck | None = None

    def required(self) -> None:
        """The lower level solved again at x, its hypergradient, and the scale of that."""
        case, o = self.case, self.case.oracle
        f_here, gradient = o.value_grad_f(case.x, case.y)
        self.stationarity = o.domain_y.projected_gradient_norm(case.y, gradient)
        if not (math.isfinite(f_here) and math.isfinite(self.stationarity)):
            case.fail("the lower objective is not finite at the returned point")
            return
        self.stage = "solving the lower level again"
        solver = Resolver(o, case.x, case.y, case.rng)
        base = solver.answer(case.x, case.y)
        if base is None:
            case.fail("the lower level has no finite solution at the returned x")
            return
        self.lower = LowerCheck(case, solver, base, f_here)
        until = time.perf_counter() + self.searching
        self._when_there_is_time("other starts of the lower level", self.lower.search, until)
        self.lower.conic()
        self.gap, self.relative_gap = self.lower.gap()
        if case.convex and solver.unsolved(self.lower.base.lower) > UNSOLVED:
            case.fail(
                "the gradient of the lower objective does not vanish at the response: it lies on "
                "a kink, where no hypergradient follows from derivatives"
            )
            return
        self.stage = "the choice among several lower solutions"
        self.lower.ties()
        self.stage = "the scale of the hypergradient"
        upper = UpperCheck(case, self.lower.solver, self.lower.base)
        self.hyper = upper.shown
        if case.found.better is not None:
            return  # the run goes on from there: what F does around here is of no account
        self.upper = upper
        upper.measure()
        self.lower.agreement(upper.scale)
        upper.stationarity()
        if upper.beyond and not case.convex and not case.found.failures:
            self.stage = "responses behind a kink"
            self.lower.compare(upper.beyond)
            self.gap, self.relative_gap = self.lower.gap()

    def optional(self) -> None:
        """A finite difference and probes."""
        led_on = self.case.found.better is not None
        if self.upper is None or not math.isfinite(self.hyper) or led_on:
            return
        until = time.perf_counter() + self.looking
        self._when_there_is_time("whether the point lies on a plateau", self.upper.plateau, until)
        self._when_there_is_time("a finite difference of F(x, y(x))", self._difference, until)
        self._when_there_is_time("probes for descent around the point", self.upper.probe, until)

    def certificate(self) -> Certificate:
        """Everything that was found."""
        case = self.case
        found = case.found
        notes = list(found.notes)
        if found.unchecked:
            notes.append(f"not checked for lack of time: {', '.join(found.unchecked)}")
        if not found.failures:
            notes.insert(
                0, "the lower level is solved and first-order conditions of the upper level hold"
            )
            if not case.convex:
                notes.append(
                    "the lower level is not known to be convex: a better response that no re-solve "
                    "has found cannot be excluded"
                )
        return Certificate(
            "none" if found.failures else "local",
            self.gap,
            self.relative_gap,
            self.stationarity,
            self.outside_y,
            self.outside_x,
            self.hyper,
            self.mismatch,
            tuple(found.failures or notes),
            found.details,
        )

    def _difference(self) -> None:
        assert self.upper is not None
        self.mismatch = self.upper.difference()

    def _when_there_is_time(self, what: str, check: Callable[[], None], until: float) -> None:
        """Run a check that a certificate can do without, until its own deadline at most."""
        end = math.inf
        if self.timed is not None:
            end = self.timed.deadline
            self.timed.deadline = min(end, until)
        try:
            check()
        except OutOfTime:
            self.case.found.unchecked.append(what)
        if self.timed is not None:
            self.timed.deadline = end

    def _feasible(self, level: str, violation: float, z: Vec) -> None:
        size = float(z.abs().max()) if z.numel() else 0.0
        if violation > FEASIBLE * max(size, 1e-3):
            self.case.fail(f"{level} variables leave their domain by {violation:.1e}")
