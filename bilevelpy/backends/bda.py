"""``bda``: derivatives through lower steps that aggregate both objectives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_lower_bounds, refuse_nonconvex
from bilevelpy.backends.aggregated import Aggregated
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.loop import LoopState, check_range, guard, measure_loop
from bilevelpy.backends.slbamm import OPTIMISTIC
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper_lipschitz import power_iteration
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

BIASED = "differentiating a fixed number of aggregated lower steps solves a perturbed problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class BDAOptions(BackendOptions):
    """Options of ``bda``.

    ``lower_steps`` T; the weight of F in step t is ``start * (t+1)^-decay``; ``lower_step`` s, 0:
    1/(2L); ``upper_step``, 0: by differences of hypergradients. ``warm``: start at the last y.
    """

    lower_steps: int = 50
    start: float = 0.5
    decay: float = 1.0
    lower_step: float = 0.0
    upper_step: float = 0.0
    warm: bool = True

    def __post_init__(self) -> None:
        check_range(self, "bda", 1, 10**5, "lower_steps")
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
    left of it after T steps, and of the unfinished descent, is the bias.

    Cost per upper step: T lower and T upper gradients, T pullbacks of f, 2T upper gradients for the
    products of F.
    """

    name: ClassVar[str] = "bda"
    title: ClassVar[str] = "Aggregated lower steps, differentiated"
    reference: ClassVar[str] = "Liu2020"
    options: ClassVar[type[BackendOptions]] = BDAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth convex lower level over free variables."""
        refusal = refuse_nonconvex(structure)
        if refusal is None:
            refusal = refuse_lower_bounds(structure)
        if refusal is not None:
            return refusal
        unique = structure.convexity.value == "strongly convex" or bool(structure.unique.value)
        return Accept("the lower level is convex", (BIASED,) if unique else (BIASED, OPTIMISTIC))

    def cost(self, structure: Structure) -> Cost:
        """T steps forth and back; biased, so that unbiased methods come first."""
        return Cost(gradients=1e4, products=1e4, memory=8.0 * 50 * structure.dim_y)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: BDAOptions, rng: torch.Generator
    ) -> LoopState:
        """Estimate what is not given."""
        beta = options.lower_step
        if not beta:
            top = extreme_eigenvalues(Aggregated(oracle, options.start).hvp(x, y), oracle.m, rng)[1]
            beta = 0.5 / top if top > 0 else 1.0
        state = LoopState(x, y, y, torch.zeros_like(x), options.upper_step, beta)
        state.warn(BIASED)
        if not state.alpha:
            top = power_iteration(lambda at: _reverse(oracle, at, y, beta, options)[0], x, rng)
            state.alpha = 1.0 / top if top > 0 else 1.0
        state.h = oracle.grad_F(x, y)[0]
        return state

    def step(self, oracle: Oracle, state: LoopState, options: BDAOptions) -> LoopState:
        """One upper step; ``state.u`` is the start of the lower steps where they are not warm."""
        x = state.x
        start = state.y if options.warm else state.u
        state.h, y, state.size = _reverse(oracle, x, start, state.beta, options)
        state.y = y
        state.residual = oracle.domain_y.projected_gradient_norm(y, oracle.grad_f(x, y))
        # T steps are the model here: how well they solve the lower level is the certificate's
        # matter.
        state.largest, state.adjoint = math.inf, 0.0
        state.k += 1
        if guard(oracle, state, fixed=bool(options.upper_step)):
            state.x = oracle.domain_x.project(x - state.alpha * state.h)
        return state

    def measure(self, oracle: Oracle, state: LoopState) -> Measure:
        """Read the state."""
        return measure_loop(oracle, state)


def _reverse(
    oracle: Oracle, x: Vec, y: Vec, step: float, options: BDAOptions
) -> tuple[Vec, Vec, float]:
    """Hypergradient through T aggregated steps, their end, and the size of its parts."""
    problem, points = Aggregated(oracle, options.start), [y]
    weights = [options.start * (t + 1) ** (-options.decay) for t in range(options.lower_steps)]
    for weight in weights:
        problem.mu = weight
        points.append(points[-1] - step * problem.grad_f(x, points[-1]))
    F_x, p = oracle.grad_F(x, points[-1])
    g = torch.zeros_like(x)
    for weight, at in zip(reversed(weights), reversed(points[:-1]), strict=True):
        problem.mu = weight
        Hp, Jp = problem.pullback(x, at)(p)
        p, g = p - step * Hp, g - step * Jp
    return F_x + g, points[-1], norm(F_x) + norm(g)
