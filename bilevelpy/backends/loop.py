"""What the single-loop backends share: the state, its measure, and the guard on the upper step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bilevelpy.errors import UsageError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

# Relative step of differences of gradients.
DIFFERENCE = 1e-5
# A hypergradient this many times the smallest one of the run means that the loop drifts apart.
GROWTH = 1e3
HALVINGS = 40
# With a given step length, growth by this factor is divergence. The first hypergradients are the
# measure: a start may be stationary in x alone.
EXPLODED, FIRST = 1e10, 20
# Growth from below this fraction of the first hypergradient is left alone: near the end small
# numbers fluctuate.
QUIET = 1e-6
# Halvings without a new smallest hypergradient after which growth is taken for the problem's own.
PATIENCE = 4


def check_choices(options: BackendOptions, backend: str, **choices: Sequence[str]) -> None:
    """Raise where a named option has none of its values."""
    for name, values in choices.items():
        if getattr(options, name) not in values:
            found = getattr(options, name)
            raise UsageError(f"{backend}.{name} is one of {', '.join(values)}; found {found!r}")


def check_range(
    options: BackendOptions, backend: str, low: float, high: float, *names: str, closed: bool = True
) -> None:
    """Raise where a named option lies outside ``[low, high]`` (``closed``) or ``(low, high)``."""
    for name in names:
        value = getattr(options, name)
        inside = low <= value <= high if closed else low < value < high
        if not inside:
            ends = "[]" if closed else "()"
            range_ = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
            raise UsageError(f"{backend}.{name} must lie in {range_}, found {value!r}")


def check_step(options: Any, backend: str) -> None:
    """Raise where steps of a given length are asked for without the length."""
    if options.upper == "adam" and not options.upper_step > 0.0:
        raise UsageError(f"{backend}.upper=adam needs a positive {backend}.upper_step")


@dataclass(slots=True)
class LoopState:
    """Point, adjoint, newest hypergradient estimate, and the scales of the run.

    ``residual`` is the projected norm of f_y when it was last evaluated, ``adjoint`` the relative
    residual of the adjoint system; both are infinite before they are known. ``size`` is that of the
    parts of h; ``alpha`` and ``beta`` are the steps of x and y; ``sync`` is a backend's own.
    """

    x: Vec
    y: Vec
    u: Vec
    h: Vec
    alpha: float
    beta: float = 0.0
    size: float = 0.0
    residual: float = math.inf
    adjoint: float = math.inf
    k: int = 0
    norms: list[float] = field(default_factory=list)
    largest: float = 0.0
    best: tuple[float, Vec, Vec, Vec] | None = None
    halvings: int = 0
    idle: int = 0
    sync: Any = None
    finish: Finish | None = None
    warnings: tuple[str, ...] = ()

    def note(self, oracle: Oracle) -> float:
        """Record the projected norm of h, and the largest residual; returns the norm."""
        size = norm(oracle.domain_x.projected_gradient(self.x, self.h))
        self.norms.append(size)
        if math.isfinite(self.residual):
            self.largest = max(self.largest, self.residual)
        return size

    def warn(self, message: str) -> None:
        """Add a warning once."""
        if message not in self.warnings:
            self.warnings = (*self.warnings, message)


def measure_loop(oracle: Oracle, state: LoopState) -> Measure:
    """The state in the driver's terms: h on the scale of the run, both residuals on theirs."""
    pg = norm(oracle.domain_x.projected_gradient(state.x, state.h))
    ordered = sorted(state.norms)
    scale = max(ordered[(3 * len(ordered)) // 4] if ordered else pg, state.size)
    known = math.isfinite(state.residual)
    lower = state.residual / state.largest if state.largest > 0 else (0.0 if known else math.inf)
    return Measure(
        state.x,
        state.y,
        oracle.F(state.x, state.y),
        oracle.f(state.x, state.y),
        pg,
        state.residual if known else math.nan,
        (pg / scale if scale > 0 else 0.0) if known else math.inf,
        max(lower, state.adjoint),
        state.finish,
        state.warnings,
    )


SLOW = "the penalty of the single loop grows like (k+1)^power: the error falls no faster"


def curvatures(oracle: Oracle, x: Vec, y: Vec, rng: torch.Generator) -> tuple[float, float]:
    """Largest curvatures of F and of f over x and y together, by differences of gradients."""

    def upper(w: Vec) -> Vec:
        return torch.cat(oracle.grad_F(w[: oracle.n], w[oracle.n :]))

    def lower(w: Vec) -> Vec:
        u, v = w[: oracle.n], w[oracle.n :]
        return torch.cat([oracle.grad_f_x(u, v), oracle.grad_f(u, v)])

    w = torch.cat([x, y])
    return power_iteration(upper, w, rng), power_iteration(lower, w, rng)


def lower_spectrum(oracle: Oracle, x: Vec, y: Vec, rng: torch.Generator) -> tuple[float, float]:
    """Smallest and largest Ritz value of f_yy at (x, y), by differences of gradients."""
    e = DIFFERENCE * (1.0 + norm(y))

    def product(v: Vec) -> Vec:
        return (oracle.grad_f(x, y + e * v) - oracle.grad_f(x, y - e * v)) / (2.0 * e)

    return extreme_eigenvalues(product, oracle.m, rng)


def repeat(
    iterate: Callable[[Oracle, LoopState, Any], Any],
    oracle: Oracle,
    state: LoopState,
    options: Any,
) -> LoopState:
    """``stride`` iterations, or as many as there are before the loop ends."""
    for _ in range(options.stride):
        if state.finish is None:
            iterate(oracle, state, options)
    return state


def penalised_parts(state: LoopState, oracle: Oracle, F_x: Vec, push: Vec, slope: Vec) -> None:
    """Note ``h = F_x + push`` with the size of its parts, and the residual of the lower slope."""
    state.h, state.size = F_x + push, norm(F_x) + norm(push)
    state.residual, state.adjoint = oracle.domain_y.projected_gradient_norm(state.y, slope), 0.0


def guard(oracle: Oracle, state: LoopState, *, fixed: bool = False) -> bool:
    """Whether x may step; where the hypergradient grows out of bounds, go back with half the upper
    step.

    Single loops converge only if x moves slowly beside y and u; how slowly is not known beforehand.
    A step length that the user gave (``fixed``) is left alone, and growth without end is reported.
    """
    size = state.note(oracle)
    best, first = state.best, max(state.norms[:FIRST])
    if math.isfinite(size) and (best is None or size < best[0]):
        state.best, state.idle = (size, state.x, state.y, state.u), 0
        return True
    if fixed or best is None:
        if math.isfinite(size) and (best is None or size <= EXPLODED * first):
            return True
        state.finish = Finish(
            Status.DIVERGED, "the hypergradient grows without end: the upper step is too long"
        )
        return False
    if math.isfinite(size) and size <= GROWTH * max(best[0], QUIET * first):
        return True
    if state.halvings >= HALVINGS:
        state.finish = Finish(
            Status.DIVERGED, "the iterates grow for every length of the upper step"
        )
        return False
    _, state.x, state.y, state.u = best
    state.alpha *= 0.5
    state.halvings += 1
    state.idle += 1
    if state.idle >= PATIENCE:
        state.best, state.idle = None, 0
    state.norms = [n for n in state.norms if math.isfinite(n)]
    state.warn("the upper step was halved because the hypergradient grew")
    return False
