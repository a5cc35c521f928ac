"""``pzobo_s``: the response Jacobian from differences of stochastic lower paths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Cost
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.backends.stochastic.loop import SampledBackend, check_time
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, move
from bilevelpy.backends.zeroth_order.pzobo import (
    BIASED,
    DIRECTIONS,
    RANDOM,
    UNSCALED,
    counted,
    drawn,
)
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.together import BatchGradients, batch_gradients_together
from bilevelpy.numerics.linear_solve import conjugate_gradients, norm
from bilevelpy.numerics.lower.batched_paths import fixed_paths

Vec = torch.Tensor

# Automatic length of the paths: the part of the response that they may miss, and a limit.
CUT, LONGEST = 1e-2, 1000
CAPPED = "the lower level is so ill-conditioned that paths end before it answers: biased"
# Adjoint of a check: its accuracy in that of the run, and a limit on the products.
PART, PRODUCTS = 0.1, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PZOBOSOptions(ControlledOptions):
    """Options of ``pzobo_s``: those of :class:`ControlledOptions`; ``directions``, ``count`` Q and
    ``difference`` mu as ``pzobo``; ``lower_steps`` N of a path (0: until all but 1 % of the
    response is there).
    """

    decay: float = 0.5
    directions: str = "orthonormal"
    count: int = 0
    difference: float = 1e-4
    lower_steps: int = 0

    def __post_init__(self) -> None:
        self.check("pzobo_s")
        check_choices(self, "pzobo_s", directions=DIRECTIONS)
        check_range(self, "pzobo_s", 0, 10**6, "count", "lower_steps")
        check_range(self, "pzobo_s", 0.0, 1.0, "difference", closed=False)


@dataclass(slots=True)
class Plan:
    """Number of directions, and lower gradients at many points."""

    count: int
    gradients: BatchGradients


class PZOBOS(SampledBackend):
    """Stochastic partial zeroth-order bilevel optimization [Sow2022]_ (PZOBO-S).

    From the last y, with batches B_1, ..., B_N that are the same for all Q + 1 paths (common random
    numbers)::

        y_t(x) = y_{t-1}(x) - s f_y(x, y_{t-1}(x); B_t),    t = 1..N
        delta_j = (y_N(x + mu U_j) - y_N(x)) / mu
        h = F_x(x, y_N; B) + 1/Q sum_j <delta_j, F_y(x, y_N; B)> U_j,   x <- x - t h

    with ``E U U' = I`` and a new batch B for F. With batches of their own the paths would differ by
    their noise, and delta by that noise over mu. Steps s do not fall, as shorter ones would cut the
    response off: y stays in the noise of s, and so does h, whose factors share it. The upper steps
    fall, and what is shown is the average of the newer half of the iterates.

    Cost per iteration: (Q + 1) N gradients of lower batches (N batches are read), 1 gradient of an
    upper batch; no products. Checks solve for the adjoint by conjugate gradients on all data.
    """

    name: ClassVar[str] = "pzobo_s"
    title: ClassVar[str] = "Differences of stochastic lower paths with common batches"
    reference: ClassVar[str] = "Sow2022"
    options: ClassVar[type[PZOBOSOptions]] = PZOBOSOptions
    products: ClassVar[bool] = False
    # Paths do not fall silent: shorter steps leave less noise at their ends.
    lower_factor: ClassVar[float] = 0.3

    def cost(self, structure: Structure) -> Cost:
        """Some passes for every path."""
        paths = counted("orthonormal", 0, structure.dim_x)[0] + 1
        return replace(super().cost(structure), gradients=500.0 * paths)

    def prepare(self, oracle: Oracle, state: SampledState, options: PZOBOSOptions) -> None:
        """The number of directions, and what makes them biased or noisy."""
        Q, exact = counted(options.directions, options.count, oracle.n)
        state.memory = Plan(Q, batch_gradients_together(state.data.at(0, 0)))
        if not exact:
            state.warn(RANDOM)
        if options.directions == "published":
            state.warn(UNSCALED)
        if options.lower_steps:
            state.warn(BIASED)
        elif self.path_steps(state, options) == LONGEST:
            state.warn(CAPPED)

    def path_steps(self, state: SampledState, options: PZOBOSOptions) -> int:
        """N, so that ``(1 - s low)^N`` is at most CUT."""
        if options.lower_steps:
            return options.lower_steps
        rate = min(state.beta * state.metric.low, 0.999)
        if rate <= 0.0:
            return LONGEST
        return min(max(1, math.ceil(math.log(CUT) / math.log1p(-rate))), LONGEST)

    def inner_steps(self, options: PZOBOSOptions) -> int:
        """Paths are followed to their ends, or for as long as they are asked to."""
        return options.lower_steps or LONGEST

    def iteration_passes(self, state: SampledState, options: PZOBOSOptions) -> float:
        """N + 1 batches are read."""
        return (self.path_steps(state, options) + 1) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: PZOBOSOptions) -> None:
        """All paths, an upper step."""
        x, plan = state.x, state.memory
        mu = options.difference * (1.0 + norm(x)) / math.sqrt(max(oracle.n, 1))
        U = drawn(options.directions, plan.count, oracle.n, state.rng)
        steps = self.path_steps(state, options)
        ends = common_paths(oracle, state, steps, torch.cat([x[None], x + mu * U]))
        y, delta = ends[0], (ends[1:] - ends[0]) / mu
        batch = state.batch()
        F_x, F_y = batch.grad_F(x, y)
        h = F_x + (delta @ F_y) @ U / plan.count
        state.y = y
        residual = batch.grad_f(x, y) if options.controller == "bisls" else torch.zeros_like(y)
        move(oracle, state, batch, h, residual, options)

    def completed(
        self, oracle: Oracle, state: SampledState, options: PZOBOSOptions, at: tuple[Vec, Vec, Vec]
    ) -> tuple[Vec, Vec, Vec]:
        """The adjoint at a point, which no iteration makes."""
        x, y, u = at
        gF_y = oracle.grad_F(x, y)[1]
        if not bool(torch.isfinite(gF_y).all()):
            return at
        tol = PART * options.tol * norm(gF_y)
        found = conjugate_gradients(
            oracle.hvp(x, y),
            gF_y,
            tol=tol,
            max_iter=PRODUCTS,
            u0=u,
            preconditioner=state.metric.y,
        )
        state.u = found.u
        return x, y, found.u


def common_paths(oracle: Oracle, state: SampledState, steps: int, X: Vec) -> Vec:
    """The ends of the paths at the rows of X from the present y: each step takes a new batch, the
    same for all of them.
    """

    def stepped(X: Vec, Y: Vec) -> Vec:
        check_time(oracle)
        G = state.memory.gradients(state.batch("y"), X, Y)
        return state.metric.y(G.T).T  # type: ignore[no-any-return]

    return fixed_paths(oracle, stepped, X, state.y, state.beta, steps)
