"""Backends whose paper has a single loop, and the penalty for whose weight the loop has a schedule:
minimised for growing weights, at once or from where the loop has come to.
"""

from __future__ import annotations

from typing import Any

import torch

from bilevelpy.backends.loop import LoopState, measure_loop, repeat
from bilevelpy.backends.value_function.joint import measure_joint, step_joint
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.upper.optimizer import UpperState

Vec = torch.Tensor

LOOPS = ("continuation", "single")


class Continued:
    """Mixin: a :class:`LoopState` is the loop's, an :class:`UpperState` the penalty's.

    Options have ``loop`` (one of :data:`LOOPS`) and ``stride``.
    """

    def iterate(self, oracle: Oracle, state: LoopState, options: Any) -> None:
        """One iteration of the loop."""
        raise NotImplementedError

    def penalty(
        self, oracle: Oracle, state: LoopState, before: Vec, options: Any
    ) -> UpperState | None:
        """The penalty from where the loop is now, some iterations after x was at ``before``; None
        while the loop is to go on.
        """
        return None

    def read(self, oracle: Oracle, state: UpperState) -> Measure:
        """The measure of the penalty."""
        return measure_joint(oracle, state)

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: Any
    ) -> UpperState | LoopState:
        """``stride`` iterations of the loop, or a step on all variables of the penalty."""
        if isinstance(state, UpperState):
            return step_joint(state, options.tol)
        before = state.x
        state = repeat(self.iterate, oracle, state, options)
        if options.loop == "single":
            return state
        following = self.penalty(oracle, state, before, options)
        return state if following is None else following

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state."""
        if isinstance(state, UpperState):
            return self.read(oracle, state)
        return measure_loop(oracle, state)
