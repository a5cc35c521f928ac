"""The method of multipliers: lower problems with smooth constraints, by gradients alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch

from bilevelpy.errors import BackendError
from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.krylov import lbfgs
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.quasi_newton import BFGS
from bilevelpy.numerics.upper.lipschitz import power_iteration

Vec = torch.Tensor

# Updates of the multipliers, and steps of the inner solver for each, at most.
ROUNDS, INNER = 40, 2000
# Rounds without progress after which the digits there are have been reached.
IDLE = 3
# The penalty on normalised rows begins at this multiple of the curvature of the objective.
FIRST = 10.0
# A round that leaves more than this fraction of the violation raises the penalty.
FALL, RAISE = 0.25, 5.0
LARGEST = 1e10
# Up to so many rows their norms are computed one by one, beyond by random products.
ONE_BY_ONE, PROBES = 64, 16
# A violation above this fraction of the size of y after the last round: nothing is feasible.
INFEASIBLE = 1e-5


class ConstraintRows(Protocol):
    """``c(x, y)``, entries ``<= 0`` or, where ``equality``, ``== 0``."""

    size: int
    equality: Vec

    def values(self, x: Vec, y: Vec) -> Vec:
        """The rows at a point."""
        ...

    def vjp(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``u -> (c_x' u, c_y' u)``."""
        ...

    def jvp(self, x: Vec, y: Vec) -> Callable[[Vec, Vec], Vec]:
        """``(dx, dy) -> c_x dx + c_y dy``."""
        ...


class ConstrainedOracle(Oracle, Protocol):
    """An oracle that knows the constraints of the lower level."""

    g: ConstraintRows


class Objective(Protocol):
    """What is minimised over y."""

    domain_y: ProductSet
    counts: Counts
    m: int

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and gradient in y."""
        ...

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """Gradient in y."""
        ...


class Scaled:
    """Constraints divided by the norms of their gradients in y at a point: rows of length one.

    Raises
    ------
    BackendError
        Where there are none: a method for rows was forced on a model that has none.
    """

    def __init__(self, rows: ConstraintRows, x: Vec, y: Vec, rng: torch.Generator) -> None:
        if not rows.size:
            raise BackendError(
                "the method is for constraints of followers, and the model has none but bounds: "
                "choose another one, `bilevelpy explain` lists them"
            )
        self.rows, self.size, self.equality = rows, rows.size, rows.equality
        self.weights = 1.0 / _row_norms(rows, x, y, rng)

    def values(self, x: Vec, y: Vec) -> Vec:
        """The scaled rows."""
        return self.weights * self.rows.values(x, y)

    def vjp(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``u -> (c_x' u, c_y' u)`` of the scaled rows."""
        product = self.rows.vjp(x, y)
        return lambda u: product(self.weights * u)

    def jvp(self, x: Vec, y: Vec) -> Callable[[Vec, Vec], Vec]:
        """``(dx, dy) -> c_x dx + c_y dy`` of the scaled rows."""
        product = self.rows.jvp(x, y)
        return lambda dx, dy: self.weights * product(dx, dy)

    def project(self, multipliers: Vec) -> Vec:
        """Multipliers of inequalities are nonnegative, those of equations free."""
        return torch.where(self.equality, multipliers, multipliers.clamp(min=0.0))

    def shortfall(self, values: Vec, multipliers: Vec, penalty: float) -> float:
        """Violation and complementarity in one norm: 0 exactly where both hold."""
        slack = torch.maximum(values, -multipliers / penalty)
        return norm(torch.where(self.equality, values, slack))


def _row_norms(rows: ConstraintRows, x: Vec, y: Vec, rng: torch.Generator) -> Vec:
    """Norms of the rows of c_y, estimated by random signs where they are many; 1 for rows of 0."""
    if rows.size <= ONE_BY_ONE:
        product = rows.vjp(x, y)
        eye = torch.eye(rows.size, dtype=torch.float64)
        found = torch.stack([torch.linalg.vector_norm(product(e)[1]) for e in eye])
    else:
        along, still = rows.jvp(x, y), torch.zeros_like(x)
        total = torch.zeros(rows.size, dtype=torch.float64)
        for _ in range(PROBES):
            signs = 2.0 * torch.randint(0, 2, (y.numel(),), generator=rng).to(torch.float64) - 1.0
            total += along(still, signs) ** 2
        found = (total / PROBES).sqrt()
    return torch.where(found > 0, found, torch.ones_like(found))


class Augmented:
    """``f + sum (P(lam + rho c)^2 - lam^2) / (2 rho)`` as an objective over y."""

    def __init__(self, f: Objective, rows: Scaled, multipliers: Vec, penalty: float) -> None:
        self.objective, self.rows = f, rows
        self.multipliers, self.penalty = multipliers, penalty
        self.domain_y, self.counts, self.m = f.domain_y, f.counts, f.m

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """Value and gradient in y."""
        f, g = self.objective.value_grad_f(x, y)
        new = self.rows.project(self.multipliers + self.penalty * self.rows.values(x, y))
        more = float(new @ new - self.multipliers @ self.multipliers) / (2.0 * self.penalty)
        return f + more, g + self.rows.vjp(x, y)(new)[1]

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """Gradient in y."""
        new = self.rows.project(self.multipliers + self.penalty * self.rows.values(x, y))
        return self.objective.grad_f(x, y) + self.rows.vjp(x, y)(new)[1]


@dataclass(slots=True)
class MultiplierMethod:
    """One problem with what it remembers: minimiser, multipliers, penalty and curvature pairs.

    With ``c`` scaled to rows of length one in y (dual ascent on the augmented Lagrangian)::

        y <- argmin f(x, y) + |P(lam + rho c(x, y))|^2 / (2 rho),   lam <- P(lam + rho c(x, y))

    P keeps multipliers of inequalities nonnegative. rho grows where a round leaves more than a
    quarter of the violation. For strongly convex f a round multiplies the error of lam by about
    ``L / (L + rho)``.
    """

    rows: Scaled
    y: Vec
    rng: torch.Generator
    multipliers: Vec
    penalty: float = 0.0
    scale: float = 0.0
    memory: BFGS = field(default_factory=lambda: BFGS(0.0, 20, rescale=True))

    def solve(self, objective: Objective, x: Vec, level: float) -> LowerSolution:
        """Minimise until stationarity is ``level`` of the largest gradient seen, and the violation
        ``level`` of the size of y.

        The gradient of the solution is that of the Lagrangian; it ends as "nonfinite" where the
        constraints cannot be met.
        """
        f, g = objective.value_grad_f(x, self.y)
        if not math.isfinite(f):
            return finish(objective.domain_y, self.y, f, g, 0, "nonfinite")
        if not self.penalty:
            top = power_iteration(lambda z: objective.grad_f(x, z), self.y, self.rng)
            self.penalty = FIRST * (top or norm(g) / max(norm(self.y), 1.0) or 1.0)
        size = max(norm(self.y), 1e-3 * self._far(x), 1e-300)
        last, best, idle, done, found = math.inf, math.inf, 0, 0, None
        for k in range(ROUNDS):
            before = self.multipliers
            problem = Augmented(objective, self.rows, before, self.penalty)
            start = problem.value_grad_f(x, self.y)
            if self.memory.scale == 0.0:
                self.memory.scale = self._step(problem, x)
            residual = objective.domain_y.projected_gradient_norm(self.y, start[1])
            self.scale = max(self.scale, norm(g), residual if k == 0 else 0.0)
            loose = max(level, min(1e-2, 0.1 * last / size)) if math.isfinite(last) else 1e-2
            found = lbfgs(
                cast(Oracle, problem),
                x,
                self.y,
                tol=loose * self.scale,
                max_iter=INNER,
                memory=self.memory,
                start=start,
            )
            done += found.iterations
            if not math.isfinite(found.f) or found.ended == "unbounded":
                return finish(
                    objective.domain_y, found.y, found.f, found.gradient, done, found.ended
                )
            self.y = found.y
            size = max(size, norm(self.y))
            values = self.rows.values(x, self.y)
            short = self.rows.shortfall(values, before, self.penalty)
            self.multipliers = self.rows.project(before + self.penalty * values)
            tight = loose <= level or not found.usable
            if short <= level * size and tight:
                break
            idle = 0 if short < FALL * best else idle + 1
            best = min(best, short)
            if (idle >= IDLE and not found.usable) or idle >= 2 * IDLE:
                break
            if short > FALL * last and self.penalty < LARGEST:
                self.penalty *= RAISE
                self.memory.reset()
            last = short
        assert found is not None
        violated = self.rows.shortfall(self.rows.values(x, self.y), 0 * before, 1.0)
        f = objective.value_grad_f(x, self.y)[0]
        ended = "reached" if short <= level * size else "limit"
        if violated > INFEASIBLE * size and ended == "limit":
            self._restart()
            return finish(objective.domain_y, found.y, math.nan, found.gradient, done, "nonfinite")
        return finish(objective.domain_y, self.y, f, found.gradient, done, ended)

    @property
    def prices(self) -> Vec:
        """The multipliers of the rows as the model has them."""
        return self.rows.weights * self.multipliers

    def _step(self, problem: Objective, x: Vec) -> float:
        """A first length of quasi-Newton steps."""
        top = power_iteration(lambda z: problem.grad_f(x, z), self.y, self.rng)
        return 1.0 / top if top > 0 else 1.0

    def _far(self, x: Vec) -> float:
        """A size for y that is zero: how far off the constraints are there."""
        return norm(self.rows.values(x, torch.zeros_like(self.y)))

    def _restart(self) -> None:
        """Forget what an infeasible problem has driven to infinity."""
        self.multipliers = torch.zeros_like(self.multipliers)
        self.penalty, self.memory = 0.0, BFGS(0.0, 20, rescale=True)
