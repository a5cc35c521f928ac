"""The certificates of a run, within the time that the caller gave."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.dispatcher.conditions import FINITE_SUM, FREE_BELOW, MANY_LOWERS, NOT_CONVEX
from bilevelpy.numerics.certificate.conic import ConicCheck, applies
from bilevelpy.numerics.certificate.convex_quadratic import globally
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.certificate.examine import examine, settle
from bilevelpy.numerics.certificate.steps import examine_steps
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status
from bilevelpy.system.deadline import TooLong, until

if TYPE_CHECKING:
    from bilevelpy.solving.posed import Posed
    from bilevelpy.solving.request import Clock

# This part of a time limit is kept for the certificate, which gets at least so many seconds.
SHARE, LEAST = 0.2, 0.5
# The same where the lower level is a trained model, large, a sum over data and not known to be
# convex: solving it again takes longer than all the rest, and what ends early is no claim.
TRAINED = 0.1
# Without a limit, what a claim can do without may take as long as the run, or so many seconds.
PATIENCE = 5.0


class _ByProducts:
    """An oracle whose dense Hessian costs too much: products in its place, between which a deadline
    can end the work.
    """

    hessian_price = math.inf

    def __init__(self, oracle: Any) -> None:
        self._oracle = oracle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)


class Judge:
    """Certifies the points that a run ends with; the last certificate is that of the result."""

    def __init__(
        self,
        taken: Posed,
        units: Units | None,
        options: SolveOptions,
        verify: bool,
        clock: Clock,
    ) -> None:
        self.taken, self.options, self.verify = taken, options, verify
        functions, facts = taken.functions, taken.facts
        self.facts, self.compiled, self.units = facts, functions, units
        self.trained = all(c(facts) for c in (NOT_CONVEX, MANY_LOWERS, FINITE_SUM, FREE_BELOW))
        self.share = TRAINED if self.trained else SHARE
        self.functions: Any = functions if units is None else ScaledOracle(functions, units)
        if self.trained:
            self.functions = _ByProducts(self.functions)
        self.clock, self.began = clock, time.perf_counter()
        self.known: tuple[torch.Tensor, torch.Tensor, Certificate | None] | None = None
        self.seconds = 0.0

    def run_limit(self) -> float:
        """Seconds that the run itself may take."""
        limit = self.options.time_limit
        if math.isinf(limit) or not self.verify:
            return limit
        return max(limit - self.clock.elapsed() - self.share * limit, 1e-9)

    def onward(
        self, x: torch.Tensor, y: torch.Tensor, most: float = math.inf
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A point with lower F beside (x, y), if the certificate fails for nothing else, or a
        better response to x; (x, y) itself where all that it misses is a smaller hypergradient.
        The certificate takes ``most`` seconds at most.
        """
        if not self.verify:
            return None
        began = time.perf_counter()
        limit = self.options.time_limit
        left = limit if math.isinf(limit) else max(limit - self.clock.elapsed(), LEAST)
        left = min(left, most)
        if self.trained:
            spent = min(limit, max(PATIENCE / TRAINED, began - self.began))
            left = min(left, max(TRAINED * spent, LEAST))
        try:
            with until(began + left):
                certificate, place = self._examined(x, y, left, began)
        except TooLong:
            reason = f"there was no time to check the point within the {left:.2g} s that were left"
            certificate, place = Certificate("none", *(math.nan,) * 6, None, (reason,), {}), None
        except KeyboardInterrupt:
            self.known = (x, y, None)
            return None
        finally:
            self.seconds += time.perf_counter() - began
        certificate = self.taken.confirmed(certificate, x, y)
        self.known = (x, y, certificate)
        if place is None and _is_sloping(certificate, self.options.tol):
            return x, y
        return place

    def _examined(
        self, x: torch.Tensor, y: torch.Tensor, left: float, began: float
    ) -> tuple[Certificate, tuple[torch.Tensor, torch.Tensor] | None]:
        """The certificate by the check that suits the model, and where to go on from."""
        rng = torch.Generator().manual_seed(self.options.seed)
        compiled, facts, options = self.compiled, self.facts, self.options
        if facts.steps is not None:
            certificate, downhill = examine_steps(
                compiled, x, y, facts.steps.value, facts, options, rng, seconds=left
            )
        elif applies(compiled):
            certificate, downhill = ConicCheck(compiled, x, y, facts, options, rng, left).run()
        elif compiled.g.size or compiled.G.size:
            certificate, downhill = examine_rows(compiled, x, y, facts, options, rng, seconds=left)
        else:
            units = self.units
            certificate, place = examine(
                self.functions,
                x if units is None else x / units.x,
                y if units is None else y / units.y,
                facts,
                options,
                rng,
                seconds=left,
                patience=max(PATIENCE, began - self.began),
            )
            if place is None and certificate.kind == "local":
                return globally(certificate, compiled, x, y), None
            if place is None or units is None:
                return certificate, place
            return certificate, (units.x * place[0], units.y * place[1])
        return certificate, None if downhill is None else (downhill, y)

    def verdict(self, raw: RunResult) -> tuple[RunResult, Certificate | None]:
        """The run with its final status; without a certificate it is never "converged"."""
        raw = self._limited(raw)
        if not self.verify:
            done = raw.status is Status.CONVERGED
            message = f"{raw.message}; not verified"
            return (replace(raw, status=Status.STALLED, message=message) if done else raw), None
        if self.known is None or self.known[0] is not raw.x or self.known[1] is not raw.y:
            # Who has interrupted a run does not wait much longer than it has taken.
            stopped = raw.status is Status.INTERRUPTED
            self.onward(raw.x, raw.y, max(PATIENCE, raw.time) if stopped else math.inf)
        certificate = self.known[2] if self.known is not None else None
        if certificate is None:
            message = "interrupted while the certificate was computed; the point is kept"
            return replace(raw, status=Status.INTERRUPTED, message=message), None
        return settle(raw, certificate), certificate

    def _limited(self, raw: RunResult) -> RunResult:
        """A run that its part of the time limit has ended says so in the caller's terms."""
        if raw.status is not Status.TIME_LIMIT or not self.verify:
            return raw
        message = (
            f"stopped after {raw.time:.3g} s (time_limit {self.options.time_limit:g} s, of which "
            f"{self.share:.0%} are kept for the certificate)"
        )
        return replace(raw, message=message)


def _is_sloping(certificate: Certificate, tol: float) -> bool:
    """Whether the point falls short of stationarity alone."""
    sloping = certificate.details.get("hypergradient_relative", 0.0) > tol
    return certificate.kind == "none" and len(certificate.reasons) == 1 and bool(sloping)
