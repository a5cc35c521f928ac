"""``bagdc``: one lower step, one dual step, one upper step per iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aggregated import Aggregated
from bilevelpy.backends.implicit.aid import StepLength
from bilevelpy.backends.implicit.alternate import DUALS, ORDERS, alternate
from bilevelpy.backends.loop import LoopState, check_choices, check_range, guard, measure_loop
from bilevelpy.errors import UsageError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.upper.lipschitz import accurate, upper_lipschitz
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

FORMS = ("plain", "aggregated")
# Beyond this condition number a single loop needs thousands of iterations.
WARN_CONDITION = 300.0
# The steps are estimated anew after a relative move of x, and after so many records.
MOVED = 0.25
ROUNDS = 100
# Accuracy to which F(x, y(x)) is known there.
NOISE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class BAGDCOptions(BackendOptions):
    """Options of ``bagdc``.

    ``form``: plain, or aggregated for lower levels that are merely convex: f is replaced by ``(1 -
    mu_k) f + mu_k F`` with ``mu_k = weight (k+1)^(-1/power)`` and alpha_k by ``alpha mu_k^3``; both
    steps must be given. ``order``: sequential (every update sees the newest values) or parallel
    (all see the old ones).
    ``dual``: line-search (exact step on v) or constant (``dual_step`` eta; 0: the lower step).
    ``lower_step`` beta, 0: ``2 / (L + mu)``; ``upper_step`` alpha, 0: estimated. ``decay`` tau:
    ``alpha_k = alpha (k+1)^-tau``, ``eta_k = eta (k+1)^(-tau/2)``. ``warm``: begin at the response
    and adjoint of the start instead of y_0 and v = 0 (always where alpha is estimated). ``stride``:
    iterations between two records of the run.
    """

    form: str = "plain"
    weight: float = 0.9
    power: float = 10.0
    order: str = "sequential"
    dual: str = "line-search"
    dual_step: float = 0.0
    lower_step: float = 0.0
    upper_step: float = 0.0
    decay: float = 0.0
    warm: bool = True
    stride: int = 20

    def __post_init__(self) -> None:
        check_choices(self, "bagdc", form=FORMS, order=ORDERS, dual=DUALS)
        check_range(self, "bagdc", 0.0, 1.0, "weight", closed=False)
        check_range(self, "bagdc", 1.0, math.inf, "power")
        check_range(self, "bagdc", 0.0, math.inf, "dual_step", "lower_step", "upper_step")
        check_range(self, "bagdc", 0.0, 1.0, "decay")
        check_range(self, "bagdc", 1, 10**6, "stride")
        if self.form == "aggregated" and not (self.upper_step and self.lower_step):
            raise UsageError("bagdc.form=aggregated needs upper_step and lower_step")


class BAGDC:
    """Bilevel alternating gradient descent with dual correction [Liu2022bagdc]_.

    The lower level is replaced by its optimality condition f_y = 0 with multiplier v, and all three
    move at once::

        y <- y - beta f_y,   r = H v - F_y,   v <- v - eta r,   x <- x - alpha (F_x - f_xy v)

    The step on v is exact along r, ``eta = r'r / r'H r``, unless a constant is asked for: with a
    constant the loop diverges for alpha above about ``3 / (kappa L_Phi)``. Without the correction
    (v one step behind for ever) the limit is a wrong point, whatever the steps.

    Cost per iteration: 1 lower and 1 upper gradient, 2 products (1 with a constant step), 1 cross
    product; the number of iterations grows like kappa. Unless steps are given, their estimation
    takes some five lower and adjoint solves.
    """

    name: ClassVar[str] = "bagdc"
    title: ClassVar[str] = "Single loop with dual correction"
    reference: ClassVar[str] = "Liu2022bagdc"
    options: ClassVar[type[BackendOptions]] = BAGDCOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over free, box, simplex or ball variables."""
        refusal = refuse_common(structure)
        if refusal is not None:
            return refusal
        kappa = structure.condition
        slow = kappa is not None and kappa > WARN_CONDITION
        warnings = (
            (f"the iterations of a single loop grow with the condition number, here {kappa:.0e}",)
            if slow
            else ()
        )
        return Accept("one lower gradient and two products per iteration", warnings)

    def cost(self, structure: Structure) -> Cost:
        """Iterations grow like kappa; the work of as many as one step of a double loop is worth is
        counted here.
        """
        kappa = structure.likely_condition
        return Cost(
            gradients=kappa,
            products=2.0 * kappa,
            flops=20.0 * structure.dim_y,
            memory=80.0 * structure.dim_y,
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: BAGDCOptions, rng: torch.Generator
    ) -> LoopState:
        """Estimate what is not given."""
        v = torch.zeros_like(y)
        state = LoopState(x, y, v, torch.zeros_like(x), options.upper_step, options.lower_step)
        if not options.upper_step:
            state.sync = Sync(rng)
            state.sync.check(oracle, state, options)
        elif options.warm and options.form == "plain":
            start = accurate(oracle, x, y)
            state.y, state.u = start.y, start.u
        if not state.beta:
            state.beta = StepLength(0.0, rng).at(oracle, x, state.y)
        state.h = oracle.grad_F(x, state.y)[0]
        return state

    def step(self, oracle: Oracle, state: LoopState, options: BAGDCOptions) -> LoopState:
        """``stride`` iterations."""
        for _ in range(options.stride):
            if state.finish is None and not _iterate(oracle, state, options):
                break
        if state.sync is not None and state.finish is None and state.sync.due(state):
            state.sync.check(oracle, state, options)
        return state

    def measure(self, oracle: Oracle, state: LoopState) -> Measure:
        """Read the state."""
        return measure_loop(oracle, state)


@dataclass(slots=True)
class Sync:
    """Estimates the steps anew where x has moved far, and goes back where F(x, y(x)) has grown
    since the last time.
    """

    rng: torch.Generator
    damp: float = 1.0
    value: float = math.inf
    x: Vec | None = None
    y: Vec | None = None
    v: Vec | None = None
    rounds: int = 0

    def due(self, state: LoopState) -> bool:
        """Whether x has moved far, the step was just halved, or many rounds have passed."""
        self.rounds += 1
        assert self.x is not None
        far = norm(state.x - self.x) > MOVED * max(norm(self.x), norm(state.x))
        return state.halvings > 0 or self.rounds >= ROUNDS or (far and self.rounds >= 2)

    def check(self, oracle: Oracle, state: LoopState, options: BAGDCOptions) -> None:
        """Solve both systems at x and set the steps by the curvature there."""
        self.rounds = 0
        here = accurate(oracle, state.x, state.y, state.u)
        value = oracle.F(state.x, here.y)
        if self.x is not None and not value <= self.value + NOISE * abs(self.value):
            assert self.y is not None
            assert self.v is not None
            self.damp *= 0.25
            state.x, state.y, state.u = self.x, self.y, self.v
            here = accurate(oracle, state.x, state.y, state.u)
        else:
            self.damp = 0.5 * self.damp if state.halvings else min(1.0, 1.5 * self.damp)
            self.value, state.halvings = value, 0
        state.y, state.u, state.best = here.y, here.u, None
        self.x, self.y, self.v = state.x, here.y, here.u
        top = upper_lipschitz(oracle, state.x, here, self.rng)
        state.alpha = self.damp / top if top > 0 else self.damp
        if not options.lower_step:
            state.beta = StepLength(0.0, self.rng).at(oracle, state.x, state.y)


def _iterate(oracle: Oracle, state: LoopState, options: BAGDCOptions) -> bool:
    """One round of the three updates; False where x did not step."""
    k, x = state.k, state.x
    problem, mu = oracle, 1.0
    if options.form == "aggregated":
        mu = options.weight * (k + 1) ** (-1.0 / options.power)
        problem = Aggregated(oracle, mu)
    eta = (options.dual_step or state.beta) * (k + 1) ** (-0.5 * options.decay)
    alternate(problem, state, order=options.order, dual=options.dual, eta=eta)
    if not guard(oracle, state, fixed=bool(options.upper_step)):
        return False
    alpha = state.alpha * mu**3 * state.k ** (-options.decay)
    state.x = oracle.domain_x.project(x - alpha * state.h)
    return True
