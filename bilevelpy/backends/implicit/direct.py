"""``direct``: Newton lower solve and Cholesky adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from bilevelpy.analysis.forms.smooth import ABSOLUTE, GROUPS
from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_implicit, warn_implicit
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.implicit.base import DenseSolver, Implicit
from bilevelpy.backends.loop import check_range
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.lower.block_curvature import curvature_of
from bilevelpy.numerics.lower.quadratic import quadratic_lower
from bilevelpy.numerics.lower.response import Accuracy, NewtonStep, Response
from bilevelpy.numerics.upper import two_ways
from bilevelpy.numerics.upper.eliminated import eliminated, eliminated_sparsely
from bilevelpy.numerics.upper.newton import reduced_newton
from bilevelpy.numerics.upper.optimizer import UpperState
from bilevelpy.options import BackendOptions

LARGEST = 3000
# The same where one factor serves the whole run.
LARGEST_ONCE = 5000
# Independent blocks of so many variables at most are factorised as a batch, whatever their number.
BLOCK = 200
# The finest accuracies that solves are asked for: there is nothing to tighten below.
FINEST, CHANGE = 1e-9, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectOptions(BackendOptions):
    """Options of ``direct``.

    ``lower_tol``: Newton step, relative to y, at which the lower level counts as solved.
    ``constant_hessian``: say that f_yy depends on neither x nor y (it is factorised once either
    way; this skips the checks).
    """

    lower_tol: float = 1e-10
    constant_hessian: bool = False

    def __post_init__(self) -> None:
        check_range(self, "direct", 0.0, 1.0, "lower_tol", closed=False)


def small_blocks(structure: Structure) -> bool:
    """Whether the lower level falls into many small problems over boxes and simplices."""
    few = structure.dim_y <= BLOCK * structure.blocks
    return structure.blocks > 1 and few and structure.lower.is_flat


def banded(structure: Structure) -> bool:
    """Whether f_yy is a narrow band on boxes and few simplices."""
    return structure.bands is not None and structure.lower.is_flat


def on_support(structure: Structure) -> bool:
    """Whether matrices are those of supports alone: weighted absolute values or norms of groups
    below, and functions of affine predictors, whose rows and columns are to be had one by one.
    """
    kinked = structure.lower.smooth.reason in (ABSOLUTE, GROUPS)
    return kinked and structure.hessian_passes is not None


class Direct(Implicit):
    """Exact hypergradients for lower levels with up to some 3,000 variables, or any number in
    small independent blocks.

    The response is solved by Newton's method with a dense Hessian (on the free face for boxes,
    simplices and balls), and the same Cholesky factor solves the adjoint system::

        H u = dF/dy,   dPhi/dx = dF/dx - f_xy u,   H = f_yy(x, y(x))

    A factor is kept while its steps contract: with a constant Hessian there is one in the whole
    run. The upper variables move by projected L-BFGS with a Wolfe search; up to 600 of them (1,200
    above least squares), over boxes and with a smooth free lower level, by Newton's steps once a
    run is long enough to pay for the second derivative of Phi
    (:mod:`bilevelpy.numerics.upper.newton`), where x are penalties in coordinates in which their
    effect on the fit is linear (:mod:`bilevelpy.numerics.upper.shrinkage`). With quadratic
    objectives Phi is quadratic, and one step solves; where the lower level has bounds it is so in
    pieces, and two runs from the start, by whole steps from piece to piece and by L-BFGS, end at
    minima of which the better one counts (:mod:`bilevelpy.numerics.upper.pieces`).

    Cost per upper step: one to three value-gradient pairs, at most a few Hessians and factors
    (m^3/3 flops each), one or two pullbacks; a second derivative of Phi takes 2 n products and n
    solves, in all at most as many passes over the data as the steps.
    """

    name: ClassVar[str] = "direct"
    title: ClassVar[str] = "Newton lower solve with a Cholesky adjoint"
    reference: ClassVar[str] = "Gould2016"
    options: ClassVar[type[BackendOptions]] = DirectOptions
    on_support: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level over free, box, simplex, ball or semidefinite
        variables, m <= 3000; or a convex one with weighted absolute values or norms of groups. One
        of the minimisers of a smooth lower level that is not known to be convex.
        """
        refusal = refuse_implicit(structure, groups=True)
        if refusal is not None:
            return refusal
        once = structure.lower_hessian.value == "constant"
        limit = LARGEST_ONCE if once else LARGEST
        easy = small_blocks(structure) or on_support(structure) or banded(structure)
        if structure.dim_y > limit and not easy:
            return Reject(
                f"factorises a dense Hessian: at most {limit} lower variables, found "
                f"{structure.dim_y}",
                None,
            )
        return Accept(
            "exact hypergradient from one dense factor per upper step", warn_implicit(structure)
        )

    def cost(self, structure: Structure) -> Cost:
        """Dense linear algebra in m."""
        m = structure.dim_y
        if small_blocks(structure):
            q = m // structure.blocks
            return Cost(
                gradients=3.0,
                products=q + 2.0,
                flops=m * q * (2.0 + q / 3),
                memory=24.0 * m * q,
            )
        once = structure.lower_hessian.value == "constant"
        if structure.bands is not None and banded(structure):
            products, width = structure.bands.value
            return Cost(
                gradients=3.0,
                products=2.0 if once else products + 2.0,
                flops=float(m) * (width + 1.0) * (2.0 if once else width + 3.0),
                memory=24.0 * m * (width + 1.0),
            )
        return Cost(
            gradients=3.0,
            products=2.0 if once else 2.0 * m + 2.0,
            flops=2.0 * m**2 + (0.0 if once else m**3 / 3),
            memory=24.0 * m**2,
        )

    def step(self, oracle: Oracle, state: UpperState, options: DirectOptions) -> UpperState:
        """One step; from the end of whole steps over pieces of Phi back to the start, once."""
        return two_ways.step(state)

    def measure(self, oracle: Oracle, state: UpperState) -> Measure:
        """Read the state."""
        return two_ways.described(super().measure(oracle, state), state)

    def response(self, oracle: Oracle, options: DirectOptions) -> Response:
        """Both solves share a factor; their accuracies follow the upper level's progress, but where
        f is quadratic in y, and both are exact at once.
        """
        solver = DenseSolver(
            curvature_of(oracle, constant=options.constant_hessian, borrows=True), options.lower_tol
        )
        exact = quadratic_lower(oracle, solver)
        if exact is not None:
            finest = Accuracy(level=FINEST, change=CHANGE, floor=FINEST)
            newton: NewtonStep | None = eliminated(oracle, exact) or reduced_newton(
                oracle, exact.columns_on, options.tol, kept=True
            )
            return Response(oracle, exact, finest, correct=False, guesses=False, newton=newton)
        tied = Accuracy(level=1e-2, change=1e-1, floor=FINEST)
        newton = eliminated_sparsely(oracle) or reduced_newton(
            oracle, partial(solver.columns, oracle), options.tol
        )
        return Response(oracle, solver, tied, newton=newton)
