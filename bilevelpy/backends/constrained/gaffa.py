"""``gaffa``: the doubly regularised gap function of a constrained lower level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_other_than_rows
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.constrained.first_order import multipliers_at
from bilevelpy.backends.constrained.gap import measure_gap, start_gap
from bilevelpy.backends.implicit.slbamm import OPTIMISTIC
from bilevelpy.backends.loop import (
    SLOW,
    LoopState,
    check_choices,
    check_range,
    curvatures,
    guard,
    penalised_parts,
)
from bilevelpy.backends.value_function.continued import LOOPS, Continued
from bilevelpy.backends.value_function.joint import first_weight
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.rows.multipliers import ConstrainedOracle, MultiplierMethod, Scaled
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

# Bound of multipliers, in multiples of the largest one at the start.
ROOM = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class GAFFAOptions(BackendOptions):
    """Options of ``gaffa``.

    ``loop``: continuation (the penalised problem is solved, its weight grows by tens) or single,
    the paper's loop. ``gamma1``, ``gamma2`` of the gap function, 0: 10/L and L. ``bound`` R of the
    multipliers, 0: 1000 times those at the start. Of the single loop: ``c``, ``power`` p and
    ``most`` of ``c_k = min(c (k+1)^p, most)``; steps ``alpha`` (x and y), ``beta`` (z), ``eta``
    (theta), 0: from estimated curvatures; ``normalise``: rows of length one; ``stride`` iterations
    between records.
    """

    loop: str = "continuation"
    gamma1: float = 0.0
    gamma2: float = 0.0
    bound: float = 0.0
    c: float = 1.0
    power: float = 0.3
    most: float = math.inf
    alpha: float = 0.0
    beta: float = 0.0
    eta: float = 0.0
    normalise: bool = True
    stride: int = 100

    def __post_init__(self) -> None:
        check_choices(self, "gaffa", loop=LOOPS)
        names = ("gamma1", "gamma2", "bound", "alpha", "beta", "eta", "most")
        check_range(self, "gaffa", 0.0, math.inf, *names)
        check_range(self, "gaffa", 0.0, math.inf, "c", closed=False)
        check_range(self, "gaffa", 0.0, 0.5, "power", closed=False)
        check_range(self, "gaffa", 1, 10**6, "stride")


class GAFFA(Continued):
    """BiC-GAFFA: a gap function that is smooth where constraints couple both levels [Yao2024b]_.

    The lower level is replaced by ``G(x, y, z) <= 0`` for the doubly regularised gap function::

        G = f(x, y) + (|zeta|^2 - |z|^2) / (2 g2) - min_t f(x, t) + z'c(x, t) + |t - y|^2 / (2 g1)
        zeta = P(z + g2 c(x, y))

    P keeps multipliers of inequalities nonnegative. G is smooth, G >= 0, and G = 0 exactly where y
    solves the lower level with the multipliers z. The paper's single loop::

        t <- P(t - eta (f_y(x, t) + c_y(x, t)'z + (t - y) / g1))
        x <- P(x - alpha (F_x / c_k + f_x(x, y) + c_x(x, y)'zeta - f_x(x, t) - c_x(x, t)'z))
        y <- P(y - alpha (F_y / c_k + f_y(x, y) + c_y(x, y)'zeta - (y - t) / g1))
        z <- P(z - beta ((zeta - z) / g2 - c(x, t)))

    By default ``F + c G`` is minimised over (x, y, z) by L-BFGS with c growing by tens. Cost per
    iteration of the loop: 1 upper gradient, 4 lower gradients, 2 transposed products of c.
    """

    name: ClassVar[str] = "gaffa"
    title: ClassVar[str] = "Doubly regularised gap function for lower constraints"
    reference: ClassVar[str] = "Yao2024b"
    options: ClassVar[type[BackendOptions]] = GAFFAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A convex lower level with smooth convex constraints, coupled or not."""
        refusal = refuse_other_than_rows(structure, "`meha` is the method without them")
        if refusal is not None:
            return refusal
        if not structure.is_convex:
            return Reject("needs a convex lower level", structure.convexity)
        if structure.lower.constraints.value == "nonconvex":
            return Reject("needs convex lower constraints", structure.lower.constraints)
        unique = structure.has_one_response
        return Accept("lower constraints, gradients only", () if unique else (OPTIMISTIC,))

    def cost(self, structure: Structure) -> Cost:
        """As ill conditioned as the penalty is large."""
        kappa = structure.likely_condition
        return Cost(
            gradients=4000.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: GAFFAOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """Estimate what is not given."""
        limited = cast(ConstrainedOracle, oracle)
        upper, curvature = curvatures(oracle, x, y, rng)
        lower = norm(oracle.grad_f(x, y))
        g1 = options.gamma1 or (10.0 / curvature if curvature > 0 else 1.0)
        g2 = options.gamma2 or curvature or 1.0
        rows = Scaled(limited.g, x, y, rng)
        if not options.normalise:
            rows.weights = torch.ones_like(rows.weights)
        if options.loop == "continuation":
            method = MultiplierMethod(rows, y, rng, torch.zeros(rows.size, dtype=torch.float64))
            start = method.solve(oracle, x, 1e-3)
            z, y = method.multipliers, (start.y if start.usable else y)
            bound = options.bound or ROOM * max(float(z.abs().max()), lower)
            weight = first_weight(oracle, x, y, norm(y) or 1.0, rng)
            return start_gap(
                oracle, (x, y, z), rows, (g1, g2, bound), weight=weight, tol=options.tol, rng=rng
            )
        bound = options.bound or ROOM * max(lower, 1.0)
        safe = 0.5 / max(curvature + g2 + upper / options.c + 1.0 / g1, 1e-300)
        state = LoopState(x, y, y, oracle.grad_F(x, y)[0], options.alpha or safe)
        state.beta = options.beta or 0.5 * g2
        z = torch.zeros(rows.size, dtype=torch.float64)
        eta = options.eta or 1.0 / (curvature + 1.0 / g1)
        state.sync = Loop(rows, g1, g2, bound, eta, z)
        state.warn(SLOW)
        return state

    def iterate(self, oracle: Oracle, state: LoopState, options: GAFFAOptions) -> None:
        """One round of the four updates; ``state.u`` is t."""
        s: Loop = state.sync
        x, y, t, z, rows = state.x, state.y, state.u, s.z, s.rows
        c = min(options.c * (state.k + 1) ** options.power, options.most)
        domain = oracle.domain_y
        slope = oracle.grad_f(x, t) + rows.vjp(x, t)(z)[1] + (t - y) / s.gamma1
        t = domain.project(t - s.eta * slope)
        zeta = rows.project(z + s.gamma2 * rows.values(x, y))
        (here_x, here_y), there_x = rows.vjp(x, y)(zeta), rows.vjp(x, t)(z)[0]
        push = oracle.grad_f_x(x, y) + here_x - oracle.grad_f_x(x, t) - there_x
        F_x, F_y = oracle.grad_F(x, y)
        f_y = oracle.grad_f(x, y)
        penalised_parts(state, oracle, F_x, c * push, f_y + here_y)
        state.k += 1
        if not guard(oracle, state, fixed=True):
            return
        state.x = oracle.domain_x.project(x - (state.alpha / c) * state.h)
        state.y = domain.project(y - state.alpha * (F_y / c + f_y + here_y - (y - t) / s.gamma1))
        s.z = multipliers_at(
            rows, z - state.beta * ((zeta - z) / s.gamma2 - rows.values(x, t)), s.bound
        )
        state.u = t

    def read(self, oracle: Oracle, state: UpperState) -> Measure:
        """The measure of the penalty."""
        return measure_gap(oracle, state)


@dataclass(slots=True)
class Loop:
    """What the single loop keeps besides its points: constants and the multipliers z."""

    rows: Scaled
    gamma1: float
    gamma2: float
    bound: float
    eta: float
    z: Vec
