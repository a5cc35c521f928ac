"""Newton's method on the lower level, by a factor that serves as long as its steps contract."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import PseudoInverse, conjugate_gradients, dot, norm
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.krylov import HALVED, STRIKES, calm_memory, downwards, on_face
from bilevelpy.numerics.lower.solve import LowerSolution, Step, armijo, descend, finish

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
    return _Newton(oracle, x, (y, f, g), curvature, tol, change, scale).run()


class _Newton:
    """Newton's steps from a point with its value and gradient.

    ``fresh`` says that the factor is that of the present point, ``last`` is the size of the latest
    step: 0 asks for a new factor, infinity says that there is none to compare with.
    """

    __slots__ = (
        "change", "curvature", "domain", "f", "first", "fresh", "g", "last", "least", "memory",
        "negative", "oracle", "patience", "poor", "scale", "started", "steep", "strikes", "tol",
        "x", "y",
    )  # fmt: skip

    def __init__(
        self,
        oracle: Oracle,
        x: Vec,
        start: tuple[Vec, float, Vec],
        curvature: DenseCurvature,
        tol: float,
        change: float,
        scale: float,
    ) -> None:
        self.oracle, self.domain, self.x, self.curvature = oracle, oracle.domain_y, x, curvature
        self.y, self.f, self.g = start
        self.tol, self.change, self.scale = tol, change, scale
        self.memory = calm_memory(oracle)
        # Chord steps are worth taking while they cost less than the Hessian that they save.
        self.patience = getattr(oracle, "hessian_price", 3.0 + oracle.m / 50)
        self.fresh = curvature.constant and curvature.H is not None
        self.last, self.first = math.inf, 0.0
        self.least = self.steep = norm(self.g)
        self.started = self.domain.projected_gradient_norm(self.y, self.g)
        self.poor = self.strikes = 0
        self.negative = False

    def run(self) -> LowerSolution:
        """Steps until one ends the solve."""
        self._begin()
        for iteration in range(STEPS):
            found = self._step(iteration)
            if found is not None:
                return found
        return self._finished(STEPS, "limit")

    def _begin(self) -> None:
        """A factor to begin with."""
        curvature, dear = self.curvature, self.patience >= DEAR
        if curvature.H is None and not (dear and curvature.borrow(self.oracle, self.x, self.y)):
            self._refresh()
        if not self.fresh and (self.patience < 1.0 or (dear and curvature.rent >= self.patience)):
            self._refresh()
        if not self.fresh:
            curvature.follow(self.oracle, self.x, self.y)

    def _step(self, iteration: int) -> LowerSolution | None:
        """One step; the solution where it is the last one."""
        curvature, domain = self.curvature, self.domain
        if not curvature.settle(domain.face(self.y, self.g)):
            return self._finished(iteration, "nonfinite")
        p = -curvature.solve(self.g)
        size = norm(p)
        goal = self._goal(size)
        trusted = self.fresh
        rough = curvature.lent is not None or curvature.negative
        if not self.fresh and (rough or _slow(self.last, size, goal, self.patience)):
            better = self._exact_step(goal, size)
            if better is None:
                return self._finished(iteration, "nonfinite")
            p, trusted = better, True
            size = norm(p)
        self.negative = curvature.negative
        if self.fresh and not curvature.constant and (self.negative or self.strikes >= STRIKES):
            calmer, self.strikes = self._downwards(), 0
            if calmer is not None:
                if calmer.ended in ("unbounded", "nonfinite"):
                    return self._finished(iteration + 1, calmer.ended)
                return None
        if size <= goal or size == 0.0:
            flat = _unanswered(curvature, self.g, p, self.steep)
            if flat is None or domain.longest_step(self.y, flat) < math.inf:
                return self._finished(iteration, "reached")
            # No curvature where f slopes: far away there may be some.
            p = flat * (FAR * max(self.scale, 1.0) / norm(flat))
            trusted, size = True, norm(p)
        search = descend if trusted else armijo
        step = search(self.oracle, self.x, self.y, self.f, self.g, p)
        if step is None:
            if self.fresh:
                return self._finished(iteration, "rounding")
            self._refresh()
            self.last = math.inf
            return None
        return self._taken(step, p, size, trusted, iteration + 1)

    def _goal(self, size: float) -> float:
        """The size of a step that is the last one, beside one of ``size``."""
        self.scale = max(self.scale, norm(self.y))
        self.first = self.first or size
        goal = self.tol * self.scale
        if self.change > 0.0:
            goal = max(min(goal, self.change * self.first), FINEST * self.scale)
        return goal

    def _exact_step(self, goal: float, size: float) -> Vec | None:
        """A step as good as one by the factor of the present point; None where it has none."""
        curvature = self.curvature
        cheaper = self.patience >= DEAR and curvature.rent < self.patience
        if cheaper and not curvature.negative:
            forcing = min(0.1, max(1e-3, 0.3 * goal / size))
            found = _corrected(self.oracle, self.x, self.y, self.g, curvature, forcing)
            if found is not None:
                return found
        self._refresh()
        if not curvature.settle(self.domain.face(self.y, self.g)):
            return None
        return -curvature.solve(self.g)

    def _downwards(self) -> LowerSolution | None:
        """Steps out of negative curvature, or where there is next to none."""
        calmer = downwards(self.oracle, self.x, self.y, self.f, self.g, self.memory)
        if calmer is not None:
            self.y, self.f, self.g = calmer.y, calmer.f, calmer.gradient
            if calmer.ended not in ("unbounded", "nonfinite"):
                self._refresh()
                self.last = math.inf
        return calmer

    def _taken(
        self, step: Step, p: Vec, size: float, trusted: bool, count: int
    ) -> LowerSolution | None:
        """Go where the step along ``p`` has led, unless that is the end."""
        still = trusted and abs(self.f - step.f) <= STILL * abs(self.f)
        small = self.fresh and size <= 1e-7 * self.scale
        worth = -dot(self.g, p)
        self.y, self.f, self.g = step.y, step.f, step.gradient
        if (still or small) and size >= 0.5 * self.last:
            return self._finished(count, "rounding")
        slope = norm(self.g)
        lost = slope > LOWER * self.least and worth <= WORTHLESS * abs(step.f)
        self.poor = self.poor + 1 if lost else 0
        slow = isinstance(self.curvature.factor, PseudoInverse) and slope > HALVED * self.least
        self.strikes = self.strikes + 1 if slow else 0
        self.least = min(self.least, slope)
        if self.poor >= WANDERING and trusted and self.domain.is_free:
            return self._finished(count, "rounding")
        # A shortened step says that the factor does not fit here.
        self.last = size if step.length == 1.0 else 0.0
        if not math.isfinite(slope) or self.f < -1e300 or norm(self.y) > 1e30:
            return self._finished(count, "unbounded")
        # The factor is now one step old; whether it still serves shows in the next step's size.
        self.fresh = self.curvature.constant
        return None

    def _refresh(self) -> None:
        """The factor of the present point."""
        self.curvature.refresh(self.oracle, self.x, self.y)
        self.fresh = True

    def _finished(self, iterations: int, ended: str) -> LowerSolution:
        curved = self.negative or self.memory.version > 0
        found = finish(self.domain, self.y, self.f, self.g, iterations, ended, self.negative)
        return replace(found, started=self.started, curved=curved)


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
