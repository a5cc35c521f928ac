"""Gradient steps on the upper variables with a given length: the outer loop of the papers."""

from __future__ import annotations

import math

import torch

from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.result import Status


def gradient_step(state: UpperState, length: float) -> UpperState:
    """``x <- P(x - length h)`` with the response and adjoint of the new x; no value decides
    anything.
    """
    if not length > 0.0:
        raise UsageError("upper=gd needs a positive step length: set upper_step")
    return move(state, length * state.point.g)


def move(state: UpperState, step: torch.Tensor) -> UpperState:
    """``x <- P(x - step)``."""
    response, old = state.response, state.point
    x = response.oracle.domain_x.project(old.x - step)
    point = response.differentiate(response.evaluate(x, old, old.y), old)
    if not math.isfinite(point.F) or not bool(torch.isfinite(point.g).all()):
        state.finish = Finish(
            Status.DIVERGED, "the iterates are no longer finite: the step lengths are too large"
        )
        return state
    state.point = point
    state.norms.append(norm(state.projected_gradient))
    return state
