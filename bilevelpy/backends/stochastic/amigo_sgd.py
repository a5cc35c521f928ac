"""``amigo_sgd``: warm-started stochastic steps for the lower level and for the adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class AmIGOSGDOptions(ControlledOptions):
    """Options of ``amigo_sgd``: those of :class:`ControlledOptions`, ``lower_steps`` T and
    ``adjoint_steps`` Q.
    """

    lower_steps: int = 5
    adjoint_steps: int = 5

    def __post_init__(self) -> None:
        self.check("amigo_sgd")
        check_range(self, "amigo_sgd", 1, 10**6, "lower_steps", "adjoint_steps")


class AmIGOSGD(SampledBackend):
    """Amortized implicit gradient optimization with stochastic steps [Arbel2022]_.

    From the last y and the last u::

        y <- y - s f_y                    T times,
        u <- u - s (f_yy u - F_y)         Q times,
        x <- x - t (F_x - f_xy u)

    each on a new batch. The warm start of u removes the bias that a fixed Q has from scratch.

    Cost per iteration: T + Q + 1 gradients and Q + 1 Hessian-vector products of lower batches, 1
    cross product, Q + 1 gradients of upper batches.
    """

    name: ClassVar[str] = "amigo_sgd"
    title: ClassVar[str] = "Warm-started stochastic steps for response and adjoint"
    reference: ClassVar[str] = "Arbel2022"
    options: ClassVar[type[AmIGOSGDOptions]] = AmIGOSGDOptions

    def inner_steps(self, options: AmIGOSGDOptions) -> int:
        """The smaller of T and Q."""
        return min(options.lower_steps, options.adjoint_steps)

    def iteration_passes(self, state: SampledState, options: AmIGOSGDOptions) -> float:
        """T + Q + 1 batches."""
        return (options.lower_steps + options.adjoint_steps + 1) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: AmIGOSGDOptions) -> None:
        """Lower steps, adjoint steps, upper step."""
        metric, x = state.metric, state.x
        s = state.beta * fall(state, options)
        for _ in range(options.lower_steps):
            state.y = state.y - s * metric.y(state.batch("y").grad_f(x, state.y))
        y = state.y
        for _ in range(options.adjoint_steps):
            batch = state.batch("u")
            r = batch.hvp(x, y)(state.u) - batch.grad_F(x, y)[1]
            state.u = state.u - s * metric.y(r)
        batch = state.batch()
        g, _, cross = batch.triple(x, y, state.u)
        move(oracle, state, batch, batch.grad_F(x, y)[0] - cross, g, options)
