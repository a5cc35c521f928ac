"""The certificate of models whose lower answer is what T gradient steps reach.

The steps are taken again from the declared start, and ``Phi(x) = F(x, y_T(x))`` is examined as any
other: stationarity on scales found here, a finite difference against the hypergradient, probes.
Nothing is claimed about minimisers of the lower objective.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.certificate.case import make_case
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.certificate.upper import UpperCheck
from bilevelpy.numerics.driver.deadline import DeadlineOracle, OutOfTime
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.domains.product import Face

Vec = torch.Tensor

# How far y may be from the end of the steps, relative to the size of the path.
OFF = 1e-8
FEASIBLE = 1e-8


class Replay(Resolver):
    """Answers by the T steps ``y <- P(y - s f_y(x, y))`` from the declared start."""

    def __init__(
        self, oracle: Oracle, x: Vec, y: Vec, rng: torch.Generator, steps: tuple[int, float]
    ) -> None:
        super().__init__(oracle, x, y, rng)
        self.steps = steps

    def path(self, x: Vec) -> list[Vec]:
        """``y_0, ..., y_T``."""
        T, s = self.steps
        points = [self.oracle.domain_y.project(self.oracle.y0)]
        for _ in range(T):
            g = self.oracle.grad_f(x, points[-1])
            points.append(self.oracle.domain_y.project(points[-1] - s * g))
        return points

    def respond(self, x: Vec, y: Vec, level: float = 0.0) -> LowerSolution:
        """The end of the steps. No gradient is left to correct for."""
        end = self.path(x)[-1]
        return self._packed(x, end)

    def answer(
        self, x: Vec, y: Vec, guide: Answer | None = None, *, rough: bool = False
    ) -> Answer | None:
        """The end of the steps at x, and dPhi/dx back along all of them."""
        points = self.path(x)
        lower = self._packed(x, points[-1])
        if not math.isfinite(lower.f):
            return None
        o, s, box = self.oracle, self.steps[1], not self.oracle.domain_y.is_free
        F, gF_x, gF_y = o.value_grad_F(x, lower.y)
        p, u, cross = gF_y, torch.zeros_like(gF_y), torch.zeros_like(x)
        for before, after in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
            if box:
                p = p * ((after > o.domain_y.lower) & (after < o.domain_y.upper))
            Hp, Jp = o.pullback(x, before)(p)
            u, cross, p = u + s * p, cross + s * Jp, p - s * Hp
        adjoint = Adjoint(u, cross, 0.0, self.steps[0])
        size = norm(gF_x) + norm(cross)
        return Answer(x, lower, F, F, gF_x - cross, size, adjoint, norm(gF_y))

    def hypergradient(self, x: Vec, y: Vec, face: Face) -> Vec:
        """dPhi/dx; steps have no face that could be released."""
        found = self.answer(x, y)
        return torch.full_like(x, math.nan) if found is None else found.gradient

    def _packed(self, x: Vec, y: Vec) -> LowerSolution:
        f = self.oracle.f(x, y)
        ended = "reached" if math.isfinite(f) else "nonfinite"
        return finish(self.oracle.domain_y, y, f, torch.zeros_like(y), self.steps[0], ended)


def examine_steps(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    steps: tuple[int, float],
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
    *,
    seconds: float = math.inf,
) -> tuple[Certificate, Vec | None]:
    """The certificate of (x, y) as the answer of the model with ``steps = (T, s)``, and a lower
    point where all that is wrong is that a probe found one.

    ``lower_gap`` is what f differs by from the end of the steps; ``details`` has T, s, and the
    gradient of f that the steps leave.
    """
    timed = DeadlineOracle(oracle, time.perf_counter() + seconds)
    seen: Any = timed if math.isfinite(seconds) else oracle
    case = make_case(seen, x, y, structure, options, rng)
    found, T, s = case.found, *steps
    gap = hyper = left = math.nan
    mismatch: float | None = None
    outside_x, outside_y = oracle.domain_x.violation(x), oracle.domain_y.violation(y)
    for level, outside, z in (("upper", outside_x, x), ("lower", outside_y, y)):
        if outside > FEASIBLE * max(norm(z), 1e-3):
            case.fail(f"{level} variables leave their domain by {outside:.1e}")
    try:
        solver = Replay(seen, x, y, rng, steps)
        base = solver.answer(x, y)
        if base is None:
            case.fail(f"the {T} lower steps lead to values that are not finite")
        else:
            end = base.lower.y
            gap = abs(seen.f(x, y) - base.lower.f)
            left = seen.domain_y.projected_gradient_norm(end, seen.grad_f(x, end))
            size = max(norm(end), norm(end - seen.y0), 1e-300)
            if not norm(y - end) <= OFF * size:
                case.fail(
                    f"y is not where {T} steps of length {s:g} from the start lead: off by "
                    f"{norm(y - end) / size:.1e} of its size"
                )
            upper = UpperCheck(case, solver, base)
            upper.measure()
            hyper = upper.shown
            upper.stationarity()
            upper.plateau()
            mismatch = upper.difference()
            upper.probe()
    except OutOfTime:
        case.fail("there was no time to check the point")
    found.details.update(steps=T, step_length=s, lower_gradient_left=left)
    told = (
        f"the answer is that of the {T}-step model: y is what {T} gradient steps of length {s:g} "
        f"reach from the start, where the lower gradient is still {left:.1e}",
        "first-order conditions of the upper level hold along these steps",
        *found.notes,
    )
    f_size = abs(seen.f(x, y)) if math.isfinite(gap) else math.nan
    certificate = Certificate(
        "none" if found.failures else "local",
        gap,
        gap / max(f_size, 1e-300) if gap else gap,
        0.0 if not math.isnan(left) else math.nan,
        outside_y,
        outside_x,
        hyper,
        mismatch,
        tuple(found.failures) or told,
        found.details,
    )
    return certificate, found.downhill if len(found.failures) == 1 else None
