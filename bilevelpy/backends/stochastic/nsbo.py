"""``nsbo``: stochastic Newton equations for the response and its adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class NSBOOptions(ControlledOptions):
    """Options of ``nsbo``: those of :class:`ControlledOptions`, and ``solver_steps`` T."""

    solver_steps: int = 5

    def __post_init__(self) -> None:
        self.check("nsbo")
        check_range(self, "nsbo", 1, 10**6, "solver_steps")


class NSBO(SampledBackend):
    """Stochastic variant of the Newton-type method ``nbo`` [Dong2025]_ (NSBO-SGD).

    Both systems of a Newton step share batches and Hessians; T steps from 0, each on a new batch::

        v <- v - s (f_yy v - f_y),          y <- y - v
        w <- w - s (f_yy w - (f_yy u - F_y)),   u <- u - w
        x <- x - t (F_x - f_xy u)

    The paper's text was not at hand for the stochastic variant: this is our reading. f_yy stays at
    the point of the iteration, as in the deterministic method.

    Cost per iteration: T + 1 gradients, 2 T + 1 Hessian-vector products of lower batches, 1 cross
    product, T + 1 gradients of upper batches.
    """

    name: ClassVar[str] = "nsbo"
    title: ClassVar[str] = "Stochastic Newton systems for response and adjoint"
    reference: ClassVar[str] = "Dong2025"
    options: ClassVar[type[NSBOOptions]] = NSBOOptions

    def inner_steps(self, options: NSBOOptions) -> int:
        """T."""
        return options.solver_steps

    def iteration_passes(self, state: SampledState, options: NSBOOptions) -> float:
        """T + 1 batches."""
        return (options.solver_steps + 1) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: NSBOOptions) -> None:
        """Two systems, two Newton steps, an upper step."""
        metric, x, y, u = state.metric, state.x, state.y, state.u
        s = state.beta * fall(state, options)
        v, w = torch.zeros_like(y), torch.zeros_like(y)
        for _ in range(options.solver_steps):
            batch = state.batch("y")
            g, Hu, _ = batch.triple(x, y, u - w)
            v = v - s * metric.y(batch.hvp(x, y)(v) - g)
            w = w + s * metric.y(Hu - batch.grad_F(x, y)[1])
        state.y, state.u = y - v, u - w
        batch = state.batch()
        g, _, cross = batch.triple(x, state.y, state.u)
        move(oracle, state, batch, batch.grad_F(x, state.y)[0] - cross, g, options)
