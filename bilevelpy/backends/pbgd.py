"""``pbgd``: penalty-based gradient descent on both levels' variables together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.joint import measure_joint, start_joint, step_joint
from bilevelpy.backends.loop import check_range
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.upper import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

BIASED = "a penalty of fixed weight solves a perturbed problem, off by about 1/weight"
LOCAL = (
    "the lower level is not known to be convex: its value is that of the minimiser reached from y"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PBGDOptions(BackendOptions):
    """Options of ``pbgd``.

    ``weight`` gamma of the penalty: fixed; 0: grows by tens until y and the lower solution agree.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "pbgd", 0.0, math.inf, "weight")


class PBGD:
    """Penalty-based bilevel gradient descent, value form [Shen2023]_.

    Both levels' variables descend together on::

        F(x, y) + gamma (f(x, y) - f(x, z)),   z = argmin f(x, .) reached from y

    whose gradient needs no derivative of z. The paper takes gradient steps of length ``a/gamma``;
    here (x, y) moves by projected L-BFGS with a Wolfe search, z is solved by L-BFGS, and gamma
    grows by tens, because the curvature in y grows with it. The answer returned is (x, z).

    Cost per step: one lower solve by gradients, 1 upper gradient, 3 lower gradients.
    """

    name: ClassVar[str] = "pbgd"
    title: ClassVar[str] = "Value-function penalty on both levels together"
    reference: ClassVar[str] = "Shen2023"
    options: ClassVar[type[BackendOptions]] = PBGDOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth lower level over variables with a cheap projection; convexity is not needed for
        local claims.
        """
        refusal = refuse_shape(structure)
        if refusal is not None:
            return refusal
        convex = structure.convexity.value in ("convex", "strongly convex")
        return Accept("needs gradients only", () if convex else (LOCAL,))

    def cost(self, structure: Structure) -> Cost:
        """The penalised problem is as badly conditioned as gamma is large."""
        kappa = min(structure.condition or 100.0, 1e8)
        return Cost(
            gradients=300.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: PBGDOptions, rng: torch.Generator
    ) -> UpperState:
        """Evaluate at the start."""
        state = start_joint(oracle, x, y, options.tol, rng, weight=options.weight, gamma=0.0)
        if options.weight:
            state.warnings = (BIASED,)
        return state

    def step(self, oracle: Oracle, state: UpperState, options: PBGDOptions) -> UpperState:
        """A step on (x, y)."""
        return step_joint(state, options.tol)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure_joint(oracle, state)
