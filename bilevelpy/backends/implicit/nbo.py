"""``nbo``: one Newton equation for the response and its adjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aid import StepLength, tied
from bilevelpy.backends.loop import LoopState, check_choices, check_range, guard, measure_loop
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import Operator, conjugate_gradients, dot, norm, richardson
from bilevelpy.numerics.lower.hypergradient import Adjoint, krylov_adjoint
from bilevelpy.numerics.lower.krylov import UNSEEN, lbfgs, on_face
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution, descend, finish, resolution
from bilevelpy.numerics.upper.lipschitz import accurate, upper_lipschitz
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

SOLVERS = ("cg", "gd")
UPPER = ("lbfgs", "gd")
# Products of a linear solve, and Newton steps of a lower one, at most.
MOST, NEWTON = 1000, 100
# Directions of the lower Newton system that are kept for the adjoint.
KEPT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class NBOOptions(BackendOptions):
    """Options of ``nbo``.

    ``upper``: lbfgs (tied tolerances, a line search) or gd (the paper's loop, one Newton step per
    upper step). Of the paper's loop: ``solver`` cg or gd for the two systems, ``solver_steps`` T,
    ``solver_step`` (0: ``2 / (L + mu)``), ``fresh_u`` (adjoint system at the new y instead of the
    old one: fewer iterations, one more graph), ``damping`` (halve Newton steps until f falls),
    ``prepare`` (start near y(x)), ``upper_step`` (0: estimated).
    """

    upper: str = "lbfgs"
    solver: str = "cg"
    solver_steps: int = 5
    solver_step: float = 0.0
    fresh_u: bool = True
    damping: bool = True
    prepare: bool = True
    upper_step: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "nbo", upper=UPPER, solver=SOLVERS)
        check_range(self, "nbo", 1, 10**6, "solver_steps")
        check_range(self, "nbo", 0.0, math.inf, "solver_step", "upper_step")


class NBO:
    """Newton-type bilevel optimization with curvature-aware hypergradients [Dong2025]_.

    The response and the adjoint are Newton equations with one Hessian and two right-hand sides::

        H v = f_y,              y <- y - v
        H w = H u - F_y,        u <- u - w
        x <- x - alpha (F_x - f_xy u)

    By default the systems are solved by conjugate gradients to tolerances that follow the progress,
    the directions of the first serve the second, and x moves by projected L-BFGS with a Wolfe
    search. ``upper="gd"`` is the paper's loop, in which u is solved at the old y unless
    ``fresh_u``.

    Cost per upper step of the paper's loop: 1 lower gradient, 2 upper gradients, 2T + 1 products
    (2T with gd from zero counts T each), 1 cross product. By default: a few lower gradients, about
    sqrt(kappa) products.
    """

    name: ClassVar[str] = "nbo"
    title: ClassVar[str] = "Inexact Newton steps for response and adjoint"
    reference: ClassVar[str] = "Dong2025"
    options: ClassVar[type[BackendOptions]] = NBOOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level with Lipschitz Hessian, over free, box, simplex or
        ball variables.
        """
        refusal = refuse_common(structure)
        return (
            Accept("one Newton system serves response and adjoint") if refusal is None else refusal
        )

    def cost(self, structure: Structure) -> Cost:
        """One to two lower gradients, and conjugate gradients for two right-hand sides."""
        kappa = structure.likely_condition
        steps = min(math.sqrt(kappa), float(max(structure.dim_y, 1)))
        m = structure.dim_y
        return Cost(
            gradients=2.0, products=3.0 * steps, flops=4.0 * KEPT * m, memory=16.0 * KEPT * m
        )

    def response(self, oracle: Oracle, options: NBOOptions) -> Response:
        """Newton steps that leave their directions to the adjoint."""
        accuracy = Accuracy(level=1e-3, change=1e-2, floor=min(1e-3 * options.tol, 1e-6))
        return Response(oracle, SharedNewton(), accuracy)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: NBOOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """The start of the chosen loop."""
        if options.upper == "lbfgs":
            return begin(self.response(oracle, options), x, y, options.tol)
        if options.prepare:
            first = oracle.domain_y.projected_gradient_norm(y, oracle.grad_f(x, y))
            y = lbfgs(oracle, x, y, tol=1e-2 * first, max_iter=100).y
        u = torch.zeros_like(y)
        alpha = options.upper_step
        if not alpha:
            start = accurate(oracle, x, y)
            y, u = start.y, start.u
            top = upper_lipschitz(oracle, x, start, rng)
            alpha = 1.0 / top if top > 0 else 1.0
        h = oracle.grad_F(x, y)[0]
        beta = StepLength(options.solver_step).at(oracle, x, y) if options.solver == "gd" else 0.0
        return LoopState(x, y, u, h, alpha, beta)

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: NBOOptions
    ) -> UpperState | LoopState:
        """One step of the optimizer, or of the paper's loop."""
        return (
            advance(state) if isinstance(state, UpperState) else newton_loop(oracle, state, options)
        )

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state."""
        return measure(state) if isinstance(state, UpperState) else measure_loop(oracle, state)


@dataclass(slots=True)
class SharedNewton:
    """Newton systems whose conjugate directions p serve the adjoint: they are kept with their
    products H p, those of the newest system.
    """

    made_again: ClassVar[tuple[str, ...]] = ("pairs",)

    pairs: list[tuple[Vec, Vec]] = field(default_factory=list)

    def restart(self) -> None:
        """A new system begins."""
        self.pairs = []

    def watch(self, H: Operator) -> Operator:
        """H that remembers its products while there is room; conjugate gradients make conjugate
        directions.
        """

        def product(p: Vec) -> Vec:
            Hp = H(p)
            if len(self.pairs) < KEPT and dot(p, Hp) > 0:
                self.pairs.append((p, Hp))
            return Hp

        return product

    def correct(self, r: Vec) -> Vec:
        """``sum_i p_i (p_i'r) / (p_i'H p_i)``: the best correction of a residual r within the
        directions.
        """
        out = torch.zeros_like(r)
        for p, Hp in self.pairs:
            out = out + (dot(p, r) / dot(p, Hp)) * p
        return out

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """Damped Newton-CG steps to a tied tolerance; the residual at the start."""
        domain, negative = oracle.domain_y, False
        oracle.counts.lower_solves += 1
        self.restart()
        f, g = oracle.value_grad_f(x, y)
        first = residual = domain.projected_gradient_norm(y, g)
        tol = tied(first, scale, accuracy)
        if not math.isfinite(f):
            return finish(domain, y, f, g, 0, "nonfinite"), first
        for k in range(NEWTON):
            if residual <= tol:
                return finish(domain, y, f, g, k, "reached", negative), first
            face = domain.face(y, g)
            a = face.project(g)
            # A loose system for a small part of the way, a tight one for the last step.
            goal = max(min(0.3, math.sqrt(residual / first)) * norm(a), 0.3 * tol)
            self.restart()
            H = self.watch(on_face(oracle.hvp(x, y), face))
            v = conjugate_gradients(H, a, tol=goal, max_iter=MOST)
            negative = negative or v.negative_curvature
            step = descend(oracle, x, y, f, g, -v.u if bool(v.u.any()) else -a)
            if step is None:
                return finish(domain, y, f, g, k, "rounding", negative), first
            y, f, g = step.y, step.f, step.gradient
            if f < -1e300 or norm(y) > 1e30:
                return finish(domain, y, f, g, k + 1, "unbounded", negative), first
            last, residual = residual, domain.projected_gradient_norm(y, g)
            unseen = abs(dot(a, v.u)) <= UNSEEN * resolution(oracle) * abs(f)
            if residual > 0.9 * last and unseen:
                return finish(domain, y, f, g, k + 1, "rounding", negative), first
        return finish(domain, y, f, g, NEWTON, "limit", negative), first

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """``H w = H u - F_y`` from the last u: first within the directions of the Newton step, then
        by new ones.
        """
        x, y, face = point.x, point.y, point.lower.face
        guess, extra = u0, 0
        if self.pairs and face.is_whole:
            d = point.gF_y
            if u0 is None:
                guess = self.correct(d)
            else:
                guess = u0 + self.correct(d - oracle.hvp(x, y)(u0))
                extra = 1
        found = krylov_adjoint(
            oracle,
            x,
            y,
            face,
            point.gF_y,
            tol=accuracy.level,
            change=accuracy.change,
            u0=guess,
            max_iter=MOST,
        )
        return Adjoint(
            found.u, found.cross, found.residual, found.products + extra, found.negative_curvature
        )


def newton_loop(oracle: Oracle, state: LoopState, options: NBOOptions) -> LoopState:
    """One iteration of the paper: both systems by T steps from zero, then a step of x."""
    x, y, u = state.x, state.y, state.u
    domain = oracle.domain_y
    a = oracle.grad_f(x, y)
    state.residual = domain.projected_gradient_norm(y, a)
    face = domain.face(y, a)
    H = on_face(oracle.hvp(x, y), face)
    v, negative = _solve(H, face.project(a), state.beta, options)
    y_next = _newton_step(oracle, x, y, a, v, options)
    if options.fresh_u:
        y = y_next
        face = domain.face(y, a)
        H = on_face(oracle.hvp(x, y), face)
    gF_x, gF_y = oracle.grad_F(x, y)
    d, u = face.project(gF_y), face.project(u)
    b = H(u) - d
    w, bent = _solve(H, b, state.beta, options)
    if not options.fresh_u:
        y = y_next
        gF_x = oracle.grad_F(x, y)[0]
    u = u - w
    cross = oracle.cross(x, y)(u)
    state.y, state.u, state.h = y, u, gF_x - cross
    state.size = norm(gF_x) + norm(cross)
    state.adjoint = min(norm(b) / max(norm(d), 1e-300), 1.0) if norm(b) > 0 else 0.0
    if negative or bent:
        state.warn("negative curvature of the lower level was met on the way")
    state.k += 1
    if guard(oracle, state, fixed=bool(options.upper_step)):
        state.x = oracle.domain_x.project(x - state.alpha * state.h)
    return state


def _solve(H: Operator, b: Vec, step: float, options: NBOOptions) -> tuple[Vec, bool]:
    """T steps on ``H v = b`` from zero; where the curvature is negative at once, a steepest-descent
    step.
    """
    if options.solver == "gd":
        return richardson(
            H, b, u0=torch.zeros_like(b), step=step, iterations=options.solver_steps
        ).u, False
    found = conjugate_gradients(H, b, tol=1e-15 * norm(b), max_iter=options.solver_steps)
    if found.negative_curvature and not bool(found.u.any()):
        return dot(b, b) / abs(dot(b, H(b))) * b, True
    return found.u, found.negative_curvature


def _newton_step(oracle: Oracle, x: Vec, y: Vec, a: Vec, v: Vec, options: NBOOptions) -> Vec:
    """``y - v``, halved until f falls where damping is on."""
    domain = oracle.domain_y
    if not options.damping:
        return domain.project(y - v)
    f, t = oracle.f(x, y), 1.0
    slack = 1e-14 * abs(f)
    for _ in range(30):
        trial = domain.project(y - t * v)
        if oracle.f(x, trial) <= f + 1e-4 * dot(a, trial - y) + slack:
            return trial
        t *= 0.5
    return y
