"""What the implicit backends share: a response, an upper optimizer, and the three functions of the
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.hypergradient import Adjoint, dense_adjoint
from bilevelpy.numerics.lower_newton import DenseCurvature, newton
from bilevelpy.numerics.lower_solve import LowerSolution
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.response import Accuracy, Point, Response
from bilevelpy.numerics.upper import UpperState, advance, begin, measure

Vec = torch.Tensor


class Implicit:
    """Base of the implicit backends: subclasses say how the response and the adjoint are solved."""

    def response(self, oracle: Oracle, options: Any) -> Response:
        """The response of this backend's lower and adjoint methods."""
        raise NotImplementedError

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator
    ) -> UpperState:
        """Evaluate Phi and dPhi/dx at the start."""
        return begin(self.response(oracle, options), x, y, options.tol)

    def step(self, oracle: Oracle, state: UpperState, options: Any) -> UpperState:
        """One accepted step of the upper optimizer."""
        return advance(state)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure(state)


@dataclass(slots=True)
class DenseSolver:
    """Newton steps and adjoints that share one Cholesky factor."""

    curvature: DenseCurvature
    tol: float = 1e-10
    size: float = 0.0

    def solve_lower(self, oracle: Oracle, x: Vec, y: Vec) -> LowerSolution:
        """Newton from y; remembers the size of responses, for those that pass through 0."""
        found = newton(oracle, x, y, self.curvature, tol=self.tol, scale=self.size)
        if found.usable:
            self.size = max(self.size, float(torch.linalg.vector_norm(found.y)))
        return found

    def solve_adjoint(self, oracle: Oracle, point: Point) -> Adjoint:
        """Adjoint at the point, by the factor of its last Newton step."""
        return dense_adjoint(oracle, point.x, point.y, point.lower.face, point.gF_y, self.curvature)


@dataclass(slots=True)
class DenseLower:
    """:class:`DenseSolver` as a lower method."""

    solver: DenseSolver

    def solve(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """Always solves to the solver's own tolerance: a last Newton step is cheap."""
        found = self.solver.solve_lower(oracle, x, y)
        return found, found.residual


@dataclass(slots=True)
class DenseAdjoint:
    """:class:`DenseSolver` as an adjoint method."""

    solver: DenseSolver

    def solve(self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy) -> Adjoint:
        """Exact to rounding whatever the accuracy asked for."""
        return self.solver.solve_adjoint(oracle, point)
