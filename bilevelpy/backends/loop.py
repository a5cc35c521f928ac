"""What the single-loop backends share: the state, its measure, and the guard on the upper step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bilevelpy.errors import UsageError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.measure import Finish, Measure
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

# A hypergradient this many times the smallest one of the run means that the loop drifts apart.
GROWTH = 1e3
HALVINGS = 40
# With a given step length, growth by this factor is divergence.
EXPLODED = 1e10
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


def guard(oracle: Oracle, state: LoopState, *, fixed: bool = False) -> bool:
    """Whether x may step; where the hypergradient grows out of bounds, go back with half the upper
    step.

    Single loops converge only if x moves slowly beside y and u; how slowly is not known beforehand.
    A step length that the user gave (``fixed``) is left alone, and growth without end is reported.
    """
    size = state.note(oracle)
    best, first = state.best, next((n for n in state.norms if n > 0.0), 0.0)
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
