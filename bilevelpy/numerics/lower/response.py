"""Phi(x) = F(x, y(x)) and its gradient at controlled accuracy: what the upper optimizer sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.solve import LowerSolution

Vec = torch.Tensor

# Ends of lower solves that leave no point.
NO_SOLUTION = ("nonfinite", "unbounded", "infeasible")
# So much finer at most a response is solved again at once, for a value that is to be compared.
LEAP = 1e-3
# A minimum is another, lower one where f is lower by this part of itself.
BELOW = 1e-6
# Accuracies where the lower level curves downwards on the way to its minima.
SETTLED, FOLLOWED = 1e-6, 1e-2
# In the place of a method, for values that have lower and adjoint solves of their own.
NO_METHOD: Any = None


@dataclass(slots=True)
class Accuracy:
    """How well lower level and adjoint are solved.

    ``level`` is relative to the scale of the run (the largest lower residual and right-hand side
    seen); ``change`` relative to what the latest move of x has changed, so that no move is too
    small to be answered. The level falls with the stationarity reached (F. Pedregosa, ICML 2016)
    and never below ``floor``.
    """

    level: float = 1e-3
    change: float = 1e-2
    floor: float = 1e-9

    def follow(self, stationarity: float, decay: float = 0.9) -> None:
        """Tie the level to the stationarity of the current point."""
        self.level = max(self.floor, min(self.level * decay, 0.1 * stationarity))

    def tighten(self, factor: float = 0.1) -> bool:
        """Ask for more; False where there is no more to ask for."""
        if self.level <= self.floor and self.change <= 1e-4:
            return False
        self.level = max(self.floor, self.level * factor)
        self.change = max(1e-4, self.change * factor)
        return True


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the upper problem. ``value`` estimates Phi(x); the gradient is None until it is
    asked for, and ``level`` is the accuracy of the solves that it is made of.
    """

    x: Vec
    lower: LowerSolution
    F: float
    value: float
    gF_x: Vec
    gF_y: Vec
    adjoint: Adjoint | None = None
    gradient: Vec | None = None
    level: float = 0.0

    @property
    def y(self) -> Vec:
        """The lower solution."""
        return self.lower.y

    @property
    def g(self) -> Vec:
        """The hypergradient, which must have been computed."""
        assert self.gradient is not None
        return self.gradient

    @property
    def size(self) -> float:
        """Size of the parts that the hypergradient is the difference of."""
        return norm(self.gF_x) + (norm(self.adjoint.cross) if self.adjoint is not None else 0.0)

    def moving_size(self, projected: Vec) -> float:
        """The same of the entries that no bound holds, by the projected hypergradient."""
        held = (projected == 0.0) & (self.g != 0.0)
        parts = [self.gF_x] if self.adjoint is None else [self.gF_x, self.adjoint.cross]
        return sum(norm(part.masked_fill(held, 0.0)) for part in parts)


class Method(Protocol):
    """Solves the lower level and the adjoint system; may keep what both have a use for."""

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The response to x from y, and the residual at the start; ``scale`` is the size of
        residuals in the run.
        """
        ...

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """The adjoint at a point; ``u0`` is the one of the point before."""
        ...


class NewtonStep(Protocol):
    """Newton's step for Phi."""

    def step(
        self, point: Point, g: np.ndarray[Any, Any], free: np.ndarray[Any, Any] | None
    ) -> np.ndarray[Any, Any] | None:
        """``Phi''^-1 g`` on the free variables (None: all) at a point; None where it has none."""
        ...

    def reset(self) -> None:
        """The step led nowhere."""
        ...

    def collect(self, trial: Callable[[], Point]) -> None:
        """A point of a search that was too high, with its hypergradient for who wants it."""
        ...


@dataclass(slots=True)
class Response:
    """Evaluates Phi and dPhi/dx by a method.

    The value is corrected to second order in the lower residual, ``F(x, y) - u' f_y`` with the
    newest adjoint u: line searches stay valid at loose lower accuracy. ``newton``
    makes its step where Phi is quadratic; ``guesses`` says that solves take less from a guess of y.

    Where the lower level is seen to curve downwards (``curved``), a small gradient may be that of a
    slope far from any minimum, and there is no adjoint: it is solved to where that is over from
    then on, and followed from the minimum that is known.
    """

    oracle: Oracle
    method: Method
    accuracy: Accuracy = field(default_factory=Accuracy)
    scale: float = 0.0
    first: float = 0.0
    correct: bool = True
    guesses: bool = True
    newton: NewtonStep | None = None
    curved: bool = False

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """Phi at x from the start y; the error is kept below a fraction of the ``expected`` change
        of Phi.
        """
        u = near.adjoint.u if near is not None and near.adjoint is not None else None
        accuracy = self.accuracy
        if self.curved and near is not None and y is not near.y:
            # Between two valleys there is a hill.
            y = y if self.oracle.f(x, y) < self.oracle.f(x, near.y) else near.y
        loose: tuple[float, float] | None = None
        while True:
            lower, start = self.method.solve_lower(self.oracle, x, y, accuracy, self.scale)
            self._note(start)
            bent = lower.negative_curvature or lower.curved
            if bent and not self.curved and lower.usable:
                self.curved, loose = True, (self.accuracy.level, self.accuracy.change)
                self.accuracy.level = max(self.accuracy.floor, min(self.accuracy.level, SETTLED))
                self.accuracy.change = min(self.accuracy.change, FOLLOWED)
                accuracy, y = replace(self.accuracy, change=1.0), lower.y
                continue
            if loose is not None and not lower.usable:
                self.accuracy.level, self.accuracy.change = loose  # a minimum at a kink
            F, gF_x, gF_y = self.oracle.value_grad_F(x, lower.y)
            correction = (
                dot(u, lower.face.project(lower.gradient))
                if u is not None and self.correct
                else 0.0
            )
            # What is left after the correction is of second order in the residual.
            if not abs(correction) > expected > 0.0 or lower.ended != "reached":
                break
            if accuracy.level <= accuracy.floor:
                break
            # x has not moved since this solve: only the level counts now.
            factor = min(0.1, max(LEAP, 0.1 * expected / abs(correction)))
            level = max(accuracy.floor, factor * accuracy.level)
            accuracy = replace(accuracy, level=level, change=1.0)
            y = lower.y
        return Point(x, lower, F, F - correction, gF_x, gF_y)

    def _note(self, start: float) -> None:
        """Let the scale grow, but not with the far trials of a line search."""
        if math.isfinite(start):
            limit = 10.0 * self.first if self.first > 0.0 else start
            self.first = self.first or start
            self.scale = max(self.scale, min(start, limit))

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """The same point with adjoint and hypergradient."""
        u0 = near.adjoint.u if near is not None and near.adjoint is not None else None
        adjoint = self.method.solve_adjoint(self.oracle, point, u0, self.accuracy)
        p, value = point, point.F
        if self.correct:
            value -= dot(adjoint.u, p.lower.face.project(p.lower.gradient))
        g = p.gF_x - adjoint.cross
        return Point(p.x, p.lower, p.F, value, p.gF_x, p.gF_y, adjoint, g, self.accuracy.level)

    def again(self, point: Point) -> Point:
        """The same x at the present level. Nothing has moved, so there is no change to follow."""
        change, self.accuracy.change = self.accuracy.change, 1.0
        new = self.evaluate(point.x, point, point.y)
        if self.finite(new):
            new = self.differentiate(new, point)
        self.accuracy.change = change
        return new

    def lower_from(self, point: Point, y: Vec) -> LowerSolution | None:
        """The minimum of f(x, .) that is reached from y, if f is lower there than at the point."""
        accuracy = replace(self.accuracy, change=1.0)
        lower, _ = self.method.solve_lower(self.oracle, point.x, y, accuracy, self.scale)
        return lower if lower.usable and self.is_below(lower, point) else None

    def is_below(self, lower: LowerSolution, point: Point) -> bool:
        """Whether a minimum is lower than that of a point with the same x, and not the same one."""
        return lower.f < point.lower.f - BELOW * abs(point.lower.f)

    def better(self, point: Point, y: Vec) -> Point | None:
        """The same as a point with its hypergradient."""
        lower = self.lower_from(point, y)
        if lower is None:
            return None
        F, gF_x, gF_y = self.oracle.value_grad_F(point.x, lower.y)
        new = Point(point.x, lower, F, F, gF_x, gF_y)
        return self.differentiate(new, None) if self.finite(new) else None

    def polish(self, point: Point) -> Point:
        """The point with its lower level solved beyond the floor of the accuracy; same adjoint."""
        keep, floor = self.accuracy, 1e-2 * self.accuracy.floor
        if point.lower.ended == "reached" and point.lower.residual <= floor * self.scale:
            return point
        self.accuracy = Accuracy(floor, 1.0, floor)
        new = self.evaluate(point.x, point, point.y)
        self.accuracy = keep
        if not self.finite(new) or point.adjoint is None:
            return point
        return replace(new, adjoint=point.adjoint, gradient=new.gF_x - point.adjoint.cross)

    def finite(self, point: Point) -> bool:
        """Whether the lower solve and the value are usable numbers."""
        return math.isfinite(point.value) and point.lower.ended not in NO_SOLUTION
