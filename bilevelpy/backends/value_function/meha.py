"""``meha``: the Moreau envelope of the lower level as its value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch

from bilevelpy.analysis.forms.smooth import ABSOLUTE
from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape, with_smooth_lower
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.slbamm import OPTIMISTIC
from bilevelpy.backends.loop import (
    SLOW,
    LoopState,
    check_choices,
    check_range,
    curvatures,
    guard,
    lower_spectrum,
)
from bilevelpy.backends.value_function.continued import LOOPS, Continued
from bilevelpy.backends.value_function.joint import JointPenalty, measure_joint, start_joint
from bilevelpy.lowering.absolute import AbsoluteParts, absolute_parts
from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.halves import SplitOracle, halves, is_split, joined
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

# gamma in 1/mu (1/L where f is flat) and in 1/rho; curvatures below this fraction are none.
WIDTH, WEAKLY, FLAT = 10.0, 0.4, 1e-6
WEAK = (
    "the lower level is not known to be convex: claims are local, and gamma must be below 1/(2 rho)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MEHAOptions(BackendOptions):
    """Options of ``meha``.

    ``loop``: continuation (the penalised problem is solved, its weight grows by tens) or single,
    the paper's loop. ``gamma`` of the envelope, 0: 10/mu, 10/L where f is flat, 0.4/rho where it
    bends down by rho. Of the single loop: ``c`` and ``power`` p
    of ``c_k = c (k+1)^p``; steps ``alpha`` (x), ``beta`` (y) and ``eta`` (theta), 0: from estimated
    curvatures; ``stride`` iterations between records.
    """

    loop: str = "continuation"
    gamma: float = 0.0
    c: float = 1.0
    power: float = 0.49
    alpha: float = 0.0
    beta: float = 0.0
    eta: float = 0.0
    stride: int = 50

    def __post_init__(self) -> None:
        check_choices(self, "meha", loop=LOOPS)
        check_range(self, "meha", 0.0, math.inf, "gamma", "alpha", "beta", "eta")
        check_range(self, "meha", 0.0, math.inf, "c", closed=False)
        check_range(self, "meha", 0.0, 0.5, "power", closed=False)
        check_range(self, "meha", 1, 10**6, "stride")


class MEHA(Continued):
    """Moreau-envelope-based Hessian-free algorithm [Liu2024]_ for convex or weakly convex lower
    levels.

    The lower level is replaced by ``f(x, y) <= v(x, y)`` with the envelope
    ``v = min_theta f(x, theta) + |theta - y|^2 / (2 gamma)``, which is smooth even where lower
    solutions are many::

        theta <- prox(theta - eta (f_y(x, theta) + (theta - y) / gamma))
        x <- P(x - alpha (F_x / c_k + f_x(x, y) - f_x(x, theta)))
        y <- prox(y - beta (F_y / c_k + f_y(x, y) - (y - theta) / gamma)),    c_k = c (k+1)^p

    prox is the projection onto the lower domain, after soft thresholds where f has terms ``w(x)
    |y_j|`` (f_y is then the gradient of the rest).

    The error of this loop falls like 1/c_k, so that by default ``F + c (f - v)`` is minimised over
    (x, y) by L-BFGS with c growing, absolute values in positive and negative parts, and the
    minimisers are extrapolated to c without end. Cost per iteration of the loop: 1 upper gradient,
    4 lower gradients; no products.
    """

    name: ClassVar[str] = "meha"
    title: ClassVar[str] = "Moreau envelope, gradients only"
    reference: ClassVar[str] = "Liu2024"
    options: ClassVar[type[BackendOptions]] = MEHAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A convex or weakly convex lower level over variables with a cheap projection; smooth, or
        with weighted absolute values of single variables.
        """
        absolute = structure.lower.smooth.reason == ABSOLUTE
        refusal = refuse_shape(with_smooth_lower(structure) if absolute else structure)
        if refusal is not None:
            return refusal
        if absolute and structure.lower.domains.value - {"free", "box"}:
            return Reject("takes `abs` terms over free and box variables", structure.lower.domains)
        convex = structure.is_convex
        unique = structure.has_one_response
        return Accept(
            "needs gradients only",
            (*(() if convex else (WEAK,)), *(() if unique else (OPTIMISTIC,))),
        )

    def cost(self, structure: Structure) -> Cost:
        """As ill conditioned as the penalty is large."""
        kappa = structure.likely_condition
        return Cost(
            gradients=400.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: MEHAOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """Estimate what is not given."""
        parts = absolute_parts(oracle, x, rng)
        if parts is not None and options.loop == "continuation":
            split = SplitOracle(parts)
            # The penalty is minimised in both halves at once: no support, the plain box.
            split.domain_y = ProductSet(split.domain_y.blocks, split.m)
            y = halves(y)
            oracle = cast(Oracle, split)
        upper, top = curvatures(oracle, x, y, rng)
        low, high = lower_spectrum(oracle, x, y, rng)
        gamma = options.gamma or _gamma(low, high)
        if options.loop == "continuation":
            convex = low >= -FLAT * high
            return start_joint(
                oracle, x, y, options.tol, rng, weight=0.0, gamma=gamma, widens=convex
            )
        safe = 0.5 / max(top + upper / options.c + 1.0 / gamma, 1e-300)
        state = LoopState(
            x, y, y, oracle.grad_F(x, y)[0], options.alpha or safe, options.beta or safe
        )
        state.sync = Loop(gamma, options.eta or 1.0 / (top + 1.0 / gamma), parts)
        state.warn(SLOW)
        return state

    def iterate(self, oracle: Oracle, state: LoopState, options: MEHAOptions) -> None:
        """One round of the three updates; ``state.u`` is theta."""
        loop: Loop = state.sync
        x, y, theta, gamma, eta = state.x, state.y, state.u, loop.gamma, loop.eta
        c = options.c * (state.k + 1) ** options.power
        slope = loop.slope(oracle, x, theta) + (theta - y) / gamma
        theta = loop.prox(oracle, x, theta - eta * slope, eta)
        push = oracle.grad_f_x(x, y) - oracle.grad_f_x(x, theta)
        F_x = oracle.grad_F(x, y)[0]
        state.h, state.u = F_x + c * push, theta
        state.size = norm(F_x) + c * norm(push)
        state.k += 1
        if not guard(oracle, state, fixed=True):
            return
        state.x = oracle.domain_x.project(x - (state.alpha / c) * state.h)
        f_y = loop.slope(oracle, state.x, y)
        # How far one proximal step moves y: the projected gradient where f is smooth.
        moved = y - loop.prox(oracle, state.x, y - eta * f_y, eta)
        state.residual, state.adjoint = norm(moved) / eta, 0.0
        F_y = oracle.grad_F(state.x, y)[1]
        y = y - state.beta * (F_y / c + f_y - (y - theta) / gamma)
        state.y = loop.prox(oracle, state.x, y, state.beta)

    def read(self, oracle: Oracle, state: UpperState) -> Measure:
        """The measure of the penalty; absolute values have their parts joined again."""
        response = state.response
        assert isinstance(response, JointPenalty)
        m = measure_joint(response.base, state)
        return replace(m, y=joined(m.y)) if is_split(response.base) else m


def _gamma(low: float, top: float) -> float:
    """The width of the envelope, from the extreme curvatures of f at the start.

    The penalty ``f - v`` sees a direction of curvature m with the factor ``gamma m / (1 + gamma
    m)``: 10/mu leaves none out where f is strongly convex. Below 1/(2 rho) where f bends down by
    rho; 10/L where it is flat.
    """
    if not top > 0.0 and not low < 0.0:
        return 1.0
    flat = FLAT * max(top, -low)
    if low > flat:
        return WIDTH / low
    wide = WIDTH / top if top > 0.0 else math.inf
    return min(wide, WEAKLY / -low) if low < -flat else wide


@dataclass(slots=True)
class Loop:
    """Constants of the single loop, and the parts of f where it has kinks."""

    gamma: float
    eta: float
    parts: AbsoluteParts | None

    def slope(self, oracle: Oracle, x: Vec, y: Vec) -> Vec:
        """Gradient in y of the smooth part of f."""
        return oracle.grad_f(x, y) if self.parts is None else self.parts.smooth(x, y)[1]

    def prox(self, oracle: Oracle, x: Vec, y: Vec, step: float) -> Vec:
        """``argmin |z - y|^2 / (2 step) + w(x)'|z|`` over the domain: soft thresholds, clipped."""
        if self.parts is not None:
            size = y.abs() - step * self.parts.weights(x)
            y = torch.sign(y) * size.clamp(min=0.0)
        return oracle.domain_y.project(y)
