"""``soba``: one batch for the lower solution, the adjoint and the upper step at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilevelpy.backends.stochastic.loop import SampledBackend, directions
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class SOBAOptions(ControlledOptions):
    """Options of ``soba``: those of :class:`ControlledOptions`."""

    def __post_init__(self) -> None:
        self.check("soba")


class SOBA(SampledBackend):
    """Stochastic bilevel algorithm [Dagreou2022]_.

    With one batch of each level, all three from the same point::

        y <- y - s f_y,   u <- u - s (f_yy u - F_y),   x <- x - t (F_x - f_xy u)

    Steps that do not fall end at a noise floor; falling ones reach accuracy ``eps`` after
    ``O(eps^-2)`` batches. What is shown is the average of the newer half of the iterates.

    Cost per iteration: 1 gradient, 1 Hessian-vector and 1 cross product of a lower batch, 1
    gradient of an upper batch; 3 full evaluations at every check.
    """

    name: ClassVar[str] = "soba"
    title: ClassVar[str] = "Single-loop stochastic gradients for both levels and the adjoint"
    reference: ClassVar[str] = "Dagreou2022"
    options: ClassVar[type[SOBAOptions]] = SOBAOptions

    def iterate(self, oracle: Oracle, state: SampledState, options: SOBAOptions) -> None:
        """One batch."""
        s = state.beta * fall(state, options)
        batch = state.batch()
        d_y, d_u, d_x = directions(batch, state.x, state.y, state.u)
        y = state.y - s * state.metric.y(d_y)
        u = state.u - s * state.metric.y(d_u)
        move(oracle, state, batch, d_x, d_y, options)
        state.y, state.u = y, u
