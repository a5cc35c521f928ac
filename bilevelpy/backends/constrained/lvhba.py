"""``lvhba``: the proximal Lagrangian value function of a constrained lower level."""

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
from bilevelpy.backends.value_function.joint_space import product_set
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.rows.multipliers import ConstrainedOracle, Scaled
from bilevelpy.numerics.rows.polyhedron import Polyhedron
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

# Default steps, as fractions of the longest stable ones.
SAFE = 0.25
# Bound of multipliers, in multiples of the lower gradient at the start.
ROOM = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class LVHBAOptions(BackendOptions):
    """Options of ``lvhba``.

    ``loop``: continuation (``first`` iterations of the paper's loop, and from its point,
    multipliers and weight the minimisers of the gap penalty of ``gaffa`` for growing weights) or
    single, the loop alone. ``gamma1``, ``gamma2`` of the proximal terms, 0: 1/L and L. ``c`` and
    ``power`` p of ``c_k = c (k+1)^p``. Steps ``alpha`` (x and y), ``beta`` (z), ``eta`` (theta and
    lambda), 0: from estimated curvatures. ``bound`` r of multipliers, 0: 1000 times the lower
    gradient at the start.
    ``normalise``: rows of length one (without, long rows make the inner loop unstable).
    ``stride``: iterations between records.
    """

    loop: str = "continuation"
    first: int = 300
    gamma1: float = 0.0
    gamma2: float = 0.0
    c: float = 1.0
    power: float = 0.45
    alpha: float = 0.0
    beta: float = 0.0
    eta: float = 0.0
    bound: float = 0.0
    normalise: bool = True
    stride: int = 100

    def __post_init__(self) -> None:
        check_choices(self, "lvhba", loop=LOOPS)
        names = ("gamma1", "gamma2", "alpha", "beta", "eta", "bound")
        check_range(self, "lvhba", 0.0, math.inf, *names)
        check_range(self, "lvhba", 0.0, math.inf, "c", closed=False)
        check_range(self, "lvhba", 0.0, 0.5, "power", closed=False)
        check_range(self, "lvhba", 1, 10**6, "first", "stride")


class LVHBA(Continued):
    """Hessian-free bilevel algorithm on the proximal Lagrangian value function [Yao2024a]_.

    The lower level is replaced by ``f(x, y) <= v(x, y, z)`` on ``C = {(x, y): c(x, y) <= 0}`` with
    ``v = min_t max_l f(x, t) + l'c(x, t) + |t - y|^2 / (2 g1) - |l - z|^2 / (2 g2)``. Single loop::

        t <- P(t - eta (f_y(x, t) + c_y(x, t)'l + (t - y) / g1))
        l <- P(l + eta (c(x, t) - (l - z) / g2))
        (x, y) <- P_C(x - alpha (F_x / c_k + f_x(x, y) - f_x(x, t) - c_x(x, t)'l),
                      y - alpha (F_y / c_k + f_y(x, y) - (y - t) / g1))
        z <- P(z + beta (l - z) / g2),    c_k = c (k+1)^p

    Multipliers stay in ``[0, r]``, those of equations in ``[-r, r]``. The descent-ascent on (t, l)
    is stable only for ``eta < (1/g1 + 1/g2) / (1/(g1 g2) + |c_y|^2)``, so that rows are scaled to
    length one. The error falls like 1/c_k: the loop finds the place, the rows that hold it and
    their multipliers, and the digits come from the gap function of ``gaffa`` (which needs no
    projection onto C) as a penalty whose weight grows from c_k, its minimisers extrapolated.

    Cost per iteration: 1 upper gradient, 4 lower gradients, 1 transposed product of c, 1
    projection onto C.
    """

    name: ClassVar[str] = "lvhba"
    title: ClassVar[str] = "Proximal Lagrangian value function for lower constraints"
    reference: ClassVar[str] = "Yao2024a"
    options: ClassVar[type[BackendOptions]] = LVHBAOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A convex lower level with linear constraints, coupled or not, so that C has a
        projection.
        """
        refusal = refuse_other_than_rows(structure, "`meha` is the method without them")
        if refusal is not None:
            return refusal
        if not structure.is_convex:
            return Reject("needs a convex lower level", structure.convexity)
        if structure.lower.constraints.value != "linear":
            return Reject(
                "projects onto the lower constraints: they must be linear",
                structure.lower.constraints,
            )
        for level in (structure.upper, structure.lower):
            if level.domains.value & {"simplex", "ball"}:
                return Reject("projects onto bounds and linear constraints only", level.domains)
        unique = structure.has_one_response
        warnings = () if unique else (OPTIMISTIC,)
        return Accept("lower constraints by projection, gradients only", warnings)

    def cost(self, structure: Structure) -> Cost:
        """Tens of thousands of cheap iterations."""
        kappa = structure.likely_condition
        return Cost(gradients=1e5 * kappa, products=0.0, memory=80.0 * structure.dim_y)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: LVHBAOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """Estimate what is not given."""
        limited = cast(ConstrainedOracle, oracle)
        upper, top = curvatures(oracle, x, y, rng)
        g1 = options.gamma1 or (1.0 / top if top > 0 else 1.0)
        g2 = options.gamma2 or top or 1.0
        rows = Scaled(limited.g, x, y, rng)
        if not options.normalise:
            rows.weights = torch.ones_like(rows.weights)
        w = torch.cat([x, y])
        domain = product_set(oracle.domain_x, oracle.domain_y)
        joint = Polyhedron(rows, domain, oracle.n, w)
        bend = float(torch.linalg.matrix_norm(joint.A[:, oracle.n :], 2)) ** 2
        p1, p2 = 1.0 / g1, 1.0 / g2
        eta = options.eta or SAFE * min((p1 + p2) / (p1 * p2 + bend), 1.0 / (top + p1))
        w = joint.project(w)
        x, y = w[: oracle.n], w[oracle.n :]
        alpha = options.alpha or SAFE / max(top + upper / options.c + p1, 1e-300)
        state = LoopState(x, y, y, oracle.grad_F(x, y)[0], alpha, options.beta or SAFE * g2)
        none = torch.zeros(rows.size, dtype=torch.float64)
        bound = options.bound or ROOM * max(norm(oracle.grad_f(x, y)), norm(oracle.grad_F(x, y)[1]))
        state.sync = Loop(rows, joint, g1, g2, bound or ROOM, eta, none, none, rng)
        if options.loop == "single":
            state.warn(SLOW)
        return state

    def iterate(self, oracle: Oracle, state: LoopState, options: LVHBAOptions) -> None:
        """One round of the four updates; ``state.u`` is t."""
        s: Loop = state.sync
        x, y, t, rows = state.x, state.y, state.u, s.rows
        c = options.c * (state.k + 1) ** options.power
        slope = oracle.grad_f(x, t) + rows.vjp(x, t)(s.l)[1] + (t - y) / s.gamma1
        rise = rows.values(x, t) - (s.l - s.z) / s.gamma2
        t = oracle.domain_y.project(t - s.eta * slope)
        price = multipliers_at(rows, s.l + s.eta * rise, s.bound)
        push = oracle.grad_f_x(x, y) - oracle.grad_f_x(x, t) - rows.vjp(x, t)(price)[0]
        F_x, F_y = oracle.grad_F(x, y)
        f_y = oracle.grad_f(x, y)
        penalised_parts(state, oracle, F_x, c * push, f_y + rows.vjp(x, y)(price)[1])
        state.k += 1
        if not guard(oracle, state, fixed=True):
            return
        w = torch.cat(
            [
                x - (state.alpha / c) * state.h,
                y - state.alpha * (F_y / c + f_y - (y - t) / s.gamma1),
            ]
        )
        w = s.joint.project(w)
        state.x, state.y, state.u = w[: oracle.n], w[oracle.n :], t
        s.l = price
        s.z = multipliers_at(rows, s.z + state.beta * (price - s.z) / s.gamma2, s.bound)

    def penalty(
        self, oracle: Oracle, state: LoopState, before: Vec, options: LVHBAOptions
    ) -> UpperState | None:
        """The gap function as a penalty, from point, multipliers and weight of the loop."""
        if state.finish is None and state.k < options.first:
            return None
        return self.later(oracle, state, options)

    def later(self, oracle: Oracle, state: LoopState, options: LVHBAOptions) -> UpperState:
        """The penalty from where the loop is."""
        s: Loop = state.sync
        c = options.c * (state.k + 1) ** options.power
        constants = s.gamma1, s.gamma2, s.bound
        w = state.x, state.y, multipliers_at(s.rows, s.l, s.bound)
        return start_gap(oracle, w, s.rows, constants, weight=c, tol=options.tol, rng=s.rng)

    def read(self, oracle: Oracle, state: UpperState) -> Measure:
        """The measure of the penalty."""
        return measure_gap(oracle, state)


@dataclass(slots=True)
class Loop:
    """Constants of the loop, the joint set, and the multipliers ``l`` and ``z``."""

    rows: Scaled
    joint: Polyhedron
    gamma1: float
    gamma2: float
    bound: float
    eta: float
    l: Vec  # noqa: E741 - the paper's lambda
    z: Vec
    rng: torch.Generator
