"""``itd``: derivatives through the lower iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_shape
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aid import StepLength, tied
from bilevelpy.backends.loop import check_choices, check_range, check_step
from bilevelpy.backends.unrolled.descent import (
    CHECKPOINTS,
    Path,
    SteppedResponse,
    extend,
    interior,
    packed,
)
from bilevelpy.errors import UsageError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Accuracy, Point
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.upper.adam import Adam
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.lipschitz import accurate, upper_lipschitz
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

MODES = ("reverse", "forward")
UPPER = ("auto", "lbfgs", "gd", "adam")
# Lower steps at first, and at most.
FIRST, MOST = 50, 200_000
# Steps below this fraction of y are rounding.
ROUNDING = 1e-15
# Differences of gradients in forward mode.
DIFFERENCE = 1e-5
BIASED = (
    "differentiating a fixed number T of lower steps solves a perturbed problem, "
    "off by about (1 - mu/L)^T"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ITDOptions(BackendOptions):
    """Options of ``itd``.

    ``mode``: reverse, or forward (n_x tangents: for few upper variables). ``lower_steps`` T: 0
    means as many as the response and its derivative need. ``truncate`` K: only the last K steps are
    differentiated; 0: all. ``warm``: start the lower steps at the last response. ``lower_step`` s,
    0: ``2 / (L + mu)``. ``checkpoint``: keep only every sqrt(T)-th iterate and compute the others
    again on the way back, always, never, or (auto) from 256 MB. ``upper``: lbfgs, gd or adam with
    ``upper_step`` (gd 0: estimated); auto means gd for a fixed T or K. ``model``: the T steps from
    the declared start are the model, whose derivative is the true one; auto is then lbfgs.
    """

    mode: str = "reverse"
    lower_steps: int = 0
    truncate: int = 0
    warm: bool = True
    lower_step: float = 0.0
    checkpoint: str = "auto"
    upper: str = "auto"
    upper_step: float = 0.0
    model: bool = False

    def __post_init__(self) -> None:
        check_choices(self, "itd", mode=MODES, upper=UPPER, checkpoint=CHECKPOINTS)
        check_step(self, "itd")
        check_range(self, "itd", 0, 10**6, "lower_steps", "truncate")
        check_range(self, "itd", 0.0, math.inf, "lower_step", "upper_step")
        if self.model and not (self.lower_steps and self.lower_step):
            raise UsageError("itd.model needs itd.lower_steps and itd.lower_step")

    @property
    def biased(self) -> bool:
        """Whether the hypergradient is one of a perturbed problem."""
        return bool(self.truncate or (self.lower_steps and not self.model))


class ITD:
    """Iterative differentiation [Franceschi2017]_ [Shaban2019]_ of ``y_{t+1} = P(y_t - s f_y(x,
    y_t))``.

    Reverse mode, from ``p = F_y(x, y_T)`` back to t = 0 (or over the last K steps)::

        g <- g - s f_xy(y_t) p,   p <- (I - s H(y_t)) p,   dPhi/dx = F_x + g

    Forward mode carries ``Z_t = dy_t/dx`` instead, ``Z <- (I - s H) Z - s f_yx``, by central
    differences of lower gradients along (e_i, Z e_i). By default T grows until the response is
    solved and the part of p that is left at t = 0 is below the accuracy asked for. Where the model
    says ``assume steps(T, s);`` the answer is what T steps of length s reach from the start: no
    property of f but its derivatives is needed, and the hypergradient is exact.

    Cost per upper step: T lower gradients and T pullbacks (reverse), or 2 n_x T lower gradients
    (forward); T iterates of memory, or with checkpoints about 2 sqrt(T) and T more lower gradients.
    """

    name: ClassVar[str] = "itd"
    title: ClassVar[str] = "Differentiation of the lower iterations"
    reference: ClassVar[str] = "Franceschi2017"
    options: ClassVar[type[BackendOptions]] = ITDOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over free or box variables; where steps are the
        answer, any smooth one.
        """
        steps = structure.steps
        if steps is None:
            refusal = refuse_common(structure)
        else:
            rest = {k: v for k, v in structure.unsupported.items() if k != "steps"}
            refusal = refuse_shape(replace(structure, unsupported=rest))
        if refusal is not None:
            return refusal
        if structure.lower.domains.value - {"free", "box"}:
            return Reject("differentiates projections onto boxes only", structure.lower.domains)
        if steps is None:
            return Accept("derivatives of the lower iterations")
        T, s = steps.value
        return Accept(
            "the steps that are the answer are differentiated themselves",
            options={"model": True, "lower_steps": T, "lower_step": s, "warm": False},
        )

    def cost(self, structure: Structure) -> Cost:
        """About kappa steps per digit, each once forward and once back."""
        T = 10.0 * structure.likely_condition
        return Cost(
            gradients=T, products=T, flops=20.0 * structure.dim_y, memory=8.0 * T * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: ITDOptions, rng: torch.Generator
    ) -> UpperState:
        """Evaluate at the start; estimate the upper step where plain steps need one."""
        if options.model:
            y = oracle.y0  # wherever a run goes on from, paths begin at the declared start
        accuracy = Accuracy(level=1e-3, change=1e-2, floor=min(1e-3 * options.tol, 1e-6))
        response = SteppedResponse(
            oracle,
            Unrolled(options, StepLength(options.lower_step), y),
            accuracy,
            correct=not (options.lower_steps or options.biased) and options.mode == "reverse",
        )
        response.adam = Adam(options.upper_step) if options.upper == "adam" else None
        if options.upper == "gd" or (options.upper == "auto" and options.biased):
            response.alpha = options.upper_step
            if not response.alpha:
                top = upper_lipschitz(oracle, x, accurate(oracle, x, y), rng)
                response.alpha = 1.0 / top if top > 0 else 1.0
        state = begin(response, x, y, 0.0 if options.biased else options.tol)
        if options.biased:
            state.warnings = (BIASED,)
        return state

    def step(self, oracle: Oracle, state: UpperState, options: ITDOptions) -> UpperState:
        """A step of the optimizer, or of plain gradient descent."""
        response = state.response
        assert isinstance(response, SteppedResponse)
        if response.adam is not None:
            return response.adam.step(state)
        return gradient_step(state, response.alpha) if response.alpha else advance(state)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure(state)


@dataclass(slots=True)
class Unrolled:
    """A path of lower iterates, and the derivative back along it; the newest one is kept."""

    made_again: ClassVar[tuple[str, ...]] = ("path",)

    options: ITDOptions
    steps: StepLength
    start: Vec
    T: int = FIRST
    path: Path | None = None

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The lower iterations, T of them or as many as the tolerance and the derivative ask for;
        the residual at the start.
        """
        o = self.options
        y = y if o.warm else self.start
        fixed = bool(o.lower_steps)
        step = self.steps.at(oracle, x, y, renew=not (fixed or o.lower_step))
        self.path = path = Path(y, step, o.checkpoint)
        if fixed:
            first = extend(oracle, x, path, 1)
            extend(oracle, x, path, o.lower_steps - 1)
            ended = "reached" if o.model else "limit"
            return packed(oracle, x, path, exact=False, ended=ended), first
        first = extend(oracle, x, path, 1)
        tol = tied(first, scale, accuracy)
        extend(oracle, x, path, self.T - 1)
        while True:
            lower = packed(oracle, x, path, exact=True, ended="reached")
            if lower.residual <= tol or not math.isfinite(lower.f):
                return lower, first
            if path.count > MOST or norm(path.end) > 1e30:
                return replace(
                    lower, ended="limit" if norm(path.end) <= 1e30 else "unbounded"
                ), first
            if path.step * lower.residual <= ROUNDING * norm(path.end):
                return replace(lower, ended="rounding"), first
            extend(oracle, x, path, self.T)

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """``u = s sum_t p_t`` and ``f_xy u`` along the path; more steps where too much of p is
        left.
        """
        o, path = self.options, self.path
        assert path is not None
        if o.mode == "forward":
            return self._tangents(oracle, point, path)
        size = norm(point.gF_y)
        while True:
            found, left = _reverse(oracle, point, path, o)
            if o.lower_steps or o.biased or left <= accuracy.level * size or path.count > MOST:
                exact = o.model or size == 0.0
                return replace(found, residual=0.0 if exact else left / size)
            self.T = 2 * path.count
            extend(oracle, point.x, path, path.count)

    def _tangents(self, oracle: Oracle, point: Point, path: Path) -> Adjoint:
        """Forward mode: ``Z' F_y`` with the tangents Z of all upper variables."""
        o = self.options
        Z = _forward(oracle, point.x, path, o.truncate)
        return Adjoint(torch.zeros_like(point.y), -(Z.T @ point.gF_y), math.nan, 0)


def _reverse(
    oracle: Oracle, point: Point, path: Path, options: ITDOptions
) -> tuple[Adjoint, float]:
    """One pass back over the path; also the norm of what is left of p."""
    x, s = point.x, path.step
    stop = max(path.count - options.truncate, 0) if options.truncate else 0
    p = point.gF_y
    u, cross = torch.zeros_like(p), torch.zeros_like(x)
    products = 0
    for before, after in path.backward(oracle, x, stop):
        mask = interior(oracle.domain_y, after)
        q = p if mask is None else mask * p
        Hq, Jq = oracle.pullback(x, before)(q)
        u, cross, p = u + s * q, cross + s * Jq, q - s * Hq
        products += 1
    return Adjoint(u, cross, math.nan, products), norm(p)


def _forward(oracle: Oracle, x: Vec, path: Path, truncate: int) -> Vec:
    """``Z <- P' (I - s H) Z - s P' f_yx`` by central differences along ``(e_i, Z e_i)``."""
    Z = torch.zeros(oracle.m, oracle.n, dtype=torch.float64)
    first = max(path.count - truncate, 0) if truncate else 0
    eye = torch.eye(oracle.n, dtype=torch.float64)
    for y, after in path.forward(oracle, x, first):
        mask = interior(oracle.domain_y, after)
        for i in range(oracle.n):
            e = DIFFERENCE * (1.0 + norm(y)) / (1.0 + norm(Z[:, i]))
            up = oracle.grad_f(x + e * eye[i], y + e * Z[:, i])
            down = oracle.grad_f(x - e * eye[i], y - e * Z[:, i])
            column = Z[:, i] - path.step * (up - down) / (2.0 * e)
            Z[:, i] = column if mask is None else mask * column
    return Z
