"""``qnbo``: quasi-Newton lower solve and quasi-Newton adjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aid import StepLength, tied
from bilevelpy.backends.implicit.base import Implicit
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.differences import GradientOracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint, krylov_adjoint
from bilevelpy.numerics.lower.krylov import gradient_descent, lbfgs, on_face
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.quasi_newton import BFGS, SR1, InverseHessian, quasi_newton_solve
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.optimizer import UpperState, advance
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

UPDATES = ("bfgs", "sr1")
ADJOINTS = ("auto", "precondition", "refine", "share")
SCHEDULES = ("tolerance", "constant", "increasing")
UPPER = ("lbfgs", "gd")
# Steps of an adjoint solve until a tolerance at most.
MOST = 2000
# Pairs of a solve until a tolerance; those of a fixed number of steps are all kept.
KEPT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class QNBOOptions(BackendOptions):
    """Options of ``qnbo``.

    ``update``: bfgs or sr1. ``adjoint``: refine (subroutine B of the paper), precondition
    (conjugate gradients preconditioned by the pairs of the lower solve), share (those pairs alone:
    biased, for comparison); auto means precondition for bfgs and refine for sr1. ``schedule``:
    tolerance (as many products as the tied accuracy asks for), constant (``adjoint_steps``),
    increasing (Q_k = k + 1, the paper's theory). ``lower_steps`` T and ``warmup`` P: fixed numbers
    of quasi-Newton and gradient steps, T = 0: until the tied tolerance, with a line search.
    ``scale``: H_0 = scale I; 0: 1/L estimated at the start. ``hessian_free``: all products
    by differences of gradients. ``upper``, ``upper_step``, ``lower_step`` as in ``aid``.
    """

    update: str = "bfgs"
    adjoint: str = "auto"
    schedule: str = "tolerance"
    lower_steps: int = 0
    adjoint_steps: int = 5
    warmup: int = 1
    memory: int = 30
    scale: float = 0.0
    warm: bool = True
    hessian_free: bool = False
    upper: str = "lbfgs"
    upper_step: float = 0.0
    lower_step: float = 0.0

    def __post_init__(self) -> None:
        choices = {"update": UPDATES, "adjoint": ADJOINTS, "schedule": SCHEDULES, "upper": UPPER}
        check_choices(self, "qnbo", **choices)
        check_range(self, "qnbo", 0, 10**6, "lower_steps", "warmup")
        check_range(self, "qnbo", 1, 10**6, "adjoint_steps", "memory")
        check_range(self, "qnbo", 0.0, math.inf, "scale", "upper_step", "lower_step")


class QNBO(Implicit):
    """Quasi-Newton bilevel optimization [Fang2025]_.

    Subroutine A solves the lower level by quasi-Newton steps ``y <- y - C(f_y)``; subroutine B
    solves the adjoint system with quasi-Newton steps of its own, because the pairs of A
    approximate the inverse Hessian along A's path only, not along dF/dy::

        p = -C(r),  u += p,  r += H p,   dPhi/dx = dF/dx - f_xy u

    By default u is warm started and the numbers of steps follow tied tolerances; the paper's fixed
    numbers are options. Cost per upper step: P + T + 1 lower gradients and Q + 1 products.
    """

    name: ClassVar[str] = "qnbo"
    title: ClassVar[str] = "Quasi-Newton lower solve and adjoint"
    reference: ClassVar[str] = "Fang2025"
    options: ClassVar[type[BackendOptions]] = QNBOOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over free, box, simplex or ball variables, of any
        size.
        """
        refusal = refuse_common(structure)  # a Reject is false, so no `or` here
        return (
            Accept("curvature pairs of the lower solve speed up the adjoint")
            if refusal is None
            else refusal
        )

    def cost(self, structure: Structure) -> Cost:
        """About as many products as conjugate gradients, fewer lower gradients than plain
        descent.
        """
        kappa = structure.likely_condition
        steps = min(math.sqrt(kappa), float(max(structure.dim_y, 1)))
        m = structure.dim_y
        return Cost(gradients=2.0 * steps, products=steps, flops=120.0 * m, memory=16.0 * 60 * m)

    def response(self, oracle: Oracle, options: QNBOOptions) -> Response:
        """Subroutines A and B, which share pairs."""
        known = cast(Oracle, GradientOracle(oracle)) if options.hessian_free else oracle
        fixed = (
            bool(options.lower_steps)
            or options.schedule != "tolerance"
            or options.adjoint == "share"
        )
        accuracy = Accuracy(level=1e-3, change=1e-2, floor=min(1e-3 * options.tol, 1e-6))
        return Response(known, Subroutines(options), accuracy, correct=not fixed)

    def step(self, oracle: Oracle, state: UpperState, options: QNBOOptions) -> UpperState:
        """A step of the optimizer, or of plain gradient descent."""
        return gradient_step(state, options.upper_step) if options.upper == "gd" else advance(state)


@dataclass(slots=True)
class Subroutines:
    """Both solves of the paper, with the scale of H_0 and the pairs of the newest lower solve."""

    options: QNBOOptions
    scale: float = 0.0
    memory: InverseHessian | None = None
    solves: int = 0
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def fresh(self, oracle: Oracle, x: Vec, y: Vec, *, pairs: int = 0) -> InverseHessian:
        """An approximation without pairs; room for those of one solve of so many steps."""
        if not self.scale:
            self.scale = self.options.scale
        if not self.scale:
            top = extreme_eigenvalues(oracle.hvp(x, y), oracle.m, self.rng)[1]
            self.scale = 1.0 / (1.02 * top) if top > 0 else 1.0
        memory = max(self.options.memory, pairs)
        return (
            BFGS(self.scale, memory)
            if self.options.update == "bfgs"
            else SR1(self.scale, max(memory, 60))
        )

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """Subroutine A: P gradient and T quasi-Newton steps, or a line search to a tied tolerance;
        the residual at the start.
        """
        o = self.options
        if o.lower_steps:
            return self._paper(oracle, x, y)
        f, g = oracle.value_grad_f(x, y)
        start = oracle.domain_y.projected_gradient_norm(y, g)
        if o.update == "bfgs":
            # Pairs are carried over: H moves little with x, and the line search catches where it
            # does not.
            memory = self.memory or BFGS(0.0, o.memory, rescale=True)
        else:
            memory = self.fresh(oracle, x, y)
        self.memory = memory
        tol = tied(start, scale, accuracy)
        return lbfgs(oracle, x, y, tol=tol, max_iter=5000, memory=memory, start=(f, g)), start

    def _paper(self, oracle: Oracle, x: Vec, y: Vec) -> tuple[LowerSolution, float]:
        """Algorithm 2: unit steps, pairs restarted; P + T + 1 gradients."""
        o = self.options
        domain = oracle.domain_y
        memory = self.fresh(oracle, x, y)
        step = o.lower_step or StepLength().at(oracle, x, y)
        y = gradient_descent(oracle, x, y, step=step, iterations=o.warmup).y
        g = oracle.grad_f(x, y)
        first = norm(g)
        for _ in range(o.lower_steps):
            if norm(g) <= 1e-14 * first:
                break
            y_next = domain.project(y - memory.apply(g))
            g_next = oracle.grad_f(x, y_next)
            memory.update(y_next - y, g_next - g)
            y, g = y_next, g_next
        self.memory = memory
        return finish(domain, y, math.nan, g, o.lower_steps, "limit"), first

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """Subroutine B: the adjoint, refined, preconditioned or shared."""
        o = self.options
        x, y, face = point.x, point.y, point.lower.face
        self.solves += 1
        limit = {"tolerance": MOST, "constant": o.adjoint_steps, "increasing": self.solves}[
            o.schedule
        ]
        tied_to_progress = o.schedule == "tolerance"
        kind = (
            o.adjoint if o.adjoint != "auto" else "precondition" if o.update == "bfgs" else "refine"
        )
        d = face.project(point.gF_y)
        size = norm(d)
        memory = self.memory
        if kind == "share" and memory is not None:
            u = face.project(memory.apply(d))
            return Adjoint(u, oracle.cross(x, y)(u), math.nan, 0)
        start = u0 if o.warm else None
        if kind == "precondition":
            shared = memory if isinstance(memory, BFGS) and face.is_whole else None
            if shared is not None and shared.scale == 0.0:  # y was solved: nothing is known of H
                shared = None
            guess = start if start is not None or shared is None else shared.apply(d)
            return krylov_adjoint(
                oracle,
                x,
                y,
                face,
                point.gF_y,
                tol=accuracy.level if tied_to_progress else 0.0,
                change=accuracy.change if tied_to_progress else 0.0,
                u0=guess,
                max_iter=limit,
                preconditioner=shared.apply if shared is not None else None,
            )
        H = on_face(oracle.hvp(x, y), face)
        guess = None if start is None or not bool(start.any()) else face.project(start)
        tol = accuracy.level * size if tied_to_progress else 1e-14 * size
        inner = self.fresh(oracle, x, y, pairs=KEPT if tied_to_progress else limit)
        found = quasi_newton_solve(H, d, inner, iterations=limit, tol=tol, u0=guess)
        residual = found.residual / max(size, 1e-300)
        return Adjoint(found.u, oracle.cross(x, y)(found.u), residual, found.products)
