"""``conic``: convex followers over semidefinite matrices with rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import without_lower_rows, without_upper_rows
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.constrained.feasible_starts import feasible_starts, no_feasible_start
from bilevelpy.backends.constrained.starts import RowsState, begin_rows
from bilevelpy.backends.constrained.upper_rows import measure_rows, step_rows
from bilevelpy.backends.implicit.base import Implicit
from bilevelpy.backends.loop import check_range
from bilevelpy.ir.types import Relation, Sense
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.cones.response import ConicMethod, solve_conic
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.lower.response import Accuracy, Response
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Upper variables, rows and entries of y at most: systems are dense.
LARGEST = 1000
# What the answer shows beside the point.
SHOWN = frozenset({"reported_duals"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConicOptions(BackendOptions):
    """Options of ``conic``.

    ``starts``: how many starts are tried where the upper level has rows.
    """

    starts: int = 4

    def __post_init__(self) -> None:
        check_range(self, "conic", 1, 1000, "starts")


class Conic(Implicit):
    """Exact hypergradients for smooth convex followers over semidefinite matrices with affine rows.

    The response comes from a conic interior-point method and Newton's method on its face, the
    adjoint from one dense system with the tight rows and the curvature of the cone. The upper
    variables move by projected L-BFGS with a Wolfe search; where the upper level has rows, which
    may read the response, by sequential quadratic programs over their cones.

    Cost per upper step: one to three conic solves and factors of size m plus the tight rows.
    """

    name: ClassVar[str] = "conic"
    title: ClassVar[str] = "conic interior point, adjoint on the face"
    reference: ClassVar[str] = "BonnansShapiro2000"
    options: ClassVar[type[BackendOptions]] = ConicOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A convex lower level with one solution, rows affine in y, a matrix in either level."""
        s = structure
        if "psd" not in s.lower.domains.value | s.upper.domains.value:
            return Reject("is for semidefinite variables", s.lower.domains)
        if max(s.dim_x, s.upper_constraints) > LARGEST:
            reason = f"takes at most {LARGEST} upper variables, and as many rows"
            return Reject(reason, s.upper.constraints)
        quadratic = s.lower_hessian.value in ("constant", "depends on x")
        if not quadratic and not s.is_convex:
            return Reject("takes quadratic and convex lower objectives", s.convexity)
        if s.lower.constraints.value not in ("none", "bounds", "linear"):
            return Reject("takes rows that are affine in the lower variables", s.lower.constraints)
        if s.dim_y > LARGEST:
            return Reject(f"factorises dense systems: at most {LARGEST} entries", None)
        free = without_lower_rows(without_upper_rows(s))
        known = {k: v for k, v in free.unsupported.items() if k not in SHOWN}
        free = replace(free, unsupported=known)
        refusal = refuse_common(free, matrices=True)
        if refusal is not None:
            return refusal
        return Accept("exact hypergradient from the face of a conic solution")

    def cost(self, structure: Structure) -> Cost:
        """Dense linear algebra in m."""
        m = structure.dim_y
        return Cost(gradients=3.0, products=m, flops=30.0 * m**3, memory=40.0 * m**2)

    def init(self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator) -> Any:
        """Evaluate at the start; where there are upper rows, at further ones."""
        functions: Any = oracle
        if functions.G.size:
            return begin_rows(oracle, x, y, options.tol, options.starts, rng)
        state = super().init(oracle, x, y, options, rng)
        if math.isfinite(state.point.lower.f) or not functions.g.size:
            return state
        for at in feasible_starts(oracle, state.point.x, rng):
            found = super().init(oracle, at, y, options, rng)
            if math.isfinite(found.point.lower.f):
                return found
        state.finish = no_feasible_start(oracle, state.point.x)
        return state

    def step(self, oracle: Oracle, state: Any, options: Any) -> Any:
        """One accepted step."""
        if isinstance(state, RowsState):
            return step_rows(state)
        return super().step(oracle, state, options)

    def measure(self, oracle: Oracle, state: RowsState | UpperState) -> Measure:
        """Read the state."""
        if isinstance(state, RowsState):
            return measure_rows(oracle, state)
        return super().measure(oracle, state)

    def prices(self, oracle: Any, x: Vec, y: Vec) -> dict[str, Array]:
        """``level.constraint`` -> shadow prices at a response y: the derivative of the follower's
        optimal value, in the sense it is written in, by the right-hand side as it is written.
        """
        found = solve_conic(oracle, x, y) if oracle.g.size else None
        if found is None:
            return {}
        sizes = oracle.bound.data.sizes
        prices: dict[str, Array] = {}
        for rows in oracle.g.rows:
            constraint = rows.constraint
            level = oracle.bound.program.level(rows.level)
            # Rows are `left - right <= 0` (or == 0), a `>=` turned round; objectives minimised.
            turned = constraint.relations[rows.part] is Relation.GE
            sign = (1.0 if turned else -1.0) * (-1.0 if level.sense is Sense.MAXIMIZE else 1.0)
            own = sign * found.multipliers[rows.start : rows.stop].numpy()
            shape = tuple(sizes[a] for a in constraint.axes)
            name = f"{rows.level}.{constraint.name}"
            prices[name] = np.asarray(prices.get(name, np.zeros(shape)) + own.reshape(shape))
        return prices

    def response(self, oracle: Oracle, options: ConicOptions) -> Response:
        """Both solves share what is known of the last response."""
        return Response(oracle, ConicMethod(), Accuracy(level=1e-9, change=1.0, floor=1e-9))
