"""``stocbio``: lower steps, a Neumann series on independent batches, an upper step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from bilevelpy.backends.loop import check_range
from bilevelpy.backends.stochastic.loop import SampledBackend
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.backends.stochastic.upper import ControlledOptions, fall, move
from bilevelpy.lowering.protocol import Oracle

# Automatic length of the series: what is cut off, and a limit.
CUT, LONGEST = 1e-3, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class StocBiOOptions(ControlledOptions):
    """Options of ``stocbio``: those of :class:`ControlledOptions`, ``lower_steps`` T and
    ``neumann_steps`` Q (0: until the rest of the series is 1e-3 of it).
    """

    decay: float = 0.5
    lower_steps: int = 10
    neumann_steps: int = 0

    def __post_init__(self) -> None:
        self.check("stocbio")
        check_range(self, "stocbio", 1, 10**6, "lower_steps")
        check_range(self, "stocbio", 0, 10**6, "neumann_steps")


class StocBiO(SampledBackend):
    """Stochastic bilevel optimizer [Ji2021]_.

    T steps ``y <- y - s f_y`` on a batch each, then with a new batch in every factor::

        u = s sum_{q=0}^{Q} prod_{p<=q} (I - s f_yy) F_y,     x <- x - t (F_x - f_xy u)

    The published code returns ``s v_Q + sum_{q>=1} v_q`` instead of the series, which has another
    scale. The series is cut off: a bias ``(1 - s mu)^(Q+1)`` remains however long the run.

    Cost per iteration: T + 1 gradients and Q Hessian-vector products of lower batches, 1 cross
    product, 2 gradients of upper batches.
    """

    name: ClassVar[str] = "stocbio"
    title: ClassVar[str] = "Stochastic lower steps and Neumann series"
    reference: ClassVar[str] = "Ji2021"
    options: ClassVar[type[StocBiOOptions]] = StocBiOOptions
    # Products of many noisy factors: shorter steps, longer series.
    lower_factor: ClassVar[float] = 0.3
    # Factors that share no batch would not multiply in the mean.
    independent: ClassVar[str] = "u"

    def inner_steps(self, options: StocBiOOptions) -> int:
        """T."""
        return options.lower_steps

    def terms(self, state: SampledState, options: StocBiOOptions) -> int:
        """Q."""
        if options.neumann_steps:
            return options.neumann_steps
        rest = 1.0 - min(state.beta * state.metric.low, 0.999)
        if rest >= 1.0:
            return LONGEST
        return min(max(1, math.ceil(math.log(CUT) / math.log(rest))), LONGEST)

    def iteration_passes(self, state: SampledState, options: StocBiOOptions) -> float:
        """T + Q + 1 batches."""
        return (options.lower_steps + self.terms(state, options) + 1) / state.batches

    def iterate(self, oracle: Oracle, state: SampledState, options: StocBiOOptions) -> None:
        """Lower steps, adjoint, upper step."""
        metric, x = state.metric, state.x
        s = state.beta * fall(state, options)
        for _ in range(options.lower_steps):
            state.y = state.y - s * metric.y(state.batch("y").grad_f(x, state.y))
        y = state.y
        v = metric.y(state.batch("u").grad_F(x, y)[1])
        total, beta = v, state.beta
        for _ in range(self.terms(state, options)):
            v = v - beta * metric.y(state.batch("u").hvp(x, y)(v))
            total = total + v
        state.u = beta * total
        batch = state.batch()
        g, _, cross = batch.triple(x, y, state.u)
        move(oracle, state, batch, batch.grad_F(x, y)[0] - cross, g, options)
