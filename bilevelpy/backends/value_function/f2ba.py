"""``f2ba``: hypergradients from differences of penalised lower solutions, by gradients alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aid import StepLength
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.backends.value_function.weighted import Inner
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

UPPER = ("lbfgs", "gd")
BIASED = "a penalty of fixed weight solves a perturbed problem, off by about 1/weight"
# The weight grows by this factor, at most so often.
RAISE, RAISES = 10.0, 8
# Both sides of a central difference lie within this ratio of one another, or this close to z.
SKEW, SAME = 5.0, 0.1
# Finest accuracy of the inner solves.
ROUNDING = 1e-14
# Accuracy of the inner solves at first (with a weight that stays); it follows the progress, this
# much closer than elsewhere.
ROUGH, FIXED, CLOSER = 1e-2, 1e-5, 0.03
# First weight: minimisers differ by about this fraction of y.
APART = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class F2BAOptions(BackendOptions):
    """Options of ``f2ba``.

    ``weight`` lambda: fixed; 0: grows until the hypergradient no longer depends on it. ``order``: 1
    (differences from f alone, error 1/lambda) or 2 (central differences, error 1/lambda^2).
    ``upper``: lbfgs, or gd, the paper's loop with ``lower_steps`` T gradient steps of
    ``lower_step`` (0: ``2 / (L + mu)``) on each inner problem and plain upper steps of
    ``upper_step`` (0: by differences of hypergradients).
    """

    weight: float = 0.0
    order: int = 2
    upper: str = "lbfgs"
    lower_steps: int = 10
    lower_step: float = 0.0
    upper_step: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "f2ba", upper=UPPER)
        check_range(self, "f2ba", 1, 2, "order")
        check_range(self, "f2ba", 1, 10**6, "lower_steps")
        check_range(self, "f2ba", 0.0, math.inf, "weight", "lower_step", "upper_step")


class F2BA:
    """Fully first-order bilevel approximation [Chen2024]_ [Kwon2023]_.

    With ``l_nu(x) = min_y f + nu F`` the hypergradient is ``d/dnu grad l_nu`` at nu = 0. At nu =
    1/lambda::

        z = argmin_y f,   y = argmin_y f + F/lambda,   h = F_x(x, y) + lambda (f_x(x, y) - f_x(x,
        z))

    and with order 2 by central differences, ``y_+`` and ``y_-`` at nu = +-1/lambda. The error is
    ``1/lambda``, ``1/lambda^2`` with order 2, and the curvature of the penalised Phi does not grow
    with lambda.

    Cost per upper step: two or three inner solves by lower and upper gradients, no products.
    """

    name: ClassVar[str] = "f2ba"
    title: ClassVar[str] = "First-order penalty on the value function"
    reference: ClassVar[str] = "Chen2024"
    options: ClassVar[type[BackendOptions]] = F2BAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over variables with a cheap projection."""
        refusal = refuse_common(structure)
        return Accept("lower and upper gradients only") if refusal is None else refusal

    def cost(self, structure: Structure) -> Cost:
        """Three inner solves; L-BFGS takes some sqrt(kappa) gradients a digit."""
        kappa = structure.likely_condition
        return Cost(
            gradients=60.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def penalised(
        self, oracle: Oracle, accuracy: Accuracy, options: F2BAOptions, rng: torch.Generator
    ) -> Penalised:
        """The response by which Phi is known."""
        return Penalised(oracle, NO_METHOD, accuracy, options=options, rng=rng)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: F2BAOptions, rng: torch.Generator
    ) -> UpperState:
        """Evaluate at the start."""
        # Residuals are relative to the largest seen, and h has them times the lower condition.
        floor = max(min(1e-6 * options.tol, 1e-7), ROUNDING)
        level = FIXED if options.weight else ROUGH
        accuracy = Tied(level=level, change=1.0, floor=floor)
        response = self.penalised(oracle, accuracy, options, rng)
        response.prepare(x, y)
        state = begin(response, x, y, 0.0)
        if options.upper == "gd" and not options.upper_step and state.finish is None:
            top = power_iteration(lambda at: _gradient(response, at, state.point), x, rng)
            response.alpha = 1.0 / top if top > 0 else 1.0
        if options.weight:
            state.warnings = (BIASED,)
        return _raised(state, options)

    def step(self, oracle: Oracle, state: UpperState, options: F2BAOptions) -> UpperState:
        """An upper step; a larger weight where the present one is solved."""
        response = state.response
        assert isinstance(response, Penalised)
        if options.upper == "gd":
            return _raised(gradient_step(state, response.alpha), options)
        return _raised(advance(state), options)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure(state)


def _gradient(response: Response, x: Vec, near: Point) -> Vec:
    return response.differentiate(response.evaluate(x, near, near.y), near).g


def _raised(state: UpperState, options: F2BAOptions) -> UpperState:
    """Raise the weight until the point is no longer stationary, or the hypergradient no longer
    moves.
    """
    response = state.response
    assert isinstance(response, Penalised)
    while state.finish is None and not response.settled and state.stationarity() <= options.tol:
        if response.raises >= RAISES:
            response.settled = True
            break
        response.raises += 1
        response.weight *= RAISE
        new = response.again(state.point)
        if new.gradient is None:
            response.settled = True
            break
        state.point = new
        response.settled = state.stationarity() <= options.tol
    return state


@dataclass(slots=True)
class Tied(Accuracy):
    """Tied closer to the progress: differences of minimisers lose digits."""

    def follow(self, stationarity: float, decay: float = 0.9) -> None:
        """Tie the level to the stationarity of the current point."""
        Accuracy.follow(self, CLOSER * stationarity, decay)


@dataclass(slots=True)
class Penalised(Response):
    """``Phi_lambda(x)``, its gradient by the envelope theorem, and the inner problems."""

    options: F2BAOptions = field(default_factory=F2BAOptions)
    rng: torch.Generator = field(default_factory=torch.Generator)
    weight: float = 1.0
    alpha: float = 0.0
    beta: float = 0.0
    settled: bool = False
    raises: int = 0
    extent: float = 0.0
    inner: dict[int, Inner] = field(default_factory=dict)

    def make(self, x: Vec, y: Vec) -> Inner:
        """An inner problem without memories."""
        return Inner(y, self.rng)

    def prepare(self, x: Vec, y: Vec) -> None:
        """Inner problems at nu = 0, 1, -1 (over lambda), the first weight, and the steps of the
        paper's loop.
        """
        o, oracle = self.options, self.oracle
        self.inner = {sign: self.make(x, y) for sign in (0, 1, -1)}
        self.alpha, self.weight, self.settled = o.upper_step, o.weight, bool(o.weight)
        if o.upper == "gd":
            self.beta = StepLength(o.lower_step, self.rng).at(oracle, x, y)
        if not self.weight:
            z = self.inner[0].solve(oracle, x, 1.0, 0.0, ROUGH).y
            top = power_iteration(lambda at: oracle.grad_f(x, at), z, self.rng)
            size = max(norm(z), norm(y)) or 1.0
            self.weight = norm(oracle.grad_F(x, z)[1]) / max(APART * top * size, 1e-300) or 1.0

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``Phi_lambda`` at x."""
        o, oracle, weight = self.options, self.oracle, self.weight
        signs = (1,) if o.order == 1 else (1, -1)
        if o.upper == "gd":
            for sign in (*signs, 0):
                b = sign / weight
                self.inner[sign].descend(
                    oracle, x, 1.0, b, self.beta / (1.0 + abs(b)), o.lower_steps
                )
        else:
            found = self._solve_all(x, signs)
            if found.ended in ("nonfinite", "unbounded"):
                none = torch.zeros_like(x), torch.zeros_like(y)
                return Point(x, found, math.nan, math.nan, *none)
            weight = self.weight
        z = self.inner[0].y
        f, g = self.inner[0].value_gradient(oracle, x)
        lower = finish(oracle.domain_y, z, f, g, 0, "limit" if o.upper == "gd" else "reached")
        self.scale = max(self.scale, self.inner[0].scale, lower.residual)
        F_up, Fx_up, gF_y = oracle.value_grad_F(x, self.inner[1].y)
        f_up = self.inner[1].value(oracle, x)
        if o.order == 1:
            value, gF_x = F_up + weight * (f_up - f), Fx_up
        else:
            F_down, Fx_down, _ = oracle.value_grad_F(x, self.inner[-1].y)
            f_down = self.inner[-1].value(oracle, x)
            value, gF_x = 0.5 * (F_up + F_down + weight * (f_up - f_down)), 0.5 * (Fx_up + Fx_down)
        return Point(x, lower, oracle.F(x, z), value, gF_x, gF_y)

    def _solve_all(self, x: Vec, signs: tuple[int, ...]) -> LowerSolution:
        """All inner problems; the first that fails, or the last.

        The minimiser of ``f - F/lambda`` may have run off to where F bends f down; it belongs
        about as far from z as that of ``f + F/lambda``, on the other side. Otherwise the weight is
        too small.
        """
        before = self.inner[0].y
        found = self._solve(x, 0)
        # With x all minimisers move alike.
        for sign in signs:
            moved = self.inner[sign].y + (self.inner[0].y - before)
            self.inner[sign].y = self.oracle.domain_y.project(moved)
        while found.ended not in ("nonfinite", "unbounded"):
            for sign in signs:
                found = self._solve(x, sign)
                if found.ended in ("nonfinite", "unbounded"):
                    return found
            if -1 not in signs or self.options.weight or self.raises >= RAISES:
                return found
            z, up, down = (self.inner[sign].y for sign in (0, 1, -1))
            self.extent = max(self.extent, norm(z), norm(up))
            if norm(down - z) <= SKEW * norm(up - z) + SAME * self.extent:
                return found
            self.weight *= RAISE
            self.raises += 1
            for sign in (1, -1):
                self.inner[sign].restart(z)
        return found

    def _solve(self, x: Vec, sign: int) -> LowerSolution:
        """An inner problem; where it is unbounded because F bends it down, the weight grows
        first.
        """
        while True:
            level = max(self.accuracy.level / max(self.weight, 1.0), ROUNDING)
            found = self.inner[sign].solve(self.oracle, x, 1.0, sign / self.weight, level)
            if sign == 0 or found.ended != "unbounded" or self.raises >= RAISES:
                return found
            self.weight *= RAISE
            self.raises += 1
            self.inner[sign].reset()

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """``F_x + lambda (f_x(y) - f_x(z))``; u stands for ``lambda (z - y)``, which tends to the
        adjoint.
        """
        oracle, x = self.oracle, point.x
        if self.options.order == 1:
            other, factor = self.inner[0], self.weight
        else:
            other, factor = self.inner[-1], 0.5 * self.weight
        up = self.inner[1]
        cross = -factor * (up.slope(oracle, x) - other.slope(oracle, x))
        adjoint = Adjoint(factor * (other.y - up.y), cross, math.nan, 0)
        return replace(point, adjoint=adjoint, gradient=point.gF_x - cross)
