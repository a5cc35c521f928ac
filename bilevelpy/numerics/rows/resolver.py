"""Responses with rows, solved anew for points that are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.response import Point
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.rows.response import rows_response
from bilevelpy.numerics.upper.optimizer import advance, begin

Vec = torch.Tensor

# Newton steps, relative to y, at which responses all over the upper set are solved.
RESOLVED = 1e-8
# The tolerance of descents from them.
DESCENDED = 1e-4


class RowsResolver:
    """Responses at points that have nothing to do with each other."""

    def __init__(self, oracle: Oracle) -> None:
        self.response = rows_response(oracle, RESOLVED)

    def solved(self, x: Vec, y: Vec) -> LowerSolution | None:
        """The response to x; None where there is none."""
        point = self.response.evaluate(x, None, y)
        return point.lower if self.response.finite(point) else None

    def answer(self, x: Vec, y: Vec) -> Point | None:
        """F there, and dPhi/dx."""
        point = self.response.evaluate(x, None, y)
        return self.response.differentiate(point, None) if self.response.finite(point) else None

    def descended(self, x: Vec, y: Vec, steps: int, late: Callable[[], bool]) -> Point | None:
        """Where so many steps of the upper optimizer lead, past kinks on the way; ``late`` ends
        them.
        """
        state = begin(self.response, x, y, DESCENDED)
        while state.finish is None and len(state.norms) <= steps and not late():
            if state.stationarity() <= DESCENDED:
                break  # further steps would confirm it, and be none
            advance(state)
        return state.point if self.response.finite(state.point) else None
