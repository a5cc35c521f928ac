"""``F + c (f - v)`` minimised over x and y together, for a first-order lower value v and growing
c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bilevelpy.backends.value_function.extrapolated import Limit
from bilevelpy.backends.value_function.joint_space import Joint, upper_unit
from bilevelpy.backends.value_function.weighted import FINEST, Inner
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.result import Status

Vec = torch.Tensor

RAISE, RAISES = 4.0, 15
# Accuracy of lower values at first; it follows the progress.
ROUGH = 1e-2
# A lower value counts by what f at y is more: its residual is this part of that at y. Otherwise
# the penalty is 0 wherever y itself is as accurate as was asked for.
PART = 0.1
# The first weight makes y differ from the lower solution by about this fraction.
APART = 0.1
# A larger weight that leaves this fraction of the distance between y and the lower solution shows a
# stationary point of the penalty that is none of the lower level; the envelope is made wider.
STAYS, WIDER, WIDENINGS = 0.7, 10.0, 8
# Distance of y from the lower solution, in tolerances, at which the penalty counts as exact.
CLOSE = 3.0
# The same for an extrapolated y, whose digits are those of several minimisers.
NEAR = 100.0


@dataclass(slots=True)
class JointPenalty(Response):
    """Value and gradient of ``F + c (f - v)`` at w.

    ``gamma`` = 0: v is the value function ``min f(x, .)``, reached from y; else the Moreau envelope
    ``min_theta f(x, theta) + |theta - y|^2 / (2 gamma)``. Both are differentiated by the envelope
    theorem.
    """

    base: Any = None
    rng: torch.Generator = field(default_factory=torch.Generator)
    weight: float = 1.0
    gamma: float = 0.0
    settled: bool = False
    raises: int = 0
    widenings: int = 0
    distance: float = math.inf
    inner: Inner | None = None
    limit: Limit = field(default_factory=lambda: Limit(0))

    def __post_init__(self) -> None:
        self.limit = Limit(self.base.n)

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """``F + c (f - v)``; the lower solution kept is the minimiser in v."""
        oracle, joint = self.base, self.oracle
        assert isinstance(joint, Joint)
        u, y = joint.upper(x), x[oracle.n :]
        problem: Any = Proximal(oracle, y, self.gamma) if self.gamma else oracle
        lower = self.below(problem, u, y)
        if not math.isfinite(lower.f) or lower.ended == "unbounded":
            return Point(x, lower, math.nan, math.nan, torch.zeros_like(x), torch.zeros_like(y))
        F, F_x, F_y = oracle.value_grad_F(u, y)
        f, f_y = oracle.value_grad_f(u, y)
        if self.gamma:
            f_y = f_y - (y - lower.y) / self.gamma
        push = oracle.grad_f_x(u, lower.y) - oracle.grad_f_x(u, y), -f_y
        cross = self.weight * torch.cat([joint.unit * push[0], push[1]])
        adjoint = Adjoint(torch.zeros_like(y), cross, math.nan, 0)
        value = F + self.weight * (f - lower.f)
        return Point(x, lower, F, value, torch.cat([joint.unit * F_x, F_y]), F_y, adjoint)

    def below(self, problem: Any, u: Vec, y: Vec) -> LowerSolution:
        """The minimiser of a lower objective at ``x = u``, from y."""
        if self.inner is None:
            self.inner = Inner(y, self.rng, part=PART)
        self.inner.y = y
        level = max(self.accuracy.level / max(self.weight, 1.0), FINEST)
        lower = self.inner.solve(problem, u, 1.0, 0.0, level)
        self.scale = max(self.scale, self.inner.scale)
        return lower

    def apart(self, point: Point) -> float:
        """Distance of y from the lower solution, relative to its size.

        The minimiser in an envelope lies between y and the lower solution, nearer to y the worse
        conditioned f is: the solution itself is what counts.
        """
        n, z = self.base.n, point.y
        if self.gamma:
            solver = Inner(z, self.rng)
            solver.scale = self.inner.scale if self.inner is not None else 0.0
            assert isinstance(self.oracle, Joint)
            x = self.oracle.upper(point.x)
            z = solver.solve(self.base, x, 1.0, 0.0, self.accuracy.floor).y
        return norm(point.x[n:] - z) / max(norm(z), 1e-300)

    def widen(self) -> bool:
        """Make the envelope wider: the wider it is, the fewer stationary points of the penalty are
        no lower solutions.
        """
        if self.widenings >= WIDENINGS:
            return False
        self.widenings += 1
        self.gamma *= WIDER
        self.distance, self.limit = math.inf, Limit(self.base.n)
        return True

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """The gradient, whose parts the value has brought along."""
        assert point.adjoint is not None
        return replace(point, gradient=point.gF_x - point.adjoint.cross)


class Proximal:
    """``f(x, theta) + |theta - y|^2 / (2 gamma)`` as a lower objective in theta."""

    def __init__(self, oracle: Oracle, y: Vec, gamma: float) -> None:
        self.oracle, self.y, self.gamma = oracle, y, gamma
        self.domain_y, self.counts, self.m = oracle.domain_y, oracle.counts, oracle.m

    def value_grad_f(self, x: Vec, theta: Vec) -> tuple[float, Vec]:
        """Value and gradient."""
        f, g = self.oracle.value_grad_f(x, theta)
        d = theta - self.y
        return f + float(d @ d) / (2.0 * self.gamma), g + d / self.gamma

    def grad_f(self, x: Vec, theta: Vec) -> Vec:
        """Gradient."""
        return self.oracle.grad_f(x, theta) + (theta - self.y) / self.gamma


def start_joint(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    tol: float,
    rng: torch.Generator,
    *,
    weight: float,
    gamma: float,
    fixed: bool = True,
    widens: bool = True,
    made: type[JointPenalty] = JointPenalty,
) -> UpperState:
    """The first point. The weight grows unless it is ``fixed``; 0: from a first one on the scale of
    both objectives. ``widens``: the envelope may be made wider.
    """
    settled = fixed and weight > 0
    z = Inner(y, rng).solve(oracle, x, 1.0, 0.0, ROUGH).y
    if not weight > 0:
        weight = first_weight(oracle, x, z, max(norm(z), norm(y)) or 1.0, rng)
    joint = Joint(oracle, unit=upper_unit(oracle, x, z))
    return begun(
        made,
        joint,
        (x, z),
        z,
        tol,
        rng=rng,
        weight=weight,
        gamma=gamma,
        settled=settled,
        widenings=0 if widens else WIDENINGS,
    )


def begun(
    made: type[JointPenalty],
    joint: Joint,
    parts: tuple[Vec, ...],
    y: Vec,
    tol: float,
    **settings: Any,
) -> UpperState:
    """The first point of a penalty on ``joint``: ``parts`` are x and what moves with it, y the
    lower start.
    """
    whole: Any = joint
    # Of lower values: gradients are known to it times the weight.
    accuracy = Accuracy(level=ROUGH, change=1.0, floor=min(1e-3 * tol, 1e-7))
    response = made(whole, NO_METHOD, accuracy, base=joint.oracle, **settings)
    return raised(begin(response, torch.cat([parts[0] / joint.unit, *parts[1:]]), y, 0.0), tol)


def first_weight(oracle: Oracle, x: Vec, z: Vec, size: float, rng: torch.Generator) -> float:
    """The weight with which F moves y by a tenth of its size, on the curvature of f."""
    top = power_iteration(lambda at: oracle.grad_f(x, at), z, rng)
    push, bend = norm(oracle.grad_F(x, z)[1]), APART * top * size
    return push / bend if push > 0 and bend > 1e-12 * push else 1.0


def step_joint(state: UpperState, tol: float) -> UpperState:
    """A step on (x, y); a larger weight where the present one is solved."""
    return raised(advance(state), tol)


def raised(state: UpperState, tol: float) -> UpperState:
    """Raise the weight until y and the lower solution agree, or the minimisers of growing weights
    have a limit, or there are too many of them.
    """
    response = state.response
    assert isinstance(response, JointPenalty)
    while state.finish is None and not response.settled and state.stationarity() <= tol:
        before, response.distance = response.distance, response.apart(state.point)
        if response.raises >= RAISES or response.distance <= CLOSE * tol:
            response.settled = True
            break
        if response.gamma and response.distance > STAYS * before and response.widen():
            new = response.again(state.point)
            if new.gradient is None:
                break
            state.point = new
            state.memory.reset()
            continue
        limit, change = response.limit.add(1.0 / response.weight, state.point.x)
        if change <= tol * max(norm(limit[: response.base.n]), state.extent) and _ends_at(
            state, limit, tol
        ):
            break
        response.raises += 1
        response.weight *= RAISE
        new = response.again(state.point)
        if new.gradient is None:
            break
        state.point = _better(response, new, response.limit.at(1.0 / response.weight))
        state.memory.reset()
    if state.finish is not None and state.finish.status is Status.STALLED:
        _end_early(state)
    return state


def _better(response: JointPenalty, here: Point, there: Vec) -> Point:
    """The point that extrapolation predicts for a new weight, if it is the lower one."""
    w = response.oracle.domain_x.project(there)
    guess = response.evaluate(w, here, here.y)
    if not response.finite(guess) or guess.value >= here.value:
        return here
    return response.differentiate(guess, here)


def _ends_at(state: UpperState, limit: Vec, tol: float) -> bool:
    """End at the limit of the minimisers, if y is a lower solution there."""
    response = state.response
    assert isinstance(response, JointPenalty)
    new = _at(state, limit)
    if new is None or response.apart(new) > NEAR * tol:
        return False
    state.point = new
    state.finish = Finish(
        Status.CONVERGED,
        "the minimisers of growing weights, extrapolated to no end of them, agree to the tolerance",
    )
    return True


def _end_early(state: UpperState) -> None:
    """Where the last weight is too large for the digits there are: the limit of those before."""
    response, finish = state.response, state.finish
    assert isinstance(response, JointPenalty)
    assert finish is not None
    new = _at(state, response.limit.at(0.0)) if len(response.limit.points) > 1 else None
    if new is not None and response.apart(new) < response.apart(state.point):
        state.point = new
        message = f"{finish.message} at the weight {response.weight:.0e}; extrapolated from those"
        state.finish = Finish(finish.status, f"{message} before")


def _at(state: UpperState, limit: Vec) -> Point | None:
    """The point at a limit; the gradient kept is that of the last minimiser."""
    response, old = state.response, state.point
    keep = response.accuracy.level
    response.accuracy.level = response.accuracy.floor
    new = response.evaluate(response.oracle.domain_x.project(limit), old, old.y)
    response.accuracy.level = keep
    if not response.finite(new):
        return None
    return replace(new, adjoint=old.adjoint, gradient=old.gradient)


def measure_joint(oracle: Oracle, state: UpperState) -> Measure:
    """The state with x alone, and the lower solution as y."""
    m, joint = measure(state), state.response.oracle
    assert isinstance(joint, Joint)
    x, y = joint.upper(m.x), m.y
    F = oracle.F(x, y) if math.isfinite(m.F) else m.F
    f, g = oracle.value_grad_f(x, y)
    residual = oracle.domain_y.projected_gradient_norm(y, g)
    return replace(m, x=x, y=y, F=F, f=f, lower_residual=residual)
