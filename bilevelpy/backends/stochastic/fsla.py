"""``fsla``: single steps for response and adjoint, a corrected momentum for x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend, directions
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.stochastic.averages import Storm

Vec = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FSLAOptions(ControlledOptions):
    """Options of ``fsla``: those of :class:`ControlledOptions`, and ``momentum`` eta_0: the newest
    direction has weight ``eta_0 (1 + p)^-a`` after p passes.
    """

    momentum: float = 0.5

    def __post_init__(self) -> None:
        self.check("fsla")
        check_range(self, "fsla", 1e-6, 1.0, "momentum")


@dataclass(slots=True)
class Momentum:
    """The corrected direction and the point that it belongs to."""

    storm: Storm
    before: tuple[Vec, Vec, Vec] | None = None


class FSLA(SampledBackend):
    """Fully single loop algorithm [Li2022]_.

    On one batch, with g(z) the batch's ``F_x - f_xy u`` at ``z = (x, y, u)``::

        y <- y - s f_y,   u <- u - s (f_yy u - F_y)
        m <- g(z_k) + (1 - eta) (m - g(z_{k-1})),   x <- x - t m

    Cost per iteration: 2 gradients, 2 Hessian-vector and 2 cross products of a lower batch, 2
    gradients of an upper batch.
    """

    name: ClassVar[str] = "fsla"
    title: ClassVar[str] = "Fully single loop with corrected momentum"
    reference: ClassVar[str] = "Li2022"
    options: ClassVar[type[FSLAOptions]] = FSLAOptions

    def prepare(self, oracle: Oracle, state: SampledState, options: FSLAOptions) -> None:
        """No direction yet."""
        state.memory = Momentum(Storm())

    def iteration_passes(self, state: SampledState, options: FSLAOptions) -> float:
        """Two evaluations of a batch."""
        return 2.0 / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: FSLAOptions) -> None:
        """One batch at two points."""
        memory: Momentum = state.memory
        down = fall(state, options)
        s = state.beta * down
        batch = state.batch()
        here = state.keep()
        d_y, d_u, d_x = directions(batch, *here)
        old = directions(batch, *memory.before)[2] if memory.before is not None else d_x
        m = memory.storm.update(d_x, old, options.momentum * down)
        memory.before = here
        move(oracle, state, batch, m, d_y, options)
        state.y = here[1] - s * state.metric.y(d_y)
        state.u = here[2] - s * state.metric.y(d_u)
