"""The upper step of the stochastic backends that may leave its length to a controller."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.backends.stochastic.state import SampledOptions, SampledState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.numerics.linear_solve import dot
from bilevelpy.numerics.stochastic.step_rules import Armijo, Polyak

Vec = torch.Tensor

CONTROLLERS = ("fixed", "sps", "bisls")
# Longest step of a controller, in the lengths that the curvatures of a pilot suggest.
LONGEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlledOptions(SampledOptions):
    """Options with a step-size controller.

    ``decay`` a: steps fall like ``(1 + p)^-a`` with the passes p made over the data (the papers
    have 1/2 or so; where no batch is drawn twice in an epoch more pays). ``controller`` of
    the upper step: fixed (from curvatures), sps (Polyak steps on batches; needs ``lower_bound`` of
    F on a batch) or bisls (Armijo on batches, with the response after one lower step).
    """

    decay: float = 0.75
    controller: str = "fixed"
    lower_bound: float = 0.0

    def check(self, backend: str = "stochastic") -> None:
        """Raise where an option is out of range."""
        SampledOptions.check(self, backend)
        check_choices(self, backend, controller=CONTROLLERS)
        check_range(self, backend, 0.0, 1.0, "decay")
        check_range(self, backend, -math.inf, math.inf, "lower_bound")


def fall(state: SampledState, options: ControlledOptions) -> float:
    """``(1 + p)^-a`` after p passes, or p iterations where one takes more than a pass."""
    return float((1.0 + min(state.passes, state.k)) ** -options.decay)


def move(
    oracle: Oracle,
    state: SampledState,
    batch: BatchOracle,
    h: Vec,
    residual: Vec,
    options: ControlledOptions,
) -> None:
    """The upper step along ``-h``; ``residual`` is f_y of the batch."""
    down = fall(state, options)
    if options.controller == "fixed":
        state.move_x(oracle, h, state.alpha * down)
        return
    x, y, metric = state.x, state.y, state.metric
    slope = dot(h, x - metric.step_x(oracle.domain_x, x, h, 1.0))
    rule: Any = state.rule
    if options.controller == "sps":
        rule = state.rule = rule or Polyak(LONGEST * state.alpha, options.lower_bound)
        t = rule.length(batch.F(x, y), slope, down)
    else:
        rule = state.rule = rule or Armijo(state.alpha, LONGEST * state.alpha)
        step = metric.y(residual)

        def value(t: float) -> float:
            if not t:
                return batch.F(x, y - state.beta * step)
            there = metric.step_x(oracle.domain_x, x, h, t)
            return batch.F(there, y - state.beta * metric.y(batch.grad_f(there, y)))

        t = rule.length(value, slope, 10.0 * dot(residual, step), down)
    state.move_x(oracle, h, t)
