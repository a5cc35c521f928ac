"""``bome``: descent on F that keeps the lower value gap falling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.loop import (
    LoopState,
    check_choices,
    check_range,
    curvatures,
    guard,
)
from bilevelpy.backends.value_function.continued import LOOPS, Continued
from bilevelpy.backends.value_function.joint import start_joint
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

BARRIERS = ("gradient", "value")
# Slopes of the value gap below this part of the curvature of f times |y| are rounding.
ROUNDING = 1e-10
# The loop has done its part once a record moves x by less than this fraction of the way so far.
SLOW = 1e-3
LOCAL = "the lower level is not known to be convex: its value is that of the point reached from y"


@dataclass(frozen=True, slots=True, kw_only=True)
class BOMEOptions(BackendOptions):
    """Options of ``bome``.

    ``loop``: continuation (the paper's loop, at most ``first`` iterations of it, and from its point
    and lambda the minimisers of ``F + lambda q`` for growing lambda) or single, the loop alone.
    ``barrier``: gradient (``phi = eta |grad q|^2``) or value (``phi = eta q``), with ``rate`` eta.
    ``lower_steps`` T from y, of length ``lower_step`` (0: 1/L). ``step`` s of (x, y) and its
    ``decay``, ``s_k = s k^-decay``; 0: from estimated curvatures, shorter where lambda is large.
    ``stride``: iterations between records.
    """

    loop: str = "continuation"
    first: int = 200
    barrier: str = "gradient"
    rate: float = 0.5
    lower_steps: int = 10
    lower_step: float = 0.0
    step: float = 0.0
    decay: float = 0.0
    stride: int = 10

    def __post_init__(self) -> None:
        check_choices(self, "bome", loop=LOOPS, barrier=BARRIERS)
        check_range(self, "bome", 0.0, 1.0, "rate", closed=False)
        check_range(self, "bome", 0.0, math.inf, "lower_step", "step")
        check_range(self, "bome", 0.0, 1.0, "decay")
        check_range(self, "bome", 1, 10**6, "first", "lower_steps", "stride")


class BOME(Continued):
    """Bilevel optimization made easy [Ye2022]_: a dynamic barrier instead of a penalty weight.

    With z by T gradient steps on f(x, .) from y, held fixed, and ``q = f(x, y) - f(x, z)``::

        lambda = max(0, (phi - <grad F, grad q>) / |grad q|^2)
        (x, y) <- (x, y) - s (grad F + lambda grad q)

    so that q falls at the rate phi while F falls wherever it can. ``grad q`` vanishes at the
    solution together with q, and the direction jumps there: the steps must fall, and the error
    falls no faster than they do. The loop finds the place and the weight lambda that F needs there;
    the digits come from ``F + lambda q`` minimised over (x, y) by L-BFGS, with the exact lower
    value in q, lambda growing, and the minimisers extrapolated to lambda without end.

    Cost per iteration of the loop: T + 3 lower gradients, 1 upper gradient.
    """

    name: ClassVar[str] = "bome"
    title: ClassVar[str] = "Dynamic barrier on the value gap"
    reference: ClassVar[str] = "Ye2022"
    options: ClassVar[type[BackendOptions]] = BOMEOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth lower level over variables with a cheap projection."""
        refusal = refuse_shape(structure)
        if refusal is not None:
            return refusal
        convex = structure.is_convex
        return Accept("needs gradients only", () if convex else (LOCAL,))

    def cost(self, structure: Structure) -> Cost:
        """Many cheap iterations."""
        kappa = structure.likely_condition
        return Cost(gradients=1000.0 * kappa, products=0.0, memory=80.0 * structure.dim_y)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: BOMEOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """Estimate what is not given."""
        upper, lower = curvatures(oracle, x, y, rng)
        inner = power_iteration(lambda z: oracle.grad_f(x, z), y, rng)
        beta = options.lower_step or (1.0 / inner if inner > 0 else 1.0)
        state = LoopState(x, y, y, oracle.grad_F(x, y)[0], options.step, beta)
        state.sync = Loop(upper, lower, rng, x)
        return state

    def iterate(self, oracle: Oracle, state: LoopState, options: BOMEOptions) -> None:
        """One step on (x, y)."""
        x, y, domain = state.x, state.y, oracle.domain_y
        f, f_y = oracle.value_grad_f(x, y)
        z, g = y, f_y
        for t in range(options.lower_steps):
            g = f_y if t == 0 else oracle.grad_f(x, z)
            z = domain.project(z - state.beta * g)
        q_x, q_y = oracle.grad_f_x(x, y) - oracle.grad_f_x(x, z), f_y
        F_x, F_y = oracle.grad_F(x, y)
        square = dot(q_x, q_x) + dot(q_y, q_y)
        phi = options.rate * (
            square if options.barrier == "gradient" else max(f - oracle.f(x, z), 0.0)
        )
        along = dot(F_x, q_x) + dot(F_y, q_y)
        # At rounding level grad q has no direction.
        loop: Loop = state.sync
        known = math.sqrt(square) > ROUNDING * loop.lower * norm(y)
        weight = loop.weight = max(0.0, (phi - along) / square) if known else 0.0
        state.h, state.residual = F_x + weight * q_x, domain.projected_gradient_norm(y, f_y)
        d_y = F_y + weight * q_y
        state.size = norm(F_x) + weight * norm(q_x)
        scale = norm(F_y) + weight * norm(q_y)
        state.adjoint = (
            min(norm(domain.projected_gradient(y, d_y)) / scale, 1.0) if scale > 0 else 0.0
        )
        state.k += 1
        if not guard(oracle, state, fixed=True):
            return
        s = state.alpha * state.k ** (-options.decay)
        if not state.alpha:
            s = 1.0 / max(loop.upper + 2.0 * weight * loop.lower, 1e-300)
        state.x, state.y = oracle.domain_x.project(x - s * state.h), domain.project(y - s * d_y)

    def penalty(
        self, oracle: Oracle, state: LoopState, before: Vec, options: BOMEOptions
    ) -> UpperState | None:
        """``F + lambda q`` from the best point and the last lambda of a loop that is slow."""
        loop: Loop = state.sync
        slow = norm(state.x - before) <= SLOW * norm(state.x - loop.start)
        if state.finish is None and state.k < options.first and not slow:
            return None
        return self.later(oracle, state, options)

    def later(self, oracle: Oracle, state: LoopState, options: BOMEOptions) -> UpperState:
        """The penalty from where the loop is."""
        loop: Loop = state.sync
        x, y = (state.x, state.y) if state.best is None else state.best[1:3]
        return start_joint(
            oracle, x, y, options.tol, loop.rng, weight=loop.weight, gamma=0.0, fixed=False
        )


@dataclass(slots=True)
class Loop:
    """Constants of the loop, where it began, and its newest lambda."""

    upper: float
    lower: float
    rng: torch.Generator
    start: Vec
    weight: float = 0.0
