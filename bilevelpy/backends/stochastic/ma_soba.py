"""``ma_soba``: ``soba`` with a moving average of the upper direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend, directions
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.stochastic.averages import MovingAverage


@dataclass(frozen=True, slots=True, kw_only=True)
class MASOBAOptions(ControlledOptions):
    """Options of ``ma_soba``: those of :class:`ControlledOptions`, and ``weight`` c of the newest
    direction.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        self.check("ma_soba")
        check_range(self, "ma_soba", 1e-6, 1.0, "weight")


class MASOBA(SampledBackend):
    """Moving-average SOBA [Chen2023optimal]_.

    ``y`` and ``u`` as in ``soba``, and::

        h <- (1 - c) h + c (F_x - f_xy u),   x <- x - t h

    which needs no more smoothness than a stochastic gradient method of one level: ``O(eps^-2)``
    batches.

    Cost per iteration: as ``soba``.
    """

    name: ClassVar[str] = "ma_soba"
    title: ClassVar[str] = "Single loop with a moving average of the hypergradient"
    reference: ClassVar[str] = "Chen2023optimal"
    options: ClassVar[type[MASOBAOptions]] = MASOBAOptions

    def prepare(self, oracle: Oracle, state: SampledState, options: MASOBAOptions) -> None:
        """No direction yet."""
        state.memory = MovingAverage(options.weight)

    def iterate(self, oracle: Oracle, state: SampledState, options: MASOBAOptions) -> None:
        """One batch."""
        s = state.beta * fall(state, options)
        batch = state.batch()
        d_y, d_u, d_x = directions(batch, state.x, state.y, state.u)
        y = state.y - s * state.metric.y(d_y)
        u = state.u - s * state.metric.y(d_u)
        move(oracle, state, batch, state.memory.update(d_x), d_y, options)
        state.y, state.u = y, u
