"""``f2sa``: stochastic steps on the penalised and the plain lower problem, gradients alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import ALMOST, is_almost_smooth, refuse_shape, without_kinks
from bilevelpy.backends.base import Accept, Reject
from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend, accept_sums
from bilevelpy.backends.stochastic.pace import Descent
from bilevelpy.backends.stochastic.scale import LOOKED
from bilevelpy.backends.stochastic.state import SampledOptions, SampledState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# First weight: the penalised and the plain solution differ by about this fraction of y.
APART = 0.03
LOCAL = (
    "the lower level is not known to be strongly convex: batches follow the minimiser that they "
    "reach"
)
# Solutions of a part of the data, as convex models start from, may be far off for others, and
# f - F/lambda need not have a minimum: differences from f alone, a step of each at a time. A weight
# that grows lets the noise of the batches grow, which no lower level that is solved makes up for.
PLAIN = {"metric": "rough", "prepare": "none", "passes": 8.0, "order": 1, "lower_steps": 1,
         "growth": 0.0, "decay": 0.0}  # fmt: skip
BIASED = "the penalty is off by about 1/weight (1/weight^2 with order 2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class F2SAOptions(SampledOptions):
    """Options of ``f2sa``: those of :class:`SampledOptions`; ``lower_steps`` T; ``weight`` lambda_0
    (0: minimisers 3 % apart; with metric rough such that both terms pull alike at the start);
    ``growth``: lambda grows like ``(1 + p)^growth`` after p passes;
    ``order`` 1 (differences from f alone) or 2 (central); ``decay`` a of the steps, ``(1 + p)^-a``.
    """

    lower_steps: int = 5
    weight: float = 0.0
    growth: float = 1.0 / 7.0
    order: int = 2
    decay: float = 4.0 / 7.0

    def __post_init__(self) -> None:
        self.check("f2sa")
        check_range(self, "f2sa", 1, 10**6, "lower_steps")
        check_range(self, "f2sa", 0.0, math.inf, "weight")
        check_range(self, "f2sa", 0.0, 1.0, "growth", "decay")
        check_range(self, "f2sa", 1, 2, "order")


@dataclass(slots=True)
class Penalised:
    """Minimisers of ``f + F/lambda`` (up) and ``f - F/lambda`` (down), and the first weight."""

    up: Vec
    down: Vec
    weight: float


class F2SA(SampledBackend):
    """Fully first-order stochastic approximation [Kwon2023]_.

    With a growing weight lambda, T times each on a new batch, then on another one::

        y <- y - s (f_y(x, y) + F_y(x, y) / lambda),   z <- z - s f_y(x, z)
        x <- x - t (F_x(x, y) + lambda (f_x(x, y) - f_x(x, z)))

    y and z take the same batches, so that their noise cancels in the difference. Order 2 replaces z
    there by the minimiser of ``f - F/lambda``: the bias is ``1/lambda^2`` instead of ``1/lambda``.
    The adjoint is ``lambda (z - y)`` (``lambda (y_- - y_+) / 2``).

    The penalty needs no convexity of f: lower levels that are not known to be convex are taken
    without a claim beyond the certificate's.

    Cost per iteration: 2 T + 2 gradients of lower batches (3 T + 2 with order 2), T + 1 (2 T + 2)
    of upper ones, no products. Checks take one Hessian-vector product, to see the bias.
    """

    name: ClassVar[str] = "f2sa"
    title: ClassVar[str] = "First-order stochastic penalty on the value function"
    reference: ClassVar[str] = "Kwon2023"
    options: ClassVar[type[F2SAOptions]] = F2SAOptions
    products: ClassVar[bool] = False

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A lower level without bounds, smooth or almost, that is a sum over a data axis."""
        found = accept_sums(structure, refuse_shape(without_kinks(structure)))
        if isinstance(found, Accept) and structure.convexity.value != "strongly convex":
            kinks = (ALMOST,) if is_almost_smooth(structure) else ()
            return replace(found, warnings=(LOCAL, *kinks), options=PLAIN)
        return found

    def prepare(self, oracle: Oracle, state: SampledState, options: F2SAOptions) -> None:
        """Minimisers from the adjoint of the start."""
        y, u = state.y, state.u
        state.warn(BIASED)
        if options.metric == "rough":
            known: Penalised | None = state.memory
            weight = options.weight or (known.weight if known is not None else _pulls(state))
            state.memory = Penalised(y.clone(), y.clone(), weight)
            return
        size = norm(u) or norm(oracle.grad_F(state.x, y)[1])
        weight = options.weight or size / max(APART * (norm(y) or 1.0), 1e-300) or 1.0
        state.memory = Penalised(y - u / weight, y + u / weight, weight)

    def descents(self, state: SampledState) -> list[Descent]:
        """The lower and the penalised objective."""
        memory: Penalised = state.memory
        batch, x, y, up, weight = state.batch("y"), state.x, state.y, memory.up, memory.weight

        def penalised(z: Vec) -> float:
            return batch.f(x, z) + batch.F(x, z) / weight

        slope = batch.grad_f(x, up) + batch.grad_F(x, up)[1] / weight
        return [(partial(batch.f, x), y, batch.grad_f(x, y)), (penalised, up, slope)]

    def inner_steps(self, options: F2SAOptions) -> int:
        """T."""
        return options.lower_steps

    def iteration_passes(self, state: SampledState, options: F2SAOptions) -> float:
        """T + 1 batches."""
        return (options.lower_steps + 1) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: F2SAOptions) -> None:
        """Lower steps on all minimisers, an upper step."""
        memory: Penalised = state.memory
        x, metric, central = state.x, state.metric, options.order == 2
        s = state.beta * (1.0 + state.passes) ** -options.decay
        weight = memory.weight * (1.0 + state.passes) ** options.growth
        for _ in range(options.lower_steps):
            batch = state.batch("y")
            memory.up = memory.up - s * metric.y(
                batch.grad_f(x, memory.up) + batch.grad_F(x, memory.up)[1] / weight
            )
            state.y = state.y - s * metric.y(batch.grad_f(x, state.y))
            if central:
                memory.down = memory.down - s * metric.y(
                    batch.grad_f(x, memory.down) - batch.grad_F(x, memory.down)[1] / weight
                )
        batch = state.batch()
        up, other = memory.up, memory.down if central else state.y
        factor = 0.5 * weight if central else weight
        F_x = batch.grad_F(x, up)[0]
        if central:
            F_x = 0.5 * (F_x + batch.grad_F(x, other)[0])
        h = F_x + factor * (batch.grad_f_x(x, up) - batch.grad_f_x(x, other))
        state.u = factor * (other - up)
        state.move_x(oracle, h, state.alpha * (1.0 + state.passes) ** -options.decay)


def _pulls(state: SampledState) -> float:
    """The weight with which both terms of the penalised objective have gradients of one size at the
    start, by some batches: the penalised minimiser is then one of both data sets.
    """
    x, y = state.x, state.y
    batches = [state.batch() for _ in range(LOOKED)]
    below = math.sqrt(sum(norm(b.grad_f(x, y)) ** 2 for b in batches))
    above = math.sqrt(sum(norm(b.grad_F(x, y)[1]) ** 2 for b in batches))
    weight = above / below if below > 0.0 else 0.0
    return weight if 0.0 < weight < math.inf else 1.0
