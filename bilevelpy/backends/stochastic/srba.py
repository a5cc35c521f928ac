"""``srba``: the single loop with recursive estimates, refreshed by full passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend, directions, full_directions
from bilevelpy.backends.stochastic.state import SampledOptions, SampledState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.stochastic.variance_reduction import Sarah

Vec = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SRBAOptions(SampledOptions):
    """Options of ``srba``: those of :class:`SampledOptions`, and ``period``: iterations between two
    full passes, in numbers of lower batches.
    """

    period: float = 1.0

    def __post_init__(self) -> None:
        self.check("srba")
        check_range(self, "srba", 0.0, 1e6, "period", closed=False)


@dataclass(slots=True)
class Recursion:
    """The estimate, the point that it belongs to, and the iterations since the full pass."""

    estimate: Sarah | None = None
    before: tuple[Vec, Vec, Vec] | None = None
    age: int = 0


class SRBA(SampledBackend):
    """Stochastic recursive bilevel algorithm [Dagreou2023]_.

    The directions ``d = (f_y, f_yy u - F_y, F_x - f_xy u)`` of ``soba`` by the SARAH recursion::

        d_k = d_{k-1} + D(z_k; batch) - D(z_{k-1}; batch),   z = (y, u, x)

    with a full evaluation every period. Constant steps; ``O((n + m)^(1/2) / eps)`` evaluations,
    which is the lower bound. No tables: for sums too long for ``saba``.

    Cost per iteration: twice that of ``soba``; 3 full evaluations every period.
    """

    name: ClassVar[str] = "srba"
    title: ClassVar[str] = "Single loop with SARAH recursions"
    reference: ClassVar[str] = "Dagreou2023"
    options: ClassVar[type[SRBAOptions]] = SRBAOptions
    averages: ClassVar[bool] = False
    accuracy: ClassVar[float] = 0.0

    def prepare(self, oracle: Oracle, state: SampledState, options: SRBAOptions) -> None:
        """A full pass is due."""
        state.memory = Recursion()

    def checked(self, oracle: Oracle, state: SampledState, found: tuple[Vec, Vec, Vec]) -> None:
        """The full pass of a check serves the recursion too."""
        state.memory = Recursion(Sarah(torch.cat(found)), state.keep(), 0)

    def iteration_passes(self, state: SampledState, options: SRBAOptions) -> float:
        """Two evaluations of a batch, and a share of the full pass."""
        return (2.0 + 1.0 / options.period) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: SRBAOptions) -> None:
        """One batch at two points."""
        memory: Recursion = state.memory
        if memory.estimate is None or memory.age >= options.period * state.batches:
            self.checked(oracle, state, full_directions(oracle, state))
            memory = state.memory
        elif memory.age:
            batch = state.batch()
            here = torch.cat(directions(batch, *state.keep()))
            assert memory.before is not None
            memory.estimate.update(here, torch.cat(directions(batch, *memory.before)))
        memory.age += 1
        memory.before = state.keep()
        assert memory.estimate is not None
        d_y, d_u, d_x = memory.estimate.direction.split([oracle.m, oracle.m, oracle.n])
        y, u = state.y, state.u
        state.move_x(oracle, d_x, state.alpha)
        state.y = y - state.beta * state.metric.y(d_y)
        state.u = u - state.beta * state.metric.y(d_u)
