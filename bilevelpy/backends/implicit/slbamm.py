"""``slbamm``: averaged objectives for lower levels that are merely convex."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_nonconvex
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.aggregated import Aggregated
from bilevelpy.backends.implicit.alternate import DUALS, ORDERS, alternate
from bilevelpy.backends.implicit.nbo import SharedNewton
from bilevelpy.backends.loop import (
    LoopState,
    check_choices,
    check_range,
    guard,
    measure_loop,
    repeat,
)
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.lower.response import Accuracy, Response
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

LOOPS = ("continuation", "single")
# Powers of mu_k in (eta_k, alpha_k) of the three strategies.
POWERS = {"s1": (2, 7), "s2": (1, 5), "s3": (0, 3)}
FALL = 10.0
OPTIMISTIC = (
    "the lower solution need not be unique: "
    "among the equally good ones that with the least F is meant"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SLBAMMOptions(BackendOptions):
    """Options of ``slbamm``.

    ``loop``: continuation (phi solved to tolerances, mu falls by tens to ``smallest``) or single,
    the paper's loop. ``start`` mu_0. Of the single loop: ``power`` p (``mu_k = mu_0
    (k+1)^(-1/p)``), ``strategy`` s1, s2 or s3, ``decay`` tau, ``lower_step`` beta (0: 1/(2L)),
    ``order``, ``dual``, ``stride`` iterations between records.
    """

    loop: str = "continuation"
    start: float = 0.9
    smallest: float = 1e-7
    power: float = 10.0
    strategy: str = "s3"
    decay: float = 0.025
    lower_step: float = 0.0
    order: str = "parallel"
    dual: str = "line-search"
    stride: int = 50

    def __post_init__(self) -> None:
        check_choices(self, "slbamm", loop=LOOPS, strategy=tuple(POWERS), order=ORDERS, dual=DUALS)
        check_range(self, "slbamm", 0.0, 1.0, "start", "smallest", closed=False)
        check_range(self, "slbamm", 1.0, math.inf, "power")
        check_range(self, "slbamm", 0.0, 1.0, "decay")
        check_range(self, "slbamm", 0.0, math.inf, "lower_step")
        check_range(self, "slbamm", 1, 10**6, "stride")


class SLBAMM:
    """Single-loop averaged method of multipliers [Liu2023slbamm]_ for a convex f that need not be
    strongly convex.

    The lower objective is replaced by ``phi_k = (1 - mu_k) f + mu_k F``, strongly convex in y
    wherever F is, with mu_k -> 0; then y, the multiplier v and x move at once::

        y <- y - beta phi_y,   v <- v - eta_k (phi_yy v - F_y),   x <- x - alpha_k (F_x - phi_xy v)

    with ``eta_k = (k+1)^(-tau/2) mu_k^a beta`` (or the exact step along the residual) and
    ``alpha_k = (k+1)^(-3 tau/2) mu_k^b beta``. Among many lower solutions the one with the least F
    is selected.

    The schedule is slow where F_y does not vanish at the solution (mu_k is the error), so that by
    default phi is solved by Newton-CG and implicit differentiation at every mu, with L-BFGS on x,
    and mu falls by tens.

    Cost per iteration of the single loop: 1 lower gradient, 1 to 2 products of f, 3 to 5 upper
    gradients more for the products of F, which are differences.
    """

    name: ClassVar[str] = "slbamm"
    title: ClassVar[str] = "Averaged objectives for merely convex lower levels"
    reference: ClassVar[str] = "Liu2023slbamm"
    options: ClassVar[type[BackendOptions]] = SLBAMMOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth convex lower level; the theory asks for an F that is strongly convex in y."""
        refusal = refuse_nonconvex(structure)
        if refusal is not None:
            return refusal
        unique = structure.has_one_response
        assumed = "the method assumes that F is strongly convex in the lower variables"
        return Accept("the lower level is convex", () if unique else (OPTIMISTIC, assumed))

    def cost(self, structure: Structure) -> Cost:
        """Conjugate gradients on ever worse conditioned systems."""
        m = structure.dim_y
        steps = min(300.0, 3.0 * max(m, 1))
        return Cost(
            gradients=10.0 + 2.0 * steps, products=steps, flops=200.0 * m, memory=1000.0 * m
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: SLBAMMOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """The start of the chosen loop."""
        problem = Aggregated(oracle, options.start)
        if options.loop == "single":
            beta = options.lower_step
            if not beta:
                top = extreme_eigenvalues(problem.hvp(x, y), oracle.m, rng)[1]
                beta = 0.5 / top if top > 0 else 1.0
            return LoopState(x, y, torch.zeros_like(y), oracle.grad_F(x, y)[0], 0.0, beta)
        accuracy = Accuracy(level=1e-4, change=1e-2, floor=min(1e-3 * options.tol, 1e-8))
        state = begin(Response(problem, SharedNewton(), accuracy), x, y, 0.0)
        return _lowered(state, options)

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: SLBAMMOptions
    ) -> UpperState | LoopState:
        """An upper step, or ``stride`` iterations of the single loop."""
        if isinstance(state, UpperState):
            return _lowered(advance(state), options)
        return repeat(_iterate, oracle, state, options)

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state: f itself, not phi."""
        if isinstance(state, LoopState):
            return measure_loop(oracle, state)
        m = measure(state)
        f, g = oracle.value_grad_f(m.x, m.y)
        return replace(m, f=f, lower_residual=oracle.domain_y.projected_gradient_norm(m.y, g))


def _lowered(state: UpperState, options: SLBAMMOptions) -> UpperState:
    """Lower mu while its problem is solved, be it to a kink or to rounding."""
    problem = state.response.oracle
    assert isinstance(problem, Aggregated)
    while problem.mu > options.smallest and (
        state.stationarity() <= options.tol if state.finish is None else _is_end(state.finish)
    ):
        state.finish = None
        problem.mu = max(problem.mu / FALL, options.smallest)
        new = state.response.again(state.point)
        if new.gradient is None:
            break
        state.point = new
    return state


def _is_end(finish: Finish) -> bool:
    """Whether the optimizer has gone as far as it could."""
    return finish.status in (Status.CONVERGED, Status.STALLED)


def _iterate(oracle: Oracle, state: LoopState, options: SLBAMMOptions) -> None:
    """One iteration of the single loop."""
    k, x = state.k, state.x
    problem = Aggregated(oracle, options.start * (k + 1) ** (-1.0 / options.power))
    dual_power, upper_power = POWERS[options.strategy]
    eta = (k + 1) ** (-0.5 * options.decay) * problem.mu**dual_power * state.beta
    alternate(problem, state, order=options.order, dual=options.dual, eta=eta)
    if guard(oracle, state, fixed=True):
        alpha = (k + 1) ** (-1.5 * options.decay) * problem.mu**upper_power * state.beta
        state.x = oracle.domain_x.project(x - alpha * state.h)
