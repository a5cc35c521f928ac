"""What the implicit backends share: a response, an upper optimizer, and the three functions of the
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from bilevelpy.backends.implicit.alternate import BENT
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.group_newton import minimise
from bilevelpy.numerics.lower.grouped import grouped_oracle
from bilevelpy.numerics.lower.halves import halves, is_split, joined, split_oracle
from bilevelpy.numerics.lower.hypergradient import Adjoint, dense_adjoint
from bilevelpy.numerics.lower.newton import DEAR
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]


class Implicit:
    """Base of the implicit backends: subclasses say how the response and the adjoint are solved.

    ``on_support``: absolute values of free variables and norms of groups are taken as they are, and
    not split into halves.
    """

    on_support: ClassVar[bool] = False

    def response(self, oracle: Oracle, options: Any) -> Response:
        """The response of this backend's lower and adjoint methods."""
        raise NotImplementedError

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator
    ) -> UpperState:
        """Evaluate Phi and dPhi/dx at the start; weighted absolute values below are split into
        halves, norms of groups are followed on their support.
        """
        grouped = grouped_oracle(oracle) if self.on_support else None
        if grouped is not None:
            return begin(self.response(grouped, options), x, y, options.tol)
        split = split_oracle(oracle, x, rng)
        if split is not None:
            oracle, y = split, halves(y)
        return begin(self.response(oracle, options), x, y, options.tol)

    def step(self, oracle: Oracle, state: UpperState, options: Any) -> UpperState:
        """One accepted step of the upper optimizer."""
        return advance(state)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        found = measure(state)
        if state.response.curved:
            found = replace(found, warnings=(*found.warnings, BENT))
        return replace(found, y=joined(found.y)) if is_split(state.response.oracle) else found


@dataclass(slots=True)
class DenseSolver:
    """Newton steps and adjoints that share one Cholesky factor, to accuracies tied to the upper
    level's.
    """

    curvature: DenseCurvature
    tol: float = 1e-10
    size: float = 0.0

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """Newton from y; remembers the size of responses, for those that pass through 0.

        An error e in y changes Phi by about e^2 and its gradient by about e, hence the tenth.
        """
        found = minimise(
            oracle,
            x,
            y,
            self.curvature,
            tol=max(self.tol, 0.1 * accuracy.level),
            change=accuracy.change,
            scale=self.size,
        )
        if found.usable:
            self.size = max(self.size, norm(found.y))
        return found, found.started

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """Adjoint at the point, by the factor of its last Newton step; where that may be an old
        one, from the adjoint of the point before, and no better than the gradient needs.
        """
        dear = getattr(oracle, "hessian_price", 0.0) >= DEAR
        tol = max(1e-11, accuracy.level if dear else 0.1 * accuracy.level)
        return dense_adjoint(
            oracle,
            point.x,
            point.y,
            point.lower.face,
            point.gF_y,
            self.curvature,
            tol=tol,
            u0=u0 if dear else None,
        )

    def columns(self, oracle: Oracle, point: Point, mixed: Array) -> Array | None:
        """``dy/dx = -f_yy^-1 f_yx`` at a point, by a fresh factor; None where it has negative
        curvature.
        """
        curvature = self.curvature
        if not (curvature.constant and curvature.H is not None):
            curvature.refresh(oracle, point.x, point.y)
        if not curvature.settle(point.lower.face) or curvature.negative:
            return None
        columns = torch.from_numpy(np.ascontiguousarray(mixed.T))
        return -torch.stack([curvature.solve(v) for v in columns], 1).numpy()
