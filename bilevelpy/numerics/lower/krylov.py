"""Lower solvers for many variables: Newton-CG, L-BFGS and gradient descent, on any product set."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import conjugate_gradients, dot, norm
from bilevelpy.numerics.lower.preconditioner import PairPreconditioner
from bilevelpy.numerics.lower.solve import (
    LONGER,
    LowerSolution,
    descend,
    farther,
    finish,
    resolution,
)
from bilevelpy.numerics.quasi_newton import BFGS, InverseHessian

Vec = torch.Tensor
Operator = Callable[[Vec], Vec]

# Where f curves downwards, quasi-Newton steps go on until the gradient is this part of what it was,
# so many at most at a time. With 100 pairs they are a tenth of what they are with 20; fewer where
# these would take more than so many numbers.
CALMER, DETOUR = 1e-2, 2000
PAIRS, FEWEST, ENTRIES = 100, 20, 20_000_000
# So many Newton steps in turn that are shortened, or (where f has been seen to curve downwards)
# leave more than this part of the gradient, are as little worth as those that go downwards.
SHORTENED, HALVED, STRIKES = 0.5, 0.5, 3
# So many detours in turn that leave more than this part of the gradient, and of f all but this
# part, end at a kink (of `relu`): gradients beside it do not vanish. Where f has kinks and curves
# downwards, a detour that has not done better within a window of so many steps is at its end.
AT_KINK, STILL, KINKS, CRAWL = 0.1, 1e-3, 2, 200
# A value that has fallen by less than so many times itself at the end of the world falls to no
# infinity: a unit of a network has saturated.
FALLEN = 1e6
# Gradients that change by this part of themselves over a whole step, one that is more than this
# part of y, are those of a plane.
STRAIGHT, RESOLVED = 1e-12, 1e-6
# Steps that promise a fall of f by less than this part of what it resolves may lead nowhere.
UNSEEN = 0.1


def on_face(H: Operator, face: Face) -> Operator:
    """``v -> P (H + C) P v`` for v in the tangent space."""
    if face.is_whole:
        return H
    if face.is_curved:
        return lambda v: face.project(H(v) + face.bend(v))
    return lambda v: face.project(H(v))


def offered(oracle: Oracle, x: Vec, y: Vec) -> Operator | None:
    """The preconditioner that the oracle has at a point, if it has any."""
    make = getattr(oracle, "preconditioner", None)
    return None if make is None else make(x, y)


def newton_cg(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    *,
    tol: float,
    max_iter: int = 200,
    max_cg: int = 500,
    start: tuple[float, Vec] | None = None,
    shared: PairPreconditioner | None = None,
    preconditioner: Operator | None = None,
) -> LowerSolution:
    """Minimise f(x, .) by inexact Newton steps until the projected gradient norm is at most
    ``tol``.

    The inner accuracy follows the progress, ``min(0.3, sqrt(r/r0))``, and never exceeds what
    ``tol`` needs. Cost: one value and gradient and a few products per step.

    Parameters
    ----------
    start
        Value and gradient at y where they are known already.
    shared
        Preconditions the linear systems of free faces, and learns from them.
    preconditioner
        An approximate inverse of f_yy for those systems. Where neither is given, the oracle is
        asked for one at the start.
    """
    domain = oracle.domain_y
    oracle.counts.lower_solves += 1
    f, g = start if start is not None else oracle.value_grad_f(x, y)
    if not math.isfinite(f):
        return finish(domain, y, f, g, 0, "nonfinite")
    if shared is None and preconditioner is None:
        preconditioner = offered(oracle, x, y)
    first, negative, poor, best = 0.0, False, 0, math.inf
    strikes, kinks, memory = 0, 0, calm_memory(oracle)
    for iteration in range(max_iter):
        face = domain.face(y, g)
        rhs = -face.project(g)
        residual = domain.projected_gradient_norm(y, g)
        first = first or residual
        if residual <= tol:
            return finish(domain, y, f, g, iteration, "reached", negative)
        H = on_face(oracle.hvp(x, y), face)
        forcing = min(0.3, math.sqrt(residual / first))
        pairs = shared if face.is_whole else None
        solution = conjugate_gradients(
            H,
            rhs,
            tol=max(forcing * norm(rhs), 0.3 * tol),
            max_iter=max_cg,
            preconditioner=pairs or (preconditioner if face.is_whole else None),
            observe=pairs.observe if pairs is not None else None,
        )
        if pairs is not None:
            pairs.learn()
        negative = negative or solution.negative_curvature
        if solution.negative_curvature or strikes >= STRIKES:
            kinked = negative and getattr(oracle, "has_kinks", False)
            calmer = downwards(oracle, x, y, f, g, memory, tol, window=CRAWL if kinked else DETOUR)
            strikes = 0
            if calmer is not None:
                still = calmer.residual > AT_KINK * residual and f - calmer.f <= STILL * abs(f)
                stuck = calmer.ended != "reached" and still
                kinks = kinks + 1 if stuck else 0
                y, f, g = calmer.y, calmer.f, calmer.gradient
                if kinks >= KINKS:
                    return finish(domain, y, f, g, iteration + 1, "limit", negative)
                if calmer.ended in ("unbounded", "nonfinite"):
                    return finish(domain, y, f, g, iteration + 1, calmer.ended, negative)
                continue
        p = solution.u if bool(solution.u.any()) else rhs
        step = descend(oracle, x, y, f, g, p)
        if step is None:
            return finish(domain, y, f, g, iteration, "rounding", negative)
        if solution.negative_curvature and step.length == 1.0:
            step = farther(oracle, x, y, p, step)
        y, f, g = step.y, step.f, step.gradient
        if f < -1e300 or norm(y) > 1e30:
            return finish(domain, y, f, g, iteration + 1, "unbounded", negative)
        now = domain.projected_gradient_norm(y, g)
        best = min(best, residual)
        slow = step.length <= SHORTENED or (negative and now > HALVED * best)
        strikes = strikes + 1 if slow else 0
        unseen = abs(dot(rhs, p)) <= UNSEEN * resolution(oracle) * abs(f)
        poor = poor + 1 if now > 0.9 * best and unseen else 0
        if poor >= 3:
            return finish(domain, y, f, g, iteration + 1, "rounding", negative)
    return finish(domain, y, f, g, max_iter, "limit", negative)


def calm_memory(oracle: Oracle) -> BFGS:
    """The memory of a lower solve for :func:`downwards`."""
    return BFGS(0.0, max(FEWEST, min(PAIRS, ENTRIES // max(1, oracle.m))), rescale=True)


def downwards(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    f: float,
    g: Vec,
    memory: BFGS,
    tol: float = 0.0,
    window: int = DETOUR,
) -> LowerSolution | None:
    """From a point where f(x, .) curves downwards, by quasi-Newton steps to one with a gradient of
    1 % (or ``tol``), where Newton's steps may mean something again; None where bounds are in the
    way (steps along a slope end at them), or where there is no such step.

    A step by a Hessian that is not positive definite is a guess of no length: hundreds of them do
    what some tens of gradients do, and each costs as much. ``memory`` keeps its pairs from one
    detour of a solve to the next.
    """
    domain = oracle.domain_y
    if not domain.is_free:
        return None
    goal = max(tol, CALMER * norm(g))
    found = lbfgs(
        oracle, x, y, tol=goal, max_iter=DETOUR, start=(f, g), memory=memory, window=window
    )
    oracle.counts.lower_solves -= 1  # a part of one
    if found.ended == "unbounded" and found.f > f - FALLEN * max(1.0, abs(f)):
        return None
    return found if found.iterations and not found.f > f else None


def lbfgs(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    *,
    tol: float,
    max_iter: int = 2000,
    memory: InverseHessian | None = None,
    start: tuple[float, Vec] | None = None,
    window: int = 0,
) -> LowerSolution:
    """Minimise f(x, .) by (projected) quasi-Newton steps until the projected gradient norm is at
    most ``tol``, or, where ``window`` is given, until so many steps have brought next to nothing.

    ``memory`` may carry pairs of an earlier solve; without any the first step is a Cauchy step,
    whose length one Hessian product gives in any units. Cost: about one value and gradient per
    iteration.
    """
    domain = oracle.domain_y
    oracle.counts.lower_solves += 1
    f, g = start if start is not None else oracle.value_grad_f(x, y)
    if not math.isfinite(f):
        return finish(domain, y, f, g, 0, "nonfinite")
    memory = BFGS(0.0, 20, rescale=True) if memory is None else memory
    poor, best, since = 0, math.inf, (f, math.inf)
    for iteration in range(max_iter):
        residual = domain.projected_gradient_norm(y, g)
        if residual <= tol:
            return finish(domain, y, f, g, iteration, "reached")
        if window and iteration % window == 0:
            if residual > AT_KINK * since[1] and since[0] - f <= STILL * abs(f):
                return finish(domain, y, f, g, iteration, "limit")
            since = (f, residual)
        face = domain.face(y, g)
        q = face.project(g)
        if memory.scale == 0.0:
            bend = dot(q, oracle.hvp(x, y)(q))
            memory.scale = dot(q, q) / bend if bend > 0 else 1.0
        p = -face.project(memory.apply(q))
        if not dot(p, q) < 0:
            memory.reset()
            p = -memory.scale * q
        step = descend(oracle, x, y, f, g, p)
        if step is None:
            return finish(domain, y, f, g, iteration, "rounding")
        move, change = step.y - y, step.gradient - g
        is_plane = norm(change) <= STRAIGHT * residual and norm(move) > RESOLVED * norm(y)
        if is_plane and step.length == 1.0:
            memory.reset()  # a slope without curvature: no length is the right one
            memory.scale = LONGER * norm(move) / norm(q)
        elif not memory.update(move, change) and step.length == 1.0:
            memory.scale *= LONGER
        y, f, g = step.y, step.f, step.gradient
        if f < -1e300 or norm(y) > 1e30:
            return finish(domain, y, f, g, iteration + 1, "unbounded")
        # Near rounding the gradient wanders: give up after a while without a new low.
        poor = 0 if residual < 0.9 * best else poor + 1
        best = min(best, residual)
        if poor >= 30 and abs(dot(p, q)) <= UNSEEN * resolution(oracle) * abs(f):
            return finish(domain, y, f, g, iteration + 1, "rounding")
    return finish(domain, y, f, g, max_iter, "limit")


def gradient_descent(
    oracle: Oracle, x: Vec, y: Vec, *, step: float, iterations: int, tol: float = 0.0
) -> LowerSolution:
    """``y <- P(y - step grad_y f)``, at most ``iterations`` times: the lower loop of the papers,
    without safeguards.

    One gradient per step; the residual returned is that before the last step, and f is not
    evaluated.
    """
    domain = oracle.domain_y
    oracle.counts.lower_solves += 1
    g = torch.zeros_like(y)
    for k in range(iterations):
        g = oracle.grad_f(x, y)
        if tol > 0.0 and domain.projected_gradient_norm(y, g) <= tol:
            return finish(domain, y, math.nan, g, k, "reached")
        y = domain.project(y - step * g)
    return finish(domain, y, math.nan, g, iterations, "limit")
