"""``gaffa``: the doubly regularised gap function of a constrained lower level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_other_than_rows
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.constrained import Constrained, multiplier_set, multipliers_at
from bilevelpy.backends.joint import (
    Joint,
    JointPenalty,
    first_weight,
    joint_accuracy,
    measure_joint,
    raised,
    step_joint,
)
from bilevelpy.backends.loop import (
    SLOW,
    LoopState,
    check_choices,
    check_range,
    curvatures,
    guard,
    measure_loop,
    penalised_parts,
    repeat,
)
from bilevelpy.backends.slbamm import OPTIMISTIC
from bilevelpy.backends.weighted import Inner
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.hypergradient import Adjoint
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.multipliers import ConstrainedOracle, MultiplierMethod, Scaled
from bilevelpy.numerics.response import Point
from bilevelpy.numerics.upper import UpperState, begin
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

LOOPS = ("continuation", "single")
# Bound of multipliers, in multiples of the largest one at the start.
ROOM = 1e3
_UNUSED: Any = None


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


class GAFFA(Constrained):
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
        if structure.convexity.value not in ("convex", "strongly convex"):
            return Reject("needs a convex lower level", structure.convexity)
        if structure.lower.constraints.value == "nonconvex":
            return Reject("needs convex lower constraints", structure.lower.constraints)
        unique = structure.convexity.value == "strongly convex" or bool(structure.unique.value)
        return Accept("lower constraints, gradients only", () if unique else (OPTIMISTIC,))

    def cost(self, structure: Structure) -> Cost:
        """As ill conditioned as the penalty is large."""
        kappa = min(structure.condition or 100.0, 1e8)
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
            return self._start(oracle, torch.cat([x, y, z]), rows, (g1, g2, bound), options, rng)
        bound = options.bound or ROOM * max(lower, 1.0)
        safe = 0.5 / max(curvature + g2 + upper / options.c + 1.0 / g1, 1e-300)
        state = LoopState(x, y, y, oracle.grad_F(x, y)[0], options.alpha or safe)
        state.beta = options.beta or 0.5 * g2
        z = torch.zeros(rows.size, dtype=torch.float64)
        eta = options.eta or 1.0 / (curvature + 1.0 / g1)
        state.sync = Loop(rows, g1, g2, bound, eta, z)
        state.warn(SLOW)
        return state

    def _start(
        self,
        oracle: Oracle,
        w: Vec,
        rows: Scaled,
        constants: tuple[float, float, float],
        options: GAFFAOptions,
        rng: torch.Generator,
    ) -> UpperState:
        g1, g2, bound = constants
        x, y = w[: oracle.n], w[oracle.n : oracle.n + oracle.m]
        weight = first_weight(oracle, x, y, norm(y) or 1.0, rng)
        joint: Any = Joint(oracle, multiplier_set(rows, bound))
        response = Gap(
            joint,
            _UNUSED,
            _UNUSED,
            joint_accuracy(options.tol),
            base=oracle,
            rng=rng,
            weight=weight,
            gamma=g1,
            rows=rows,
            gamma2=g2,
        )
        return raised(begin(response, w, y, 0.0), options.tol)

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: GAFFAOptions
    ) -> UpperState | LoopState:
        """A step on (x, y, z), or ``stride`` iterations of the loop."""
        if isinstance(state, UpperState):
            return step_joint(state, options.tol)
        return repeat(_iterate, oracle, state, options)

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state; at the end y is the lower solution at its x."""
        if isinstance(state, UpperState):
            response = state.response
            assert isinstance(response, Gap)
            m = measure_joint(oracle, state)
            if response.settled or state.finish is not None:
                z = state.point.x[oracle.n + oracle.m :]
                m = self.solved(oracle, m, response.rows, z, response.rng)
            return m
        return measure_loop(oracle, state)


@dataclass(slots=True)
class Loop:
    """What the single loop keeps besides its points: constants and the multipliers z."""

    rows: Scaled
    gamma1: float
    gamma2: float
    bound: float
    eta: float
    z: Vec


@dataclass(slots=True)
class Gap(JointPenalty):
    """Value and gradient of ``F + c G`` at ``w = (x, y, z)``."""

    rows: Scaled = _UNUSED
    gamma2: float = 1.0

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``F + c G``; the lower solution kept is the minimiser over t."""
        oracle, n, m, rows = self.base, self.base.n, self.base.m, self.rows
        u, y, z = x[:n], x[n : n + m], x[n + m :]
        if self.inner is None:
            self.inner = Inner(y, self.rng)
        self.inner.y = y
        level = max(self.accuracy.level / max(self.weight, 1.0), 1e-14)
        problem: Any = Regularised(oracle, rows, y, z, self.gamma)
        lower = self.inner.solve(problem, u, 1.0, 0.0, level)
        self.scale = max(self.scale, self.inner.scale)
        if not math.isfinite(lower.f) or lower.ended == "unbounded":
            return Point(x, lower, math.nan, math.nan, torch.zeros_like(x), torch.zeros_like(y))
        F, F_x, F_y = oracle.value_grad_F(u, y)
        f, f_y = oracle.value_grad_f(u, y)
        zeta = rows.project(z + self.gamma2 * rows.values(u, y))
        here, there = rows.vjp(u, y)(zeta), rows.vjp(u, lower.y)(z)
        push = (
            oracle.grad_f_x(u, lower.y) + there[0] - oracle.grad_f_x(u, y) - here[0],
            (y - lower.y) / self.gamma - f_y - here[1],
            rows.values(u, lower.y) - (zeta - z) / self.gamma2,
        )
        adjoint = Adjoint(torch.zeros_like(y), self.weight * torch.cat(push), math.nan, 0)
        gap = f + float(zeta @ zeta - z @ z) / (2.0 * self.gamma2) - lower.f
        full = torch.cat([F_x, F_y, torch.zeros_like(z)])
        return Point(x, lower, F, F + self.weight * gap, full, F_y, adjoint)

    def apart(self, point: Point) -> float:
        """Distance of y from t and from its constraints, relative to the size of t."""
        n, m, rows = self.base.n, self.base.m, self.rows
        x, y, z = point.x[:n], point.x[n : n + m], point.x[n + m :]
        short = rows.shortfall(rows.values(x, y), z, self.gamma2)
        return (norm(y - point.y) + short) / max(norm(point.y), 1e-300)


class Regularised:
    """``f(x, t) + z'c(x, t) + |t - y|^2 / (2 gamma)`` as a lower objective in t."""

    def __init__(self, oracle: Oracle, rows: Scaled, y: Vec, z: Vec, gamma: float) -> None:
        self.oracle, self.rows, self.y, self.z, self.gamma = oracle, rows, y, z, gamma
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, t: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, g = self.oracle.value_grad_f(x, t)
        d = t - self.y
        more = float(self.z @ self.rows.values(x, t)) + float(d @ d) / (2.0 * self.gamma)
        return f + more, g + self.rows.vjp(x, t)(self.z)[1] + d / self.gamma

    def grad_f(self, x: Vec, t: Vec) -> Vec:
        """Gradient."""
        push = self.rows.vjp(x, t)(self.z)[1]
        return self.oracle.grad_f(x, t) + push + (t - self.y) / self.gamma


def _iterate(oracle: Oracle, state: LoopState, options: GAFFAOptions) -> None:
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
