"""Newton's method on the lower level, by a factor that serves as long as its steps contract."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import PseudoInverse, conjugate_gradients, dot, norm
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.krylov import HALVED, STRIKES, calm_memory, downwards, on_face
from bilevelpy.numerics.lower.solve import LowerSolution, armijo, descend, finish
from bilevelpy.numerics.quasi_newton import BFGS

Vec = torch.Tensor

# A Hessian that costs so many gradients is replaced by products preconditioned with an old factor,
# at most so many for a step; so many a fresh factor would take too.
DEAR, MOST, FRESH = 12.0, 30, 2
# Newton steps at most.
STEPS = 100
# Newton steps below this fraction of y are rounding.
FINEST = 1e-12
# A change of f below this fraction of it is rounding; steps not halved with it lead nowhere.
STILL = 1e-15
# Where f has next to no curvature (idle units of a network), steps wander: each is worth less
# than this fraction of f, and so many in turn leave the gradient at this part of the least one.
WORTHLESS, WANDERING, LOWER = 1e-10, 4, 0.5
# A slope without curvature counts from this part of the gradient on; steps along it are so many
# times as long as y.
SLOPING, FAR = 1e-6, 10.0


def newton(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    curvature: DenseCurvature,
    *,
    tol: float = 1e-10,
    change: float = 0.0,
    scale: float = 0.0,
) -> LowerSolution:
    """Minimise f(x, .) by (projected) Newton steps until the next step is below ``tol`` relative
    to y.

    A factor from an earlier point serves as long as its steps contract well (chord steps: one
    gradient each); the first such step from a warm start is the predictor ``y + (dy/dx) dx``.
    Otherwise the Hessian is evaluated anew.

    Parameters
    ----------
    tol
        Largest Newton step, relative to ``max(|y|, scale)``, at which y counts as solved.
    change
        Where given, the step must also be below this fraction of the first one: what the latest
        move of x has changed is then known to that accuracy (but steps of 1e-12 are always enough).
    scale
        A size that y is known to have, for responses that pass through 0.
    """
    domain = oracle.domain_y
    oracle.counts.lower_solves += 1
    f, g = oracle.value_grad_f(x, y)
    if not math.isfinite(f):
        return finish(domain, y, f, g, 0, "nonfinite")
    started = domain.projected_gradient_norm(y, g)
    memory = calm_memory(oracle)
    found = _iterate(oracle, x, (y, f, g), curvature, memory, tol, change, scale)
    curved = found.negative_curvature or memory.version > 0
    return replace(found, started=started, curved=curved)


def _iterate(
    oracle: Oracle,
    x: Vec,
    start: tuple[Vec, float, Vec],
    curvature: DenseCurvature,
    memory: BFGS,
    tol: float,
    change: float,
    scale: float,
) -> LowerSolution:
    """Newton's steps from a point with its value and gradient."""
    domain = oracle.domain_y
    y, f, g = start
    fresh = curvature.constant and curvature.H is not None
    # Chord steps are worth taking while they cost less than the Hessian that they save.
    patience = getattr(oracle, "hessian_price", 3.0 + oracle.m / 50)
    if curvature.H is None and not (patience >= DEAR and curvature.borrow(oracle, x, y)):
        curvature.refresh(oracle, x, y)
        fresh = True
    if not fresh and (patience < 1.0 or (patience >= DEAR and curvature.rent >= patience)):
        curvature.refresh(oracle, x, y)
        fresh = True
    if not fresh:
        curvature.follow(oracle, x, y)
    last = math.inf
    first = 0.0
    steep = norm(g)
    least, poor, strikes = steep, 0, 0
    negative = False
    for iteration in range(STEPS):
        if not curvature.settle(domain.face(y, g)):
            return finish(domain, y, f, g, iteration, "nonfinite")
        p = -curvature.solve(g)
        size = norm(p)
        scale = max(scale, norm(y))
        first = first or size
        goal = tol * scale
        if change > 0.0:
            goal = max(min(goal, change * first), FINEST * scale)
        trusted = fresh
        rough = curvature.lent is not None or curvature.negative
        if not fresh and (rough or _slow(last, size, goal, patience)):
            corrected = None
            if patience >= DEAR and curvature.rent < patience and not curvature.negative:
                forcing = min(0.1, max(1e-3, 0.3 * goal / size))
                corrected = _corrected(oracle, x, y, g, curvature, forcing)
            if corrected is not None:
                p = corrected
            else:
                curvature.refresh(oracle, x, y)
                if not curvature.settle(domain.face(y, g)):
                    return finish(domain, y, f, g, iteration, "nonfinite")
                fresh = True
                p = -curvature.solve(g)
            trusted, size = True, norm(p)
        negative = curvature.negative
        if fresh and not curvature.constant and (negative or strikes >= STRIKES):
            calmer, strikes = downwards(oracle, x, y, f, g, memory), 0
            if calmer is not None:
                y, f, g = calmer.y, calmer.f, calmer.gradient
                if calmer.ended in ("unbounded", "nonfinite"):
                    return finish(domain, y, f, g, iteration + 1, calmer.ended, negative)
                curvature.refresh(oracle, x, y)
                last = math.inf
                continue
        if size <= goal or size == 0.0:
            flat = _unanswered(curvature, g, p, steep)
            if flat is None or domain.longest_step(y, flat) < math.inf:
                return finish(domain, y, f, g, iteration, "reached", negative)
            # No curvature where f slopes: far away there may be some.
            p = flat * (FAR * max(scale, 1.0) / norm(flat))
            trusted, size = True, norm(p)
        step = descend(oracle, x, y, f, g, p) if trusted else armijo(oracle, x, y, f, g, p)
        if step is None and not fresh:
            curvature.refresh(oracle, x, y)
            fresh, last = True, math.inf
            continue
        if step is None:
            return finish(domain, y, f, g, iteration, "rounding", negative)
        still = trusted and abs(f - step.f) <= STILL * abs(f)
        if (still or (fresh and size <= 1e-7 * scale)) and size >= 0.5 * last:
            return finish(
                domain, step.y, step.f, step.gradient, iteration + 1, "rounding", negative
            )
        worth = -dot(g, p)
        y, f, g = step.y, step.f, step.gradient
        slope = norm(g)
        poor = poor + 1 if slope > LOWER * least and worth <= WORTHLESS * abs(f) else 0
        slow = isinstance(curvature.factor, PseudoInverse) and slope > HALVED * least
        strikes = strikes + 1 if slow else 0
        least = min(least, slope)
        if poor >= WANDERING and trusted and domain.is_free:
            return finish(domain, y, f, g, iteration + 1, "rounding", negative)
        # A shortened step says that the factor does not fit here: 0 asks for a new one.
        last = size if step.length == 1.0 else 0.0
        if not math.isfinite(slope) or f < -1e300 or norm(y) > 1e30:
            return finish(domain, y, f, g, iteration + 1, "unbounded", negative)
        # The factor is now one step old; whether it still serves shows in the next step's size.
        fresh = curvature.constant
    return finish(domain, y, f, g, STEPS, "limit", negative)


def _corrected(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    g: Vec,
    curvature: DenseCurvature,
    forcing: float,
) -> Vec | None:
    """A Newton step at y by conjugate gradients with an old factor as their preconditioner: a few
    products where a new matrix would cost many. None where they do not suffice.
    """
    face = oracle.domain_y.face(y, g)
    rhs = -face.project(g)
    found = conjugate_gradients(
        on_face(oracle.hvp(x, y), face),
        rhs,
        tol=forcing * norm(rhs),
        max_iter=MOST,
        preconditioner=curvature.solve,
    )
    curvature.rent += max(0, found.products - FRESH)
    return found.u if found.converged else None


def _unanswered(curvature: DenseCurvature, g: Vec, p: Vec, steep: float) -> Vec | None:
    """The descent that a step by a spectral inverse leaves out, since f has no curvature along it;
    None where that is rounding of gradients as ``steep`` as at the start.
    """
    H, face = curvature.H, curvature.face
    if not isinstance(curvature.factor, PseudoInverse) or H is None or face is None:
        return None
    left = -face.project(g + H @ p)
    return left if norm(left) > SLOPING * max(steep, norm(g)) else None


def _slow(last: float, size: float, goal: float, patience: float) -> bool:
    """Whether chord steps would need more than ``patience`` further iterations to reach
    ``goal``.
    """
    if last == math.inf or size <= goal:
        return False
    if last == 0.0:
        return True
    ratio = size / last
    return ratio >= 0.5 or math.log(goal / size if goal > 0 else 1e-16) / math.log(ratio) > patience
