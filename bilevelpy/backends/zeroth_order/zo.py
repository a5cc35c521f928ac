"""``zo``: function values only, for black boxes of few variables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import Bounds, minimize

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_any_function, refuse_choice, with_one_level
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.base import DenseSolver
from bilevelpy.backends.loop import LoopState, check_choices, check_range, guard, measure_loop
from bilevelpy.ir import expr as ir
from bilevelpy.lowering.absolute import shows_kinks
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import finish
from bilevelpy.numerics.smoothing import GaussianOracle, ValueOracle, curvatures, has_kink, slopes
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

LOOPS = ("auto", "implicit", "nested", "smoothing")
# Values of a derivative-free method for all derivatives grow with the square of the variables.
LARGEST = 20
NOISY = (
    "derivatives are estimated along random directions: the iterates keep a noise that falls only "
    "with the steps"
)
NESTED = (
    "the objectives have kinks or are not known to be smooth: the response is found and F(x, y(x)) "
    "differenced by values alone"
)
# Radius of differences of F(x, y(x)), whose y is known to about the square of it.
RADIUS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ZOOptions(BackendOptions):
    """Options of ``zo``.

    ``loop``: implicit (Newton steps and adjoint from differences, for smooth functions), nested
    (the lower level by simplex search, F(x, y(x)) differenced: kinks allowed), smoothing (the
    paper's single loop with Gaussian directions), auto (implicit unless second differences show a
    kink). Of the smoothing loop: ``count`` Q directions a call, ``radius`` of the smoothing,
    ``upper_step``, ``lower_step`` (0: from second differences at the start), ``decay`` a of the
    steps ``(k+1)^-a``, ``stride`` iterations between records.
    """

    loop: str = "auto"
    count: int = 20
    radius: float = 1e-3
    upper_step: float = 0.0
    lower_step: float = 0.0
    decay: float = 0.5
    stride: int = 50

    def __post_init__(self) -> None:
        check_choices(self, "zo", loop=LOOPS)
        check_range(self, "zo", 1, 10**6, "count", "stride")
        check_range(self, "zo", 0.0, 1.0, "radius", closed=False)
        check_range(self, "zo", 0.0, math.inf, "upper_step", "lower_step")
        check_range(self, "zo", 0.0, 1.0, "decay")


class ZO:
    """Fully zeroth-order bilevel optimization [Aghasi2024]_: only values of F and f are asked for.

    The paper smooths all functions with a Gaussian and estimates gradients, ``H u`` and ``f_xy u``
    by Stein's identities, one random direction at a time. For at most 20 variables all directions
    of an orthonormal basis cost little and leave no variance: gradients are central differences
    (2m values), H all second differences (2m^2 values), and Newton's method, the adjoint and
    L-BFGS work on those. Functions with kinks are answered by the simplex method of Nelder and
    Mead in y and differences of ``F(x, y(x))`` in x.

    Cost per upper step: implicit 3 to 6 m^2 values of f and 2 (n + m) of F; nested 2 n lower
    solves of some hundred values each; smoothing (4 Q + 2) values of f and 2 Q of F an iteration.
    """

    name: ClassVar[str] = "zo"
    title: ClassVar[str] = "Function values only, up to 20 variables"
    reference: ClassVar[str] = "Aghasi2024"
    options: ClassVar[type[BackendOptions]] = ZOOptions
    perturbed_start: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Any functions of at most 20 variables of both levels, over free or box variables, whose
        lower solution is unique or taken where it is found.
        """
        size = structure.dim_x + structure.dim_y
        if size > LARGEST:
            return Reject(
                f"takes black boxes of at most {LARGEST} variables of both levels, found {size}",
                None,
            )
        refusal = refuse_any_function(with_one_level(structure))
        if refusal is None:
            refusal = refuse_choice(structure)
        if refusal is not None:
            return refusal
        smooth = bool(structure.lower.smooth.value and structure.upper.smooth.value)
        unique = structure.has_one_response
        local = "the lower solution is the one reached from y: others are not looked for"
        return Accept(
            "values only", (*(() if smooth else (NESTED,)), *(() if unique else (local,)))
        )

    def cost(self, structure: Structure) -> Cost:
        """All derivatives by differences: of last resort."""
        return Cost(gradients=1e6, products=0.0, memory=8.0 * structure.dim_y**2)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: ZOOptions, rng: torch.Generator
    ) -> UpperState | LoopState:
        """The start of the chosen loop."""
        values = ValueOracle(oracle)
        if options.loop == "smoothing":
            return self._smoothing(values, x, y, options, rng)
        kinks = options.loop == "nested" or (
            options.loop == "auto"
            and (
                _shows_kinks(oracle)
                or has_kink(lambda z: oracle.f(x, z), y, oracle.domain_y)
                or has_kink(lambda z: oracle.F(x, z), y, oracle.domain_y)
            )
        )
        if kinks:
            state = begin(Nested(values, NO_METHOD, Accuracy()), x, y, options.tol)
            state.warnings = (NESTED,)
            return state
        solver = DenseSolver(DenseCurvature(), 1e-8)
        accuracy = Accuracy(level=1e-7, change=1e-3, floor=1e-7)
        return begin(Response(values, solver, accuracy), x, y, options.tol)

    def _smoothing(
        self, values: ValueOracle, x: Vec, y: Vec, options: ZOOptions, rng: torch.Generator
    ) -> LoopState:
        """Steps from the second differences at the start."""
        top = float(torch.linalg.eigvalsh(values.hessian(x, y))[-1])
        bend = curvatures(lambda z: values.F(z, y), x, values.domain_x)
        bend_y = curvatures(lambda z: values.F(x, z), y, values.domain_y)
        upper = float(bend.abs().max()) + float(bend_y.abs().max())
        beta = options.lower_step or (0.5 / top if top > 0 else 1.0)
        alpha = options.upper_step or (0.1 / upper if upper > 0 else 1.0)
        state = LoopState(x, y, torch.zeros_like(y), values.grad_F(x, y)[0], alpha, beta)
        state.sync = GaussianOracle(values.oracle, options.count, options.radius, rng)
        state.warn(NOISY)
        return state

    def step(
        self, oracle: Oracle, state: UpperState | LoopState, options: ZOOptions
    ) -> UpperState | LoopState:
        """A step of the optimizer, or ``stride`` iterations of the loop."""
        if isinstance(state, UpperState):
            return advance(state)
        for _ in range(options.stride):
            if state.finish is None:
                _iterate(state, options)
        return state

    def measure(self, oracle: Oracle, state: UpperState | LoopState) -> Measure:
        """Read the state."""
        return measure(state) if isinstance(state, UpperState) else measure_loop(oracle, state)


def _iterate(state: LoopState, options: ZOOptions) -> None:
    """One round of the paper: y, u and x by estimates from fresh directions."""
    smooth: GaussianOracle = state.sync
    x, y, u = state.x, state.y, state.u
    fall = (state.k + 1) ** (-options.decay)
    g = smooth.grad_f(x, y)
    state.residual = smooth.domain_y.projected_gradient_norm(y, g)
    y = smooth.domain_y.project(y - state.beta * fall * g)
    F_x, F_y = smooth.grad_F(x, y)
    Hu, Ju = smooth.pullback(x, y)(u)
    u = u - state.beta * fall * (Hu - F_y)
    state.h, state.size = F_x - Ju, norm(F_x) + norm(Ju)
    state.adjoint = min(norm(Hu - F_y) / max(norm(F_y), 1e-300), 1.0)
    state.y, state.u, state.k = y, u, state.k + 1
    if guard(smooth, state, fixed=True):
        state.x = smooth.domain_x.project(x - state.alpha * fall * state.h)


@dataclass(slots=True)
class Nested(Response):
    """``F(x, y(x))`` with y by simplex search, and its central differences."""

    correct: bool = False
    extent: float = field(default=0.1)

    def evaluate(self, x: Vec, near: Point | None, y: Vec, expected: float = 0.0) -> Point:
        """The value at x."""
        oracle = self.oracle
        oracle.counts.lower_solves += 1
        found = self._lower(x, y)
        f = oracle.f(x, found)
        # At a minimiser with a kink no gradient vanishes: the search has ended, that is all.
        g = torch.zeros_like(found)
        lower = finish(oracle.domain_y, found, f, g, 0, "rounding")
        F = oracle.F(x, found)
        zero = torch.zeros_like(x)
        return Point(x, lower, F, F, zero, torch.zeros_like(found))

    def differentiate(self, point: Point, near: Point | None) -> Point:
        """Differences of ``F(x, y(x))``, every value with a lower solve of its own."""
        oracle = self.oracle

        def phi(x: Vec) -> float:
            return oracle.F(x, self._lower(x, point.y))

        h = slopes(phi, point.x, oracle.domain_x, RADIUS)
        adjoint = Adjoint(torch.zeros_like(point.y), -h, math.nan, 0)
        return replace(point, adjoint=adjoint, gradient=h)

    def polish(self, point: Point) -> Point:
        """Nothing can be done better."""
        return point

    def _lower(self, x: Vec, y: Vec) -> Vec:
        """Nelder-Mead from y, restarted with smaller simplices until nothing is gained."""
        domain, oracle = self.oracle.domain_y, self.oracle

        def f(z: np.ndarray[Any, Any]) -> float:
            value = oracle.f(x, domain.project(torch.from_numpy(z)))
            return value if math.isfinite(value) else 1e300

        bounds = Bounds(domain.lower.numpy(), domain.upper.numpy())
        best, value = y.numpy().copy(), f(y.numpy())
        size = self.extent * (1.0 + float(np.abs(best).max()))
        for _ in range(8):
            simplex = np.vstack([best, best + size * np.eye(best.size)])
            simplex = np.clip(simplex, bounds.lb, bounds.ub)
            found = minimize(
                f,
                best,
                method="Nelder-Mead",
                bounds=bounds,
                options={
                    "initial_simplex": simplex,
                    "xatol": 1e-11,
                    "fatol": 0.0,
                    "maxiter": 400 * best.size,
                    "adaptive": True,
                },
            )
            gained, moved = value - float(found.fun), float(np.abs(found.x - best).max())
            best, value = found.x, float(found.fun)
            if gained <= 1e-14 * abs(value) or moved <= 1e-10 * size:
                break
            size = max(10.0 * moved, 1e-6) if moved < size else size
        return domain.project(torch.from_numpy(best.copy()))


def _shows_kinks(oracle: Oracle) -> bool:
    """Whether the text of the lower objective has kinks: at the start they may be elsewhere."""
    root = getattr(oracle, "f_expr", None)
    return isinstance(root, ir.Expr) and shows_kinks(root)
