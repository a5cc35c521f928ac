"""``aid``: approximate implicit differentiation by products, with the linear solvers of its
family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_implicit, warn_implicit, with_one_level
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.base import Implicit
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.errors import UsageError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import (
    LinearSolution,
    Operator,
    fixed_point,
    neumann,
    norm,
    normal_equations,
    richardson,
)
from bilevelpy.numerics.lower.dense_preconditioner import DensePreconditioner
from bilevelpy.numerics.lower.hypergradient import Adjoint, krylov_adjoint
from bilevelpy.numerics.lower.krylov import gradient_descent, lbfgs, newton_cg, offered, on_face
from bilevelpy.numerics.lower.preconditioner import PairPreconditioner
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.quasi_newton import BFGS
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.optimizer import UpperState, advance
from bilevelpy.numerics.upper.shares import share_pairs
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

VARIANTS = ("cg", "hoag", "fixed-point", "neumann", "amigo-gd", "normal", "shine", "identity")
LOWER = ("newton-cg", "lbfgs", "gd")
UPPER = ("lbfgs", "gd")
# Pairs of an L-BFGS lower solve that SHINE shares with the adjoint.
SHARED = 30
# Products that "until the tolerance" may take.
MOST = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class AIDOptions(BackendOptions):
    """Options of ``aid``.

    ``variant``: cg (warm started; AID-BiO, AmIGO-CG), hoag (the same with tolerances 1e-3 *
    0.78^k), fixed-point, neumann, amigo-gd, normal (least squares), shine (u by the
    inverse that the pairs of an L-BFGS lower solve approximate: biased), identity (u = s dF/dy:
    biased). ``lower``: newton-cg, lbfgs or gd. ``upper``: lbfgs with a line search, or gd with
    ``upper_step``. ``lower_steps``/``adjoint_steps``: fixed numbers T and Q; 0: as many as the
    tied tolerances ask for. ``lower_step``: step length of gd and of the stationary solvers; 0:
    ``2 / (L + mu)`` estimated at the start. ``warm``: start adjoints from the one before.
    """

    variant: str = "cg"
    lower: str = "newton-cg"
    upper: str = "lbfgs"
    lower_steps: int = 0
    adjoint_steps: int = 0
    lower_step: float = 0.0
    upper_step: float = 0.0
    warm: bool = True

    def __post_init__(self) -> None:
        check_choices(self, "aid", variant=VARIANTS, lower=LOWER, upper=UPPER)
        if self.variant == "shine" and self.lower != "lbfgs":
            raise UsageError("aid.variant=shine shares the pairs of aid.lower=lbfgs: set both")
        check_range(self, "aid", 0, 10**6, "lower_steps", "adjoint_steps")
        check_range(self, "aid", 0.0, math.inf, "lower_step", "upper_step")


class AID(Implicit):
    """Approximate implicit differentiation [Ji2021]_ [Arbel2022]_ [Pedregosa2016]_
    [Ramzi2022]_.

    The lower level is solved from the last response, the adjoint system ``H u = dF/dy`` by
    products from the last u, both to accuracies that follow the progress of the upper level::

        dPhi/dx = dF/dx - f_xy u,   |f_y| and |H u - dF/dy| <= eps_k,   eps_k <= min(0.1 |h_{k-1}|,
        1e-3 * 0.9^k)

    Cost per upper step: a few lower gradients, one product per conjugate-gradient iteration in
    both solves, one cross product. Stationary iterations take about kappa products where conjugate
    gradients take sqrt(kappa).
    """

    name: ClassVar[str] = "aid"
    title: ClassVar[str] = "Implicit differentiation with warm-started conjugate gradients"
    reference: ClassVar[str] = "Arbel2022"
    options: ClassVar[type[BackendOptions]] = AIDOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over free, box, simplex or ball variables, of any
        size; or a convex one with weighted absolute values. One of the minimisers of a smooth lower
        level that is not known to be convex. No lower level at all, where functions are `extern`.
        """
        refusal = refuse_implicit(with_one_level(structure))
        if refusal is not None:
            return refusal
        return Accept("conjugate gradients on products, warm started", warn_implicit(structure))

    def cost(self, structure: Structure) -> Cost:
        """Conjugate gradients take about sqrt(kappa) products per digit."""
        kappa = structure.likely_condition
        steps = min(math.sqrt(kappa), float(max(structure.dim_y, 1)))
        return Cost(
            gradients=3.0,
            products=3.0 * steps,
            flops=20.0 * structure.dim_y,
            memory=80.0 * structure.dim_y,
        )

    def response(self, oracle: Oracle, options: AIDOptions) -> Response:
        """The chosen lower method and linear solver."""
        steps = StepLength(options.lower_step)
        fixed = bool(options.lower_steps or options.adjoint_steps)
        accuracy = Accuracy(level=1e-2, change=1e-1, floor=min(1e-3 * options.tol, 1e-6))
        pairs = None if fixed or options.upper == "gd" else share_pairs(oracle)
        method = AIDMethod(options, steps)
        return Response(oracle, method, accuracy, correct=not fixed, newton=pairs)

    def step(self, oracle: Oracle, state: UpperState, options: AIDOptions) -> UpperState:
        """A step of the optimizer, or of plain gradient descent."""
        return gradient_step(state, options.upper_step) if options.upper == "gd" else advance(state)


@dataclass(slots=True)
class StepLength:
    """``2 / (L + mu)`` of f_yy where it is first asked for, unless given."""

    given: float = 0.0
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    pairs: PairPreconditioner = field(default_factory=PairPreconditioner)
    inverse: DensePreconditioner = field(default_factory=DensePreconditioner)
    memory: BFGS = field(default_factory=lambda: BFGS(1.0))
    known: Operator | None = None

    def prepare(self, oracle: Oracle, x: Vec, y: Vec) -> PairPreconditioner | None:
        """The preconditioner that f's form gives at a point goes into ``known``; where it gives
        none, a dense inverse that has paid, and until then pairs of earlier runs.
        """
        self.known = offered(oracle, x, y)
        if self.known is None and self.inverse.matrix is not None:
            self.known = self.inverse
        return self.pairs if self.known is None else None

    def renew(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """At a response, a dense inverse in the place of pairs or of an older one."""
        if self.known is None or self.known is self.inverse:
            self.inverse.settle(oracle, x, y)
            self.known = None if self.inverse.matrix is None else self.inverse

    def at(self, oracle: Oracle, x: Vec, y: Vec, *, renew: bool = False) -> float:
        """The step length."""
        if not self.given or renew:
            mu, top = extreme_eigenvalues(oracle.hvp(x, y), oracle.m, self.rng)
            self.given = 2.0 / (1.05 * top + max(mu, 0.0)) if top > 0 else 1.0
        return self.given


def identity(r: Vec) -> Vec:
    """No preconditioner: fixed numbers of products are those of the plain method."""
    return r


def tied(start: float, scale: float, accuracy: Accuracy) -> float:
    """Lower residual to reach: a level on the scale of the run, and a fraction of what the move of
    x caused.
    """
    largest = max(start, scale)
    if not math.isfinite(largest):
        return 0.0
    return max(min(accuracy.level * largest, accuracy.change * start), 1e-15 * largest)


@dataclass(slots=True)
class AIDMethod:
    """The lower level by Newton-CG, L-BFGS or gradient descent, to a tied tolerance or for T steps;
    the linear solver of the variant, to a tied tolerance or for Q products.
    """

    options: AIDOptions
    steps: StepLength
    solves: int = 0

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The response, and the residual at the start."""
        o = self.options
        if o.lower == "gd" and o.lower_steps:
            found = gradient_descent(
                oracle, x, y, step=self.steps.at(oracle, x, y), iterations=o.lower_steps
            )
            return found, found.residual
        f, g = oracle.value_grad_f(x, y)
        start = oracle.domain_y.projected_gradient_norm(y, g)
        tol = tied(start, scale, accuracy)
        limit = o.lower_steps or (200 if o.lower == "newton-cg" else 5000)
        if o.lower == "newton-cg":
            shared = self.steps.prepare(oracle, x, y)
            products = oracle.counts.hvp
            found = newton_cg(
                oracle,
                x,
                y,
                tol=tol,
                max_iter=limit,
                start=(f, g),
                shared=shared,
                preconditioner=self.steps.known,
            )
            self.steps.inverse.rent += oracle.counts.hvp - products
            return found, start
        if o.lower == "lbfgs":
            memory = self.steps.memory = BFGS(0.0, SHARED, rescale=True)
            found = lbfgs(oracle, x, y, tol=tol, max_iter=limit, start=(f, g), memory=memory)
            return found, start
        step = self.steps.at(oracle, x, y, renew=not o.lower_step)
        return gradient_descent(oracle, x, y, step=step, iterations=20000, tol=tol), start

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """The adjoint at the point."""
        o = self.options
        x, y, face = point.x, point.y, point.lower.face
        start = u0 if o.warm else None
        limit = o.adjoint_steps or MOST
        tol = 0.0 if o.adjoint_steps else accuracy.level
        if o.variant == "hoag" and not o.adjoint_steps:
            tol = max(min(accuracy.level, 1e-3 * 0.78**self.solves), accuracy.floor)
        self.solves += 1
        if o.variant in ("cg", "hoag"):
            change = 0.0 if o.adjoint_steps else accuracy.change
            if not o.adjoint_steps:
                self.steps.renew(oracle, x, y)
            known = None if o.adjoint_steps else self.steps.known
            pairs = self.steps.pairs if known is None else None
            adjoint = krylov_adjoint(
                oracle,
                x,
                y,
                face,
                point.gF_y,
                tol=tol,
                change=change,
                u0=start,
                shared=None if o.adjoint_steps else pairs,
                preconditioner=known or (identity if o.adjoint_steps else None),
                max_iter=limit,
            )
            self.steps.inverse.rent += adjoint.products
            return adjoint
        d = face.project(point.gF_y)
        H = on_face(oracle.hvp(x, y), face)
        found = self._iterate(
            oracle, point, H, d, face.project(start) if start is not None else None, limit, tol
        )
        residual = found.residual / max(norm(d), 1e-300)
        return Adjoint(
            found.u, oracle.cross(x, y)(found.u), residual, found.products, found.negative_curvature
        )

    def _iterate(
        self,
        oracle: Oracle,
        point: Point,
        H: object,
        d: Vec,
        start: Vec | None,
        limit: int,
        tol: float,
    ) -> LinearSolution:
        o = self.options
        assert callable(H)
        if o.variant == "normal":
            u0 = start if start is not None else torch.zeros_like(d)
            return normal_equations(H, d, u0=u0, tol=tol * norm(d), max_iter=limit)
        if o.variant == "shine":
            return LinearSolution(self.steps.memory.apply(d), math.nan, 0, False)
        step = self.steps.at(oracle, point.x, point.y, renew=not (o.lower_step or o.adjoint_steps))
        if o.variant == "identity":
            return LinearSolution(step * d, math.nan, 0, False)
        if o.variant == "neumann" and o.adjoint_steps:
            return neumann(H, d, step=step, iterations=limit)
        if o.variant == "amigo-gd":
            u0 = start if start is not None else torch.zeros_like(d)
            return richardson(H, d, u0=u0, step=step, iterations=limit, tol=tol * norm(d))
        # The Neumann series until a tolerance is the fixed-point iteration.
        return fixed_point(H, d, step=step, iterations=limit, tol=tol * norm(d))
