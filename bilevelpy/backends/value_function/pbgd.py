"""``pbgd``: penalty-based gradient descent on both levels' variables together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import ALMOST, is_almost_smooth, refuse_shape, without_kinks
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.backends.value_function.joint import (
    JointPenalty,
    measure_joint,
    start_joint,
    step_joint,
)
from bilevelpy.backends.value_function.joint_space import Joint
from bilevelpy.backends.value_function.weighted import Inner
from bilevelpy.errors import BackendError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Point
from bilevelpy.numerics.lower.solve import finish
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

PENALTIES = ("value", "gradient")
BIASED = "a penalty of fixed weight solves a perturbed problem, off by about 1/weight"
LOCAL = (
    "the lower level is not known to be convex: its value is that of the minimiser reached from y"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PBGDOptions(BackendOptions):
    """Options of ``pbgd``.

    ``penalty``: value (``f(x, y) - f(x, z)``) or gradient (``|f_y|^2``: no lower solves but
    products; free lower variables; may end at a stationary point of f that is no minimiser).
    ``weight`` gamma of the penalty: fixed; 0: grows until y and the lower solution agree, or the
    minimisers have a limit.
    """

    penalty: str = "value"
    weight: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "pbgd", penalty=PENALTIES)
        check_range(self, "pbgd", 0.0, math.inf, "weight")


class PBGD:
    """Penalty-based bilevel gradient descent, value and gradient form [Shen2023]_.

    Both levels' variables descend together on one of::

        F(x, y) + gamma (f(x, y) - f(x, z)),   z = argmin f(x, .) reached from y
        F(x, y) + gamma |f_y(x, y)|^2

    The gradient of the first needs no derivative of z, that of the second one product. The paper
    takes gradient steps of length ``a/gamma``; here (x, y) moves by projected L-BFGS with a Wolfe
    search, z is solved by L-BFGS, gamma grows, because the curvature in y grows with it, and the
    minimisers are extrapolated to gamma without end. The answer returned is (x, z).

    Cost per step: value, one lower solve by gradients, 1 upper gradient, 3 lower gradients;
    gradient, 1 upper gradient, 1 lower gradient, 1 pullback.
    """

    name: ClassVar[str] = "pbgd"
    title: ClassVar[str] = "Value-function penalty on both levels together"
    reference: ClassVar[str] = "Shen2023"
    options: ClassVar[type[BackendOptions]] = PBGDOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A lower level, smooth or almost, over variables with a cheap projection; convexity is not
        needed for local claims.
        """
        refusal = refuse_shape(without_kinks(structure))
        if refusal is not None:
            return refusal
        convex = structure.is_convex
        kinks = (ALMOST,) if is_almost_smooth(structure) else ()
        return Accept("needs gradients only", () if convex else (LOCAL, *kinks))

    def cost(self, structure: Structure) -> Cost:
        """The penalised problem is as badly conditioned as gamma is large."""
        kappa = structure.likely_condition
        return Cost(
            gradients=300.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: PBGDOptions, rng: torch.Generator
    ) -> UpperState:
        """Evaluate at the start."""
        made: type[JointPenalty] = JointPenalty
        if options.penalty == "gradient":
            if not oracle.domain_y.is_free:
                raise BackendError("pbgd.penalty=gradient takes free lower variables only")
            made = GradientPenalty
        state = start_joint(
            oracle, x, y, options.tol, rng, weight=options.weight, gamma=0.0, made=made
        )
        if options.weight:
            state.warnings = (BIASED,)
        return state

    def step(self, oracle: Oracle, state: UpperState, options: PBGDOptions) -> UpperState:
        """A step on (x, y)."""
        return step_joint(state, options.tol)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure_joint(oracle, state)


@dataclass(slots=True)
class GradientPenalty(JointPenalty):
    """Value and gradient of ``F + c |f_y|^2`` at w."""

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``F + c |f_y|^2``; the lower solution kept is y itself."""
        oracle, joint = self.base, self.oracle
        assert isinstance(joint, Joint)
        u, y = joint.upper(x), x[oracle.n :]
        F, F_x, F_y = oracle.value_grad_F(u, y)
        f, g = oracle.value_grad_f(u, y)
        lower = finish(oracle.domain_y, y, f, g, 0, "rounding")
        self.scale = max(self.scale, lower.residual)
        H, J = oracle.pullback(u, y)(g)
        cross = -2.0 * self.weight * torch.cat([joint.unit * J, H])
        adjoint = Adjoint(torch.zeros_like(y), cross, math.nan, 0)
        value = F + self.weight * dot(g, g)
        return Point(x, lower, F, value, torch.cat([joint.unit * F_x, F_y]), F_y, adjoint)

    def apart(self, point: Point) -> float:
        """Distance of y from the stationary point of f that descent from y reaches."""
        solver = Inner(point.y, self.rng, scale=self.scale)
        assert isinstance(self.oracle, Joint)
        x = self.oracle.upper(point.x)
        z = solver.solve(self.base, x, 1.0, 0.0, self.accuracy.floor).y
        return norm(point.y - z) / max(norm(z), 1e-300)
