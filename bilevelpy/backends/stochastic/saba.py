"""``saba``: the single loop of ``soba`` with tables of the newest value of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.backends.stochastic.loop import SampledBackend
from bilevelpy.backends.stochastic.state import SampledOptions, SampledState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.numerics.stochastic.variance_reduction import SagaTable

Vec = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SABAOptions(SampledOptions):
    """Options of ``saba``: those of :class:`SampledOptions`, and ``fill``: whether the tables start
    with a pass over the data instead of zeros.
    """

    fill: bool = True

    def __post_init__(self) -> None:
        self.check("saba")


@dataclass(slots=True)
class Tables:
    """What every lower and every upper batch last said."""

    lower: SagaTable
    upper: SagaTable


class SABA(SampledBackend):
    """Stochastic average bilevel algorithm [Dagreou2022]_.

    The directions of ``soba`` with SAGA tables for the five quantities ``f_y, f_yy u, f_xy u, F_y,
    F_x``: for each, ``new - old of this batch + mean of the table``. Constant steps; the variance
    vanishes at the solution, and convergence is linear where Phi is strongly convex.

    Cost per iteration: as ``soba``. Memory: ``K (2 n_y + n_x)`` numbers for K lower batches, ``K
    (n_y + n_x)`` for K upper ones.
    """

    name: ClassVar[str] = "saba"
    title: ClassVar[str] = "Single loop with SAGA tables"
    reference: ClassVar[str] = "Dagreou2022"
    options: ClassVar[type[SABAOptions]] = SABAOptions
    lower_factor: ClassVar[float] = 1.0 / 3.0
    averages: ClassVar[bool] = False
    accuracy: ClassVar[float] = 0.0

    def prepare(self, oracle: Oracle, state: SampledState, options: SABAOptions) -> None:
        """The tables, filled at the start or zero."""
        m, n = oracle.m, oracle.n
        below, above = state.data.counts
        if not options.fill:
            state.memory = Tables(SagaTable.zeros(below, 2 * m + n), SagaTable.zeros(above, m + n))
            return
        x, y, u = state.x, state.y, state.u
        state.memory = Tables(
            SagaTable.filled(below, lambda j: lower_parts(state.data.at(j, 0), x, y, u)),
            SagaTable.filled(above, lambda i: upper_parts(state.data.at(0, i), x, y)),
        )

    def iterate(self, oracle: Oracle, state: SampledState, options: SABAOptions) -> None:
        """One batch."""
        x, y, u = state.x, state.y, state.u
        j, i = state.draw()
        batch = state.data.at(j, i)
        lower = state.memory.lower.direction(j, lower_parts(batch, x, y, u))
        upper = state.memory.upper.direction(i, upper_parts(batch, x, y))
        d_y, d_u, d_x = combined(lower, upper, oracle.m)
        state.y = y - state.beta * state.metric.y(d_y)
        state.u = u - state.beta * state.metric.y(d_u)
        state.move_x(oracle, d_x, state.alpha)


def lower_parts(batch: BatchOracle, x: Vec, y: Vec, u: Vec) -> Vec:
    """``f_y, f_yy u, f_xy u`` of a lower batch in one vector."""
    return torch.cat(batch.triple(x, y, u))


def upper_parts(batch: BatchOracle, x: Vec, y: Vec) -> Vec:
    """``F_y, F_x`` of an upper batch in one vector."""
    gF_x, gF_y = batch.grad_F(x, y)
    return torch.cat([gF_y, gF_x])


def combined(lower: Vec, upper: Vec, m: int) -> tuple[Vec, Vec, Vec]:
    """Directions for y, u and x from the parts."""
    return lower[:m], lower[m : 2 * m] - upper[:m], upper[m:] - lower[2 * m :]
