"""``bvfsm``: the value function as a barrier, for small nonconvex lower levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.loop import check_range, curvatures
from bilevelpy.backends.value_function.joint import measure_joint, start_joint, step_joint
from bilevelpy.backends.value_function.weighted import Inner
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.krylov import lbfgs
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.quasi_newton import BFGS
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

# Lower variables at most: random starts say little in more dimensions.
LARGEST = 10
LOCAL = (
    "the lower level may be nonconvex: its value is the least one found from several starts, and "
    "among the lower solutions that with the least F near the path is meant"
)
# Stages are solved to this stationarity.
ROUGH = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class BVFSMOptions(BackendOptions):
    """Options of ``bvfsm``.

    ``regularise``: mu and theta at first, as fractions of the curvatures of f and F; ``barrier``:
    sigma over the slack, as a fraction of the scale of F. All of them and the slack c fall by
    ``fall`` after every stage, until they are ``smallest`` of their first values. ``starts``:
    random starts of the lower value beside the given one and the last.
    """

    regularise: float = 1e-2
    barrier: float = 0.1
    fall: float = 10.0
    smallest: float = 1e-3
    starts: int = 8

    def __post_init__(self) -> None:
        check_range(self, "bvfsm", 0.0, 1.0, "regularise", "barrier", "smallest", closed=False)
        check_range(self, "bvfsm", 1.0, 1e6, "fall", closed=False)
        check_range(self, "bvfsm", 0, 10**4, "starts")


class BVFSM:
    """Bilevel value-function-based sequential minimisation [Liu2021bvfsm]_.

    With the regularised value ``f_mu(x) = min_z f(x, z) + mu |z|^2`` the lower level is a
    constraint ``f(x, y) <= f_mu(x) + c``, kept by a barrier::

        phi(x) = min_y F(x, y) + theta |y|^2 - sigma log(f_mu(x) + c - f(x, y))
        phi'(x) = F_x(x, y) - sigma (f_x(x, z) - f_x(x, y)) / (f_mu(x) + c - f(x, y))

    and mu, theta, sigma, c -> 0. The paper takes fixed numbers of gradient steps on z, y and x;
    here z and y are solved by L-BFGS, x moves by L-BFGS with a line search, and the parameters fall
    in stages. The first c leaves y free to minimise F, so that y is led to the lower solution with
    the least F near by. The barrier is ill conditioned where c is small: after the last stage the
    digits come from ``F + lambda (f - v)``, with v reached from y, minimised over (x, y) for lambda
    growing from ``sigma / (f_mu + c - f)``, which is what the barrier weighs f by.

    Cost per upper step: two inner solves, some tens of lower and upper gradients; no products.
    """

    name: ClassVar[str] = "bvfsm"
    title: ClassVar[str] = "Value function as a barrier, small nonconvex lower levels"
    reference: ClassVar[str] = "Liu2021bvfsm"
    options: ClassVar[type[BackendOptions]] = BVFSMOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth lower level of at most 10 variables with a cheap projection, convex or not."""
        refusal = refuse_shape(structure)
        if refusal is not None:
            return refusal
        if structure.dim_y > LARGEST:
            return Reject(
                f"looks for global lower values by restarts: at most {LARGEST} lower variables, "
                f"found {structure.dim_y}",
                None,
            )
        convex = structure.is_convex
        return Accept("the lower value by restarts", () if convex else (LOCAL,))

    def cost(self, structure: Structure) -> Cost:
        """Stages of inner solves, from several starts."""
        return Cost(gradients=1e5, products=0.0, memory=1000.0 * structure.dim_y)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: BVFSMOptions, rng: torch.Generator
    ) -> UpperState:
        """The first stage."""
        upper, lower = curvatures(oracle, x, y, rng)
        if not upper > 0.0:
            # Where F is linear in y, nothing but the slack ends its descent: its slope sets the
            # size of barrier and regularisation, over the way that f lets it go.
            upper = norm(oracle.grad_F(x, y)[1]) / (norm(y) or 1.0)
        accuracy = Accuracy(level=1e-6, change=1.0, floor=min(1e-2 * options.tol, 1e-8))
        response = Barrier(
            oracle, NO_METHOD, accuracy, options=options, rng=rng, bend_F=upper, bend_f=lower
        )
        response.prepare(x, y)
        return _tightened(begin(response, x, response.y, 0.0), options)

    def step(self, oracle: Oracle, state: UpperState, options: BVFSMOptions) -> UpperState:
        """An upper step; smaller parameters where the present stage is solved, and the penalty
        after the last one.
        """
        response = state.response
        if not isinstance(response, Barrier):
            return step_joint(state, options.tol)
        state = _tightened(advance(state), options)
        if state.finish is None and (response.size > options.smallest or _is_open(state)):
            return state
        if not math.isfinite(state.point.value) or not response.weight > 0.0:
            return state
        return self.later(oracle, state, options)

    def later(self, oracle: Oracle, state: UpperState, options: BVFSMOptions) -> UpperState:
        """The penalty from the lower solution at the point of a stage."""
        response, (x, y) = state.response, (state.point.x, state.point.y)
        assert isinstance(response, Barrier)
        found = response.reached(x, y)
        y = found.y if found.usable else y
        return start_joint(
            oracle, x, y, options.tol, response.rng, weight=response.weight, gamma=0.0, fixed=False
        )

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """The state with the lower solution reached from its y."""
        response = state.response
        if not isinstance(response, Barrier):
            return measure_joint(oracle, state)
        m = measure(state)
        found = response.reached(m.x, m.y)
        # A stage is no end, however well its problem is solved.
        m = replace(m, stationarity=math.inf, finish=None)
        if not found.usable:
            return m
        return replace(
            m, y=found.y, F=oracle.F(m.x, found.y), f=found.f, lower_residual=found.residual
        )


def _is_open(state: UpperState) -> bool:
    """Whether the present stage is still to be solved."""
    return state.stationarity() > ROUGH


def _tightened(state: UpperState, options: BVFSMOptions) -> UpperState:
    """Let the parameters fall while their problem is solved."""
    response = state.response
    assert isinstance(response, Barrier)
    while response.size > options.smallest and math.isfinite(state.point.value):
        stuck = state.finish is not None and state.finish.status is Status.STALLED
        if _is_open(state) and not stuck:
            break
        state.finish = None  # what a stage cannot resolve, the next one may
        response.size = max(response.size / options.fall, options.smallest)
        new = response.again(state.point)
        if new.gradient is None:
            break
        state.point = new
        state.memory.reset()
    return state


@dataclass(slots=True)
class Barrier(Response):
    """``phi`` and its gradient at one stage; ``size`` is the fraction of the first parameters."""

    options: BVFSMOptions = field(default_factory=BVFSMOptions)
    rng: torch.Generator = field(default_factory=torch.Generator)
    bend_F: float = 1.0
    bend_f: float = 1.0
    size: float = 1.0
    slack: float = 1.0
    slope: float = 0.0
    extent: float = 1.0
    weight: float = 0.0
    y: Vec = field(default_factory=lambda: torch.zeros(0))
    own: BFGS = field(default_factory=lambda: BFGS(0.0, 20, rescale=True))
    correct: bool = False

    def prepare(self, x: Vec, y: Vec) -> None:
        """The first slack lets y minimise F."""
        oracle, o = self.oracle, self.options
        self.own.scale = 1.0 / self.bend_f if self.bend_f > 0 else 1.0
        step = 1.0 / self.bend_F if self.bend_F > 0 else 1.0
        inner = Inner(y, self.rng, BFGS(step, 20, rescale=True))
        best = inner.solve(oracle, x, 0.0, 1.0, 1e-3)
        self.y = best.y if best.usable else y
        self.extent = max(dot(y, y), dot(self.y, self.y)) or 1.0
        value = self._value(x, self.y)[1]
        self.slope = oracle.domain_y.projected_gradient_norm(y, oracle.grad_f(x, y))
        gap = oracle.f(x, self.y) - value
        self.slack = 2.0 * max(gap, o.regularise * max(abs(value), 1e-8)) or 1.0

    def reached(self, x: Vec, y: Vec) -> LowerSolution:
        """The lower solution that descent from y reaches."""
        tol = 1e-9 * max(self.slope, 1e-300)
        return lbfgs(self.oracle, x, y, tol=tol, memory=self.own)

    def _value(self, x: Vec, y: Vec) -> tuple[Vec, float]:
        """The least regularised lower value found from y, the start, and random points."""
        oracle = self.oracle
        mu = self.size * self.options.regularise * self.bend_f
        problem = cast(Oracle, _Regularised(oracle, mu))
        starts = [y, oracle.y0]
        if self.size == 1.0 or not self.bend_f:
            width = 1.0 + float(y.abs().max())
            noise = torch.randn(self.options.starts, oracle.m, generator=self.rng, dtype=y.dtype)
            starts += [oracle.domain_y.project(y + width * v) for v in noise]
        best: tuple[Vec, float] = y, math.inf
        for start in starts:
            memory = BFGS(self.own.scale, 20, rescale=True)
            tol = self.accuracy.level * max(self.slope, 1e-12)
            found = lbfgs(problem, x, start, tol=tol, max_iter=500, memory=memory)
            if math.isfinite(found.f) and found.f < best[1] - 1e-12 * abs(found.f):
                best = found.y, found.f
        return best

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """phi at x; the point keeps y."""
        oracle, o = self.oracle, self.options
        z, value = self._value(x, y)
        none = torch.zeros_like(x), torch.zeros_like(y)
        c = self.size * self.slack
        if not math.isfinite(value):
            bad = finish(oracle.domain_y, y, math.nan, torch.zeros_like(y), 0, "nonfinite")
            return Point(x, bad, math.nan, math.nan, *none)
        y = self._inside(x, y, z, value + 0.5 * c)
        theta = self.size * o.regularise * self.bend_F
        sigma = self.size * o.barrier * max(self.bend_F * self.extent, 1e-12)
        problem = cast(Oracle, _Bounded(oracle, value + c, theta, sigma))
        memory = BFGS(1.0 / max(self.bend_F, 1e-300), 20, rescale=True)
        start = problem.value_grad_f(x, y)
        level = self.accuracy.level * max(self.slope, float(start[1].norm()), 1e-12)
        found = lbfgs(problem, x, y, tol=level, max_iter=1000, memory=memory, start=start)
        y = found.y
        room = value + c - oracle.f(x, y)
        F_x, F_y = oracle.grad_F(x, y)
        self.weight = sigma / room
        cross = self.weight * (oracle.grad_f_x(x, z) - oracle.grad_f_x(x, y))
        self.scale = max(self.scale, level / self.accuracy.level)
        adjoint = Adjoint(torch.zeros_like(y), cross, math.nan, 0)
        kept = _settled(found)
        return Point(x, kept, oracle.F(x, y), found.f, F_x, F_y, adjoint)

    def _inside(self, x: Vec, y: Vec, z: Vec, limit: float) -> Vec:
        """y, or where it has too large a lower value, the lower solution below it, or z."""
        oracle = self.oracle
        if oracle.f(x, y) < limit:
            return y
        memory = BFGS(self.own.scale, 20, rescale=True)
        tol = 1e-9 * max(self.slope, 1e-300)
        down = lbfgs(oracle, x, y, tol=tol, max_iter=500, memory=memory)
        return down.y if down.f < limit else z

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """The gradient, whose parts the value has brought along."""
        assert point.adjoint is not None
        return replace(point, gradient=point.gF_x - point.adjoint.cross)


def _settled(found: LowerSolution) -> LowerSolution:
    """A barrier problem counts as solved where its digits end."""
    return replace(found, ended="rounding") if found.ended == "limit" else found


class _Regularised:
    """``f + mu |z|^2``."""

    def __init__(self, oracle: Oracle, mu: float) -> None:
        self.oracle, self.mu = oracle, mu
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, z: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, g = self.oracle.value_grad_f(x, z)
        return f + self.mu * dot(z, z), g + 2.0 * self.mu * z


class _Bounded:
    """``F + theta |y|^2 - sigma log(limit - f)``, infinite outside."""

    def __init__(self, oracle: Oracle, limit: float, theta: float, sigma: float) -> None:
        self.oracle, self.limit, self.theta, self.sigma = oracle, limit, theta, sigma
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, f_y = self.oracle.value_grad_f(x, y)
        room = self.limit - f
        if not room > 0.0:
            return math.inf, f_y
        F, _, F_y = self.oracle.value_grad_F(x, y)
        value = F + self.theta * dot(y, y) - self.sigma * math.log(room)
        return value, F_y + 2.0 * self.theta * y + (self.sigma / room) * f_y
