"""``meha``: the Moreau envelope of the lower level as its value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.joint import measure_joint, start_joint, step_joint
from bilevelpy.backends.loop import LoopState, check_choices, check_range, guard, measure_loop
from bilevelpy.backends.slbamm import OPTIMISTIC
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.measure import Measure
from bilevelpy.numerics.upper import UpperState
from bilevelpy.numerics.upper_lipschitz import power_iteration
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

LOOPS = ("continuation", "single")
WEAK = (
    "the lower level is not known to be convex: claims are local, and gamma must be below 1/(2 rho)"
)
SLOW = "the penalty of the single loop grows like (k+1)^power: the error falls no faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class MEHAOptions(BackendOptions):
    """Options of ``meha``.

    ``loop``: continuation (the penalised problem is solved, its weight grows by tens) or single,
    the paper's loop. ``gamma`` of the envelope, 0: 10/L. Of the single loop: ``c`` and ``power`` p
    of ``c_k = c (k+1)^p``; steps ``alpha`` (x), ``beta`` (y) and ``eta`` (theta), 0: from estimated
    curvatures; ``stride`` iterations between records.
    """

    loop: str = "continuation"
    gamma: float = 0.0
    c: float = 1.0
    power: float = 0.49
    alpha: float = 0.0
    beta: float = 0.0
    eta: float = 0.0
    stride: int = 50

    def __post_init__(self) -> None:
        check_choices(self, "meha", loop=LOOPS)
        check_range(self, "meha", 0.0, math.inf, "gamma", "alpha", "beta", "eta")
        check_range(self, "meha", 0.0, math.inf, "c", closed=False)
        check_range(self, "meha", 0.0, 0.5, "power", closed=False)
        check_range(self, "meha", 1, 10**6, "stride")


class MEHA:
    """Moreau-envelope-based Hessian-free algorithm [Liu2024]_ for convex or weakly convex lower
    levels.

    The lower level is replaced by ``f(x, y) <= v(x, y)`` with the envelope
    ``v = min_theta f(x, theta) + |theta - y|^2 / (2 gamma)``, which is smooth even where lower
    solutions are many::

        theta <- P(theta - eta (f_y(x, theta) + (theta - y) / gamma))
        x <- P(x - alpha (F_x / c_k + f_x(x, y) - f_x(x, theta)))
        y <- P(y - beta (F_y / c_k + f_y(x, y) - (y - theta) / gamma)),    c_k = c (k+1)^p

    The error of this loop falls like 1/c_k, so that by default ``F + c (f - v)`` is minimised over
    (x, y) by L-BFGS with c growing by tens. Cost per iteration of the loop: 1 upper gradient, 4
    lower gradients; no products.
    """

    name: ClassVar[str] = "meha"
    title: ClassVar[str] = "Moreau envelope, gradients only"
    reference: ClassVar[str] = "Liu2024"
    options: ClassVar[type[BackendOptions]] = MEHAOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth lower level, convex or weakly convex, over variables with a cheap projection."""
        refusal = refuse_shape(structure)
        if refusal is not None:
            return refusal
        convex = structure.convexity.value in ("convex", "strongly convex")
        unique = structure.convexity.value == "strongly convex" or bool(structure.unique.value)
        return Accept(
            "needs gradients only",
            (*(() if convex else (WEAK,)), *(() if unique else (OPTIMISTIC,))),
        )

    def cost(self, structure: Structure) -> Cost:
        """As ill conditioned as the penalty is large."""
        kappa = min(structure.condition or 100.0, 1e8)
        return Cost(
            gradients=400.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: MEHAOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """Estimate what is not given."""
        top = power_iteration(lambda z: _joint_gradient(oracle, z), torch.cat([x, y]), rng)
        gamma = options.gamma or (10.0 / top if top > 0 else 1.0)
        if options.loop == "continuation":
            return start_joint(oracle, x, y, options.tol, rng, weight=0.0, gamma=gamma)
        upper = power_iteration(
            lambda z: torch.cat(oracle.grad_F(*_split(oracle, z))), torch.cat([x, y]), rng
        )
        safe = 0.5 / max(top + upper / options.c + 1.0 / gamma, 1e-300)
        state = LoopState(
            x, y, y, oracle.grad_F(x, y)[0], options.alpha or safe, options.beta or safe
        )
        state.sync = (gamma, options.eta or 1.0 / (top + 1.0 / gamma))
        state.warn(SLOW)
        return state

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: MEHAOptions
    ) -> UpperState | LoopState:
        """A step on (x, y), or ``stride`` iterations of the loop."""
        if isinstance(state, UpperState):
            return step_joint(state, options.tol)
        for _ in range(options.stride):
            if state.finish is None:
                _iterate(oracle, state, options)
        return state

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state."""
        return (
            measure_joint(oracle, state)
            if isinstance(state, UpperState)
            else measure_loop(oracle, state)
        )


def _split(oracle: Oracle, z: Vec) -> tuple[Vec, Vec]:
    return z[: oracle.n], z[oracle.n :]


def _joint_gradient(oracle: Oracle, z: Vec) -> Vec:
    """(f_x, f_y)."""
    x, y = _split(oracle, z)
    return torch.cat([oracle.grad_f_x(x, y), oracle.grad_f(x, y)])


def _iterate(oracle: Oracle, state: LoopState, options: MEHAOptions) -> None:
    """One round of the three updates; ``state.u`` is theta."""
    gamma, eta = state.sync
    x, y, theta = state.x, state.y, state.u
    c = options.c * (state.k + 1) ** options.power
    domain = oracle.domain_y
    theta = domain.project(theta - eta * (oracle.grad_f(x, theta) + (theta - y) / gamma))
    push = oracle.grad_f_x(x, y) - oracle.grad_f_x(x, theta)
    F_x = oracle.grad_F(x, y)[0]
    state.h, state.u = F_x + c * push, theta
    state.size = norm(F_x) + c * norm(push)
    state.k += 1
    if not guard(oracle, state, fixed=True):
        return
    state.x = oracle.domain_x.project(x - (state.alpha / c) * state.h)
    f_y = oracle.grad_f(state.x, y)
    state.residual, state.adjoint = domain.projected_gradient_norm(y, f_y), 0.0
    F_y = oracle.grad_F(state.x, y)[1]
    state.y = domain.project(y - state.beta * (F_y / c + f_y - (y - theta) / gamma))
