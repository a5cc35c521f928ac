"""What a lower solve returns, and the step along the projection arc that all lower solvers
share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains.product import Face, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm

Vec = torch.Tensor

# The part of the predicted fall that a step has to reach.
ARMIJO = 1e-4
# Changes of f below this fraction of |f| are rounding: decisions then rest on gradients alone.
VALUE_NOISE = 1e-12
# Steps without curvature grow by this factor, so often at most.
LONGER, LENGTHENED = 4.0, 30
HALVINGS = 40


def resolution(oracle: Oracle) -> float:
    """Changes of f below this fraction of |f| are rounding: more of them in single precision."""
    return float(getattr(oracle, "resolution", VALUE_NOISE))


@dataclass(frozen=True, slots=True)
class LowerSolution:
    """An approximate minimiser of f(x, .) over the lower domain.

    ``ended`` is "reached" (the tolerance), "rounding" (no further progress in float64), "limit"
    (iterations), "unbounded", "infeasible" (rows) or "nonfinite"; ``residual`` is the norm of the
    projected gradient, ``started`` what it was at the start where the solver says so. ``curved``
    says that f curved downwards on the way, whether or not it does at the end.
    """

    y: Vec
    f: float
    gradient: Vec
    residual: float
    face: Face
    iterations: int
    ended: str
    negative_curvature: bool = False
    started: float = math.nan
    curved: bool = False

    @property
    def usable(self) -> bool:
        """Whether y is a solution as good as asked for, or as float64 allows."""
        return self.ended in ("reached", "rounding")


@dataclass(frozen=True, slots=True)
class Step:
    """A point accepted along an arc, with its value and gradient."""

    y: Vec
    f: float
    gradient: Vec
    length: float


def finish(
    domain: ProductSet,
    y: Vec,
    f: float,
    g: Vec,
    iterations: int,
    ended: str,
    negative: bool = False,
) -> LowerSolution:
    """Pack the end of a lower solve."""
    return LowerSolution(
        y,
        f,
        g,
        domain.projected_gradient_norm(y, g),
        domain.face(y, g),
        iterations,
        ended,
        negative,
    )


def armijo(
    oracle: Oracle, x: Vec, y: Vec, f: float, g: Vec, p: Vec, *, first: float = 1.0
) -> Step | None:
    """Search ``t = first, first/2, ...`` along ``P(y + t p)`` for ``f(y_t) <= f + 1e-4 g'(y_t -
    y)``.

    Where f no longer resolves the decrease, a step is taken on the evidence of the slopes (the
    approximate Wolfe condition). None: no step decreases f. Cost: one value and gradient per trial.
    """
    domain = oracle.domain_y
    noise = resolution(oracle) * abs(f)
    level = domain.level(y, g)
    t = first
    for _ in range(HALVINGS):
        move = p if t == 1.0 else t * p
        trial = y + move
        if not domain.is_free:
            trial = domain.project(trial)
            move = trial - y
        slope = dot(level, move)
        if slope >= 0.0:
            if domain.is_free or not bool(move.any()):
                return None
            t *= 0.25
            continue
        f_trial, g_trial = oracle.value_grad_f(x, trial)
        if math.isfinite(f_trial):
            if f_trial <= f + ARMIJO * slope:
                return Step(trial, f_trial, g_trial, t)
            if f_trial <= f + noise and abs(dot(domain.level(trial, g_trial), move)) <= 0.9 * abs(
                slope
            ):
                return Step(trial, f_trial, g_trial, t)
            # Minimiser of the parabola through both values and the slope, kept within [0.1, 0.5] t.
            bend = 2.0 * (f_trial - f - slope)
            t *= min(0.5, max(0.1, -slope / bend)) if bend > 0 else 0.5
        else:
            t *= 0.1
    return None


def descend(oracle: Oracle, x: Vec, y: Vec, f: float, g: Vec, p: Vec) -> Step | None:
    """Step along p; where the arc fails, along p up to the first bound, then along the projected
    gradient.

    The second attempt matters on simplices and balls, whose projection may turn a descent
    direction into one of ascent once new constraints bind.
    """
    step = armijo(oracle, x, y, f, g, p)
    if step is not None:
        return step
    domain = oracle.domain_y
    if domain.is_free:
        if dot(g, p) < 0:
            return None
    else:
        reach = domain.longest_step(y, p)
        if 0.0 < reach < 1.0:
            step = armijo(oracle, x, y, f, g, p, first=reach)
            if step is not None:
                return step
    q = -domain.projected_gradient(y, g)
    size = norm(q)
    if size == 0.0:
        return None
    return armijo(oracle, x, y, f, g, q, first=max(norm(p), 1e-12 * norm(y)) / size)


def farther(oracle: Oracle, x: Vec, y: Vec, p: Vec, step: Step) -> Step:
    """The last point of ``P(y + t p)``, t growing from that of ``step``, as far as f falls and
    still slopes down: along p without curvature no length is the right one, and that of a gradient
    is the unit of f (T. Steihaug, SIAM J. Numer. Anal. 20, 1983, goes to the end of his region).
    """
    domain = oracle.domain_y
    for _ in range(LENGTHENED):
        t = LONGER * step.length
        trial = domain.project(y + t * p)
        move = trial - step.y
        if not bool(move.any()) or not dot(domain.level(step.y, step.gradient), move) < 0.0:
            return step
        f, g = oracle.value_grad_f(x, trial)
        if not f < step.f:
            return step
        step = Step(trial, f, g, t)
    return step
