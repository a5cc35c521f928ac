"""``bda``: derivatives through lower steps that aggregate both objectives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_ill, refuse_lower_bounds, refuse_nonconvex
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.aggregated import Aggregated
from bilevelpy.backends.implicit.slbamm import OPTIMISTIC
from bilevelpy.backends.loop import check_range
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import finish
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

BIASED = "differentiating a fixed number of aggregated lower steps solves a perturbed problem"
# Steps to begin with where their number grows, and at most.
FIRST, MOST = 50, 20_000
# Condition number up to which the steps that are needed are few enough to be differentiated:
# 5 CPU s for the quadratic of six variables at 100, no end within 10 at 1,000.
LARGEST = 100.0
# Steps below this fraction of y are rounding.
ROUNDING = 1e-14
# Fraction of the steps in which F has a weight, where their number grows.
SHARED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BDAOptions(BackendOptions):
    """Options of ``bda``.

    ``lower_steps`` T, fixed; 0: T grows, from 50, until it no longer matters. The weight of F in
    step t is ``start * (t+1)^-decay``, with growing T in the first half of the steps only.
    ``lower_step`` s, 0: 1/(2L); ``upper_step`` of a fixed T, 0: by differences of hypergradients.
    ``warm``: start at the last y.
    """

    lower_steps: int = 0
    start: float = 0.5
    decay: float = 1.0
    lower_step: float = 0.0
    upper_step: float = 0.0
    warm: bool = True

    def __post_init__(self) -> None:
        check_range(self, "bda", 0, 10**5, "lower_steps")
        check_range(self, "bda", 0.0, 1.0, "start", closed=False)
        check_range(self, "bda", 0.0, 10.0, "decay")
        check_range(self, "bda", 0.0, math.inf, "lower_step", "upper_step")


class BDA:
    """Bilevel descent aggregation [Liu2020]_ for convex lower levels with many solutions.

    The lower iteration descends on both objectives, ever less on F, and is differentiated in
    reverse::

        y_{t+1} = y_t - s (a_t F_y + (1 - a_t) f_y),   a_t -> 0
        p <- (I - s phi_yy) p,   g <- g - s phi_xy p,   dPhi/dx = F_x + g

    with ``phi = (1 - a_t) f + a_t F``. The part of F selects among the lower solutions; what is
    left of it after T steps, about 1/T, and of the unfinished descent, ``(1 - s mu)^T``, is the
    bias of a fixed T. By default T grows: steps T/2 to T descend on f alone (they leave the part of
    y that the others have selected where it is), x moves by L-BFGS, and T doubles until lower
    level and hypergradient no longer change. That takes T of about ``30 L/mu``: condition numbers
    above 100 are refused.

    Cost per upper step: T lower and T/2 upper gradients, T pullbacks of f, T upper gradients for
    the products of F.
    """

    name: ClassVar[str] = "bda"
    title: ClassVar[str] = "Aggregated lower steps, differentiated"
    reference: ClassVar[str] = "Liu2020"
    options: ClassVar[type[BackendOptions]] = BDAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth convex lower level over free variables, not badly conditioned."""
        refusal = refuse_nonconvex(structure)
        if refusal is None:
            refusal = refuse_lower_bounds(structure)
        if refusal is not None:
            return refusal
        refusal = refuse_ill(structure, LARGEST)
        if refusal is not None:
            return refusal
        unique = structure.has_one_response
        return Accept("the lower level is convex", () if unique else (OPTIMISTIC,))

    def cost(self, structure: Structure) -> Cost:
        """T steps forth and back."""
        T = 30.0 * structure.likely_condition
        return Cost(gradients=2.0 * T, products=2.0 * T, memory=8.0 * T * structure.dim_y)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: BDAOptions, rng: torch.Generator
    ) -> UpperState:
        """Estimate what is not given, and evaluate at the start."""
        step = options.lower_step
        if not step:
            problem = Aggregated(oracle, options.start)
            tops = [extreme_eigenvalues(problem.hvp(x, y), oracle.m, rng)[1]]
            problem.mu = 0.0
            tops.append(extreme_eigenvalues(problem.hvp(x, y), oracle.m, rng)[1])
            step = 0.5 / max(tops) if max(tops) > 0 else 1.0
        accuracy = Accuracy(level=1e-3, change=1.0, floor=min(1e-3 * options.tol, 1e-7))
        response = Descent(
            oracle, NO_METHOD, accuracy, correct=False, options=options, step=step, begun=y
        )
        response.T = options.lower_steps or FIRST
        state = begin(response, x, y, 0.0)
        if options.lower_steps:
            state.warnings = (BIASED,)
            response.alpha = options.upper_step
            if not response.alpha and state.finish is None:
                at = state.point

                def slope(z: Vec) -> Vec:
                    return response.differentiate(response.evaluate(z, at, at.y), at).g

                top = power_iteration(slope, x, rng)
                response.alpha = 1.0 / top if top > 0 else 1.0
        return _grown(state, options)

    def step(self, oracle: Oracle, state: UpperState, options: BDAOptions) -> UpperState:
        """An upper step, by a fixed length where T is fixed; more lower steps where the present
        number is exhausted.
        """
        response = state.response
        assert isinstance(response, Descent)
        if response.alpha:
            return gradient_step(state, response.alpha)
        return _grown(advance(state), options)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state. A fixed T is the model here: how well it solves the lower level is the
        certificate's matter.
        """
        m, response = measure(state), state.response
        assert isinstance(response, Descent)
        return replace(m, lower_accuracy=0.0) if response.options.lower_steps else m


def _grown(state: UpperState, options: BDAOptions) -> UpperState:
    """Double T until the point is no longer stationary, or neither residual nor hypergradient see
    the difference.
    """
    response = state.response
    assert isinstance(response, Descent)
    while (
        state.finish is None
        and not options.lower_steps
        and not response.settled
        and state.stationarity() <= options.tol
    ):
        if response.T >= MOST:
            response.settled = True
            break
        response.T *= 2
        before = state.point.lower.residual
        new = response.again(state.point)
        if new.gradient is None:
            break
        state.point = new
        small = before <= response.accuracy.level * response.scale
        response.settled = small and state.stationarity() <= options.tol
    return state


@dataclass(slots=True)
class Descent(Response):
    """The response after T aggregated steps, and its derivative through them."""

    made_again: ClassVar[tuple[str, ...]] = ("path",)

    options: BDAOptions = field(default_factory=BDAOptions)
    step: float = 1.0
    begun: Vec | None = None
    T: int = FIRST
    alpha: float = 0.0
    settled: bool = False
    path: list[Vec] = field(default_factory=list)

    def weights(self) -> list[float]:
        """The weights a_t of F."""
        o = self.options
        last = self.T if o.lower_steps else math.ceil(SHARED * self.T)
        some = [o.start * (t + 1) ** (-o.decay) for t in range(last)]
        return some + [0.0] * (self.T - last)

    @property
    def grows(self) -> bool:
        """Whether T may still grow."""
        return not self.options.lower_steps and self.T < MOST

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """F at the end of T steps from y (from the first start where they are not warm); of more
        where the residual asks for them.
        """
        oracle, problem = self.oracle, Aggregated(self.oracle, 0.0)
        start = y if self.options.warm or self.begun is None else self.begun
        first = oracle.domain_y.projected_gradient_norm(start, oracle.grad_f(x, start))
        self.scale = max(self.scale, first)
        oracle.counts.lower_solves += 1
        while True:
            self.path = [start]
            for weight in self.weights():
                problem.mu = weight
                at = self.path[-1]
                g = problem.grad_f(x, at) if weight else oracle.grad_f(x, at)
                self.path.append(at - self.step * g)
            end = self.path[-1]
            f, g = oracle.value_grad_f(x, end)
            lower = finish(oracle.domain_y, end, f, g, self.T, "limit")
            if not math.isfinite(f):
                lower = replace(lower, ended="nonfinite")
                none = torch.zeros_like(x), torch.zeros_like(end)
                return Point(x, lower, math.nan, math.nan, *none)
            tol = max(self.accuracy.level * self.scale, ROUNDING * norm(end) / self.step)
            if not self.grows or lower.residual <= tol:
                break
            self.T *= 2
        F, F_x, F_y = oracle.value_grad_F(x, end)
        return Point(x, lower, F, F, F_x, F_y)

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """``p <- (I - s phi_yy) p`` from F_y back along the newest path, which is longer where f
        still changes p at the first step that F has no part in.
        """
        problem, x = Aggregated(self.oracle, 0.0), point.x
        while True:
            p, cross, left = point.gF_y, torch.zeros_like(x), 0.0
            for weight, at in zip(reversed(self.weights()), reversed(self.path[:-1]), strict=True):
                problem.mu = weight
                pull = problem.pullback(x, at) if weight else self.oracle.pullback(x, at)
                Hp, Jp = pull(p)
                p, cross = p - self.step * Hp, cross + self.step * Jp
                left = left if weight else self.step * norm(Hp)
            if not self.grows or left <= self.accuracy.level * norm(point.gF_y):
                break
            self.T *= 2
            point = self.evaluate(x, near, self.path[0])
            if not self.finite(point):
                return replace(point, gradient=torch.zeros_like(x))
        adjoint = Adjoint(torch.zeros_like(p), cross, math.nan, self.T)
        return replace(point, adjoint=adjoint, gradient=point.gF_x - cross)
