"""``fdehbo``: the single loop without second derivatives, with momentum on all directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend
from bilevelpy.backends.stochastic.state import SampledOptions, SampledState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.stochastic.averages import Storm

Vec = torch.Tensor

# Radius of the ball that u stays in, in sizes of the first u.
WIDE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FdeHBOOptions(SampledOptions):
    """Options of ``fdehbo``: those of :class:`SampledOptions`; ``difference`` e_0, relative step of
    the differences; ``radius`` r_v that u is projected on (0: 100 times the first u); ``momentum``
    b_0 and ``decay`` a: steps fall like ``(1 + p)^-a`` after p passes, the weight of the newest
    direction like ``b_0 (1 + p)^(-2a)``.
    """

    difference: float = 1e-5
    radius: float = 0.0
    momentum: float = 0.5
    decay: float = 1.0 / 3.0

    def __post_init__(self) -> None:
        self.check("fdehbo")
        check_range(self, "fdehbo", 1e-10, 1.0, "difference")
        check_range(self, "fdehbo", 0.0, math.inf, "radius")
        check_range(self, "fdehbo", 1e-6, 1.0, "momentum")
        check_range(self, "fdehbo", 0.0, 1.0, "decay")


@dataclass(slots=True)
class Directions:
    """The three directions in one vector, the point that they belong to, and the radius of u."""

    storm: Storm
    radius: float
    before: tuple[Vec, Vec, Vec] | None = None


class FdeHBO(SampledBackend):
    """Fully single-loop Hessian- and Jacobian-free optimizer [Yang2023]_.

    The directions of ``soba`` with central differences of gradients on one batch::

        f_yy u ~ (f_y(x, y + e u) - f_y(x, y - e u)) / 2e,   f_xy u likewise from f_x

    and for all three ``m <- g(z_k) + (1 - b) (m - g(z_{k-1}))``; u is projected on a ball. First
    derivatives only; ``O~(eps^-1.5)`` samples.

    Cost per iteration: 4 gradients of a lower batch in x and y, 2 of an upper one. Checks take
    Hessian-vector products.
    """

    name: ClassVar[str] = "fdehbo"
    title: ClassVar[str] = "Single loop by differences of gradients, with momentum"
    reference: ClassVar[str] = "Yang2023"
    options: ClassVar[type[FdeHBOOptions]] = FdeHBOOptions
    products: ClassVar[bool] = False

    def prepare(self, oracle: Oracle, state: SampledState, options: FdeHBOOptions) -> None:
        """No direction yet."""
        radius = options.radius or WIDE * norm(state.u) or math.inf
        state.memory = Directions(Storm(), radius)

    def iteration_passes(self, state: SampledState, options: FdeHBOOptions) -> float:
        """Two evaluations of a batch."""
        return 2.0 / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: FdeHBOOptions) -> None:
        """One batch at two points."""
        memory: Directions = state.memory
        down = (1.0 + state.passes) ** -options.decay
        batch, here = state.batch(), state.keep()
        new = differenced(batch, *here, options.difference)
        old = (
            new if memory.before is None else differenced(batch, *memory.before, options.difference)
        )
        d = memory.storm.update(new, old, min(1.0, options.momentum * down**2))
        memory.before = here
        d_y, d_u, d_x = d.split([oracle.m, oracle.m, oracle.n])
        s, metric = state.beta * down, state.metric
        state.move_x(oracle, d_x, state.alpha * down)
        state.y = here[1] - s * metric.y(d_y)
        u = here[2] - s * metric.y(d_u)
        size = norm(u)
        state.u = u if size <= memory.radius else (memory.radius / size) * u


def differenced(batch: BatchOracle, x: Vec, y: Vec, u: Vec, relative: float) -> Vec:
    """``f_y, f_yy u - F_y, F_x - f_xy u`` by gradients alone; f_y is the mean at both points."""
    gF_x, gF_y = batch.grad_F(x, y)
    size = norm(u)
    if size == 0.0:
        return torch.cat([batch.grad_f(x, y), -gF_y, gF_x])
    e = relative * (1.0 + norm(y)) / size
    up, down = batch.grads_f(x, y + e * u), batch.grads_f(x, y - e * u)
    cross, Hu = (up[0] - down[0]) / (2.0 * e), (up[1] - down[1]) / (2.0 * e)
    return torch.cat([0.5 * (up[1] + down[1]), Hu - gF_y, gF_x - cross])
