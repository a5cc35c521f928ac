"""``pzobo``: the response Jacobian from differences of lower paths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_ill
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.implicit.aid import tied
from bilevelpy.backends.loop import check_choices, check_range, check_step
from bilevelpy.backends.unrolled.descent import Path, SteppedResponse, extend, packed
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.together import Gradients, gradients_together
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.batched_paths import fixed_paths, solved_paths
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Accuracy, Point
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.upper.adam import Adam
from bilevelpy.numerics.upper.gd import gradient_step
from bilevelpy.numerics.upper.lipschitz import power_iteration
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

DIRECTIONS = ("orthonormal", "gaussian", "unit", "published")
UPPER = ("auto", "gd", "adam")
# Up to this many upper variables all directions are taken.
ALL = 50
FEW = 10
MOST = 100_000
# Finest relative residual of a path.
FINEST = 1e-13
SMALL_UPPER = 50
# Condition number up to which paths end: six variables of each level take 28 CPU seconds to nine
# digits of F at 100, and have no first step after 10 at 1,000.
LARGEST = 100.0
UNSCALED = "directions of norm 1 without a factor shrink the indirect part to 1/n_x: biased"
RANDOM = (
    "the response is differenced along random directions: the hypergradient is noisy, "
    "and its noise does not vanish at the solution"
)
BIASED = "a fixed number of lower steps solves a perturbed problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class PZOBOOptions(BackendOptions):
    """Options of ``pzobo``.

    ``directions``: orthonormal (times sqrt(n_x)), gaussian, unit (uniform on the sphere, times
    sqrt(n_x)), or published (unit without the factor, as in the published code: the indirect part
    shrinks to 1/n_x; for comparison). ``count`` Q, 0: all n_x up to 50, else 10. ``difference`` mu,
    relative to ``1 + |x|``; ``central``: both sides (by default where Q = n_x). ``lower_steps`` N
    per path, 0: until solved. ``lower_step``, 0: 1/L by differences of gradients. ``warm``: start
    paths at the last response. ``upper``: auto, gd or adam, with ``upper_step`` (0: a line search
    where all directions are taken, else lengths that fall with the gradients seen).
    """

    directions: str = "orthonormal"
    count: int = 0
    difference: float = 1e-4
    central: bool = True
    lower_steps: int = 0
    lower_step: float = 0.0
    warm: bool = True
    upper: str = "auto"
    upper_step: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "pzobo", directions=DIRECTIONS, upper=UPPER)
        check_range(self, "pzobo", 0, 10**6, "count", "lower_steps")
        check_range(self, "pzobo", 0.0, 1.0, "difference", closed=False)
        check_range(self, "pzobo", 0.0, math.inf, "lower_step", "upper_step")
        check_step(self, "pzobo")


class PZOBO:
    """Partial zeroth-order bilevel optimization [Sow2022]_: no second derivatives at all.

    Lower paths of N gradient steps at x and at x + mu U_j, from the same start, estimate the
    Jacobian along U_j::

        delta_j = (y_N(x + mu U_j) - y_N(x)) / mu,   h = F_x + 1/Q sum_j <delta_j, F_y> U_j

    with ``E U U' = I``. All Q (or 2Q) perturbed paths run as one batch. (Directions of norm 1
    without the factor sqrt(n_x), as in the published
    code, shrink the second term to 1/n_x.) Gaussian directions have the variance ``(n_x + 1)/Q
    |J'F_y|^2``; Q = n_x orthonormal ones are exact, so that up to 50 upper variables they are the
    default, with L-BFGS and a line search on top.

    Cost per upper step: (Q + 1) N lower gradients ((2Q + 1) N by central differences), 1 upper
    gradient.
    """

    name: ClassVar[str] = "pzobo"
    title: ClassVar[str] = "Hessian-free differences of lower paths"
    reference: ClassVar[str] = "Sow2022"
    options: ClassVar[type[BackendOptions]] = PZOBOOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over variables with a cheap projection, not badly
        conditioned; few upper variables are best.
        """
        refusal = refuse_common(structure)
        if refusal is None:
            refusal = refuse_ill(structure, LARGEST)
        if refusal is not None:
            return refusal
        return Accept("no second derivatives", () if structure.dim_x <= SMALL_UPPER else (RANDOM,))

    def cost(self, structure: Structure) -> Cost:
        """A lower solve per direction."""
        Q = structure.dim_x if structure.dim_x <= ALL else FEW
        kappa = structure.likely_condition
        return Cost(
            gradients=(2.0 * Q + 1.0) * 10.0 * kappa, products=0.0, memory=40.0 * structure.dim_y
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: PZOBOOptions, rng: torch.Generator
    ) -> UpperState:
        """Evaluate at the start."""
        Q, exact = counted(options.directions, options.count, oracle.n)
        paths = Paths(options, Q, exact, y, rng, gradients_together(oracle))
        line_search = exact and not options.lower_steps and not options.upper_step
        # F at the end of a path is wrong to first order in its residual; at last it falls by tol^2.
        floor = max(options.tol**2, FINEST) if line_search else 0.1 * options.tol
        accuracy = Accuracy(level=1e-4, change=1e-4, floor=min(floor, 1e-6))
        response = SteppedResponse(oracle, paths, accuracy, correct=False)
        state = begin(response, x, y, options.tol if line_search else 0.0)
        response.alpha = 0.0 if line_search else options.upper_step or math.inf
        response.adam = Adam(options.upper_step) if options.upper == "adam" else None
        state.warnings = (
            *(() if exact else (RANDOM,)),
            *((UNSCALED,) if options.directions == "published" else ()),
            *((BIASED,) if options.lower_steps else ()),
        )
        return state

    def step(self, oracle: Oracle, state: UpperState, options: PZOBOOptions) -> UpperState:
        """A step of the optimizer, or a plain one."""
        response = state.response
        assert isinstance(response, SteppedResponse)
        if response.adam is not None:
            return response.adam.step(state)
        if response.alpha == 0.0:
            return advance(state)
        return gradient_step(state, response.alpha if options.upper_step else _falling(state))

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return measure(state)


def _falling(state: UpperState) -> float:
    """``D / sqrt(sum |h|^2)`` with a tenth of the size of x for D (AdaGrad with one step for all
    variables).
    """
    size = max(0.1 * norm(state.start.x), 0.1)
    return size / max(math.sqrt(sum(n * n for n in state.norms)), 1e-300)


def counted(directions: str, count: int, n: int) -> tuple[int, bool]:
    """Q, and whether the directions are all of them: more than n orthonormal ones there are not."""
    Q = count or (n if n <= ALL else FEW)
    exact = directions == "orthonormal" and n <= Q
    return (n if exact else Q), exact


def drawn(directions: str, count: int, n: int, rng: torch.Generator) -> Vec:
    """``count`` directions as rows (count, n), with ``E U U' = I`` (not the published ones)."""
    root = math.sqrt(n)
    if directions == "orthonormal" and count == n:
        return root * torch.eye(n, dtype=torch.float64)
    U: Vec = torch.randn(count, n, generator=rng, dtype=torch.float64)
    if directions in ("unit", "published"):
        U /= torch.linalg.vector_norm(U, dim=1, keepdim=True)
        U *= root if directions == "unit" else 1.0
    elif directions == "orthonormal":
        U = torch.cat([root * torch.linalg.qr(part.T)[0].T for part in U.split(n)])
    return U


@dataclass(slots=True)
class Paths:
    """The base path, and the perturbed ones that the hypergradient is made of."""

    options: PZOBOOptions
    count: int
    exact: bool
    start: Vec
    rng: torch.Generator
    gradients: Gradients
    origin: Vec | None = None
    lipschitz: float = 0.0

    def length(self, oracle: Oracle, x: Vec, y: Vec) -> float:
        """1/L along y, by differences of lower gradients."""
        if self.options.lower_step:
            return self.options.lower_step
        if not self.lipschitz or not self.options.lower_steps:
            top = power_iteration(lambda z: oracle.grad_f(x, z), y, self.rng, steps=8)
            self.lipschitz = top if top > 0 else 1.0
        return 1.0 / self.lipschitz

    def draw(self, n: int) -> Vec:
        """Q directions as rows."""
        return drawn(self.options.directions, self.count, n, self.rng)

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The end of the base path, and the residual at the start."""
        o = self.options
        self.origin = y = y if o.warm else self.start
        path = Path(y, self.length(oracle, x, y), "always")
        if o.lower_steps:
            first = extend(oracle, x, path, 1)
            extend(oracle, x, path, o.lower_steps - 1)
            return packed(oracle, x, path, exact=False, ended="limit"), first
        first = oracle.domain_y.projected_gradient_norm(y, oracle.grad_f(x, y))
        end, reached = _descend(oracle, x, y, path.step, tied(first, scale, accuracy))
        return packed(
            oracle,
            x,
            Path(end, path.step),
            exact=True,
            ended="reached" if reached else "limit",
        ), first

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """``1/Q sum_j <delta_j, F_y> U_j`` by perturbed paths, all in one batch: the indirect part
        of the hypergradient, with its sign turned as in implicit differentiation.
        """
        o = self.options
        x, d = point.x, point.gF_y
        mu = o.difference * (1.0 + norm(x)) / math.sqrt(max(oracle.n, 1))
        U = self.draw(oracle.n)
        if o.central and self.exact:
            ends = self._ends(oracle, torch.cat([x + mu * U, x - mu * U]), point, accuracy)
            delta = (ends[: self.count] - ends[self.count :]) / (2.0 * mu)
        else:
            delta = (self._ends(oracle, x + mu * U, point, accuracy) - point.y) / mu
        along = (delta @ d) @ U / self.count
        return Adjoint(torch.zeros_like(d), -along, math.nan, 0)

    def _ends(self, oracle: Oracle, X: Vec, point: Point, accuracy: Accuracy) -> Vec:
        """Paths at the rows of X: N steps from the common start, or from the response until what x
        changed is answered.
        """
        o = self.options
        step = self.length(oracle, point.x, point.y)
        if o.lower_steps:
            assert self.origin is not None
            return fixed_paths(oracle, self.gradients, X, self.origin, step, o.lower_steps)
        fraction = 0.1 * min(accuracy.level, accuracy.change)
        return solved_paths(oracle, self.gradients, X, point.y, step, fraction, MOST)


def _descend(oracle: Oracle, x: Vec, y: Vec, step: float, tol: float) -> tuple[Vec, bool]:
    """Projected gradient steps until the residual is at most ``tol`` or the steps are rounding."""
    domain = oracle.domain_y
    for _ in range(MOST):
        g = oracle.grad_f(x, y)
        residual = domain.projected_gradient_norm(y, g)
        if residual <= tol or step * residual <= 1e-15 * norm(y):
            return y, True
        y = domain.project(y - step * g)
    return y, False
