"""``blocc``: hypergradients of constrained lower levels from penalised saddle points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_other_than_rows
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.backends.value_function.f2ba import F2BA, F2BAOptions, Penalised
from bilevelpy.backends.value_function.weighted import Inner, Weighted
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.response import NO_METHOD, Accuracy
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.rows.multipliers import ConstrainedOracle, MultiplierMethod, Scaled
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

# Multipliers are not found to more digits than this by gradients alone.
FINEST = 1e-10
DUALS = ("accelerated", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class BLOCCOptions(F2BAOptions):
    """Options of ``blocc``.

    ``weight`` gamma, ``order``, ``upper``, ``upper_step`` as in ``f2ba``. With ``upper="gd"``, the
    paper's loops: ``dual_steps`` of ascent of length ``dual_step`` on the multipliers, ``dual``
    accelerated (Nesterov) or plain, each after ``lower_steps`` gradient steps on y of
    ``lower_step`` (0: ``2 / (L + mu)``).
    """

    dual: str = "accelerated"
    dual_steps: int = 50
    dual_step: float = 0.0

    def __post_init__(self) -> None:
        F2BAOptions.__post_init__(self)
        check_choices(self, "blocc", dual=DUALS)
        check_range(self, "blocc", 1, 10**6, "dual_steps")
        check_range(self, "blocc", 0.0, math.inf, "dual_step")


class BLOCC(F2BA):
    """Bilevel optimization with coupled constraints, by two saddle points [Jiang2024]_.

    For ``min_x F(x, y(x))`` with ``y(x) = argmin f(x, .)`` over ``c(x, y) <= 0`` and ``== 0``::

        (y_g, l_g): saddle of f + l'c,     (y_F, l_F): saddle of F + gamma f + l'c
        h = F_x(x, y_F) + gamma (f_x(x, y_F) - f_x(x, y_g)) + c_x' l_F - gamma c_x' l_g

    with c_x' at y_F and y_g. By default both problems are solved by the method of multipliers,
    differences are central in 1/gamma (``order=2``: a third saddle of ``gamma f - F``, error
    1/gamma^2 while the active set stays), x moves by projected L-BFGS, and gamma grows by tens
    until the hypergradient no longer depends on it. No second derivatives are needed, and no
    constraint qualification to run.

    Cost per upper step: two or three lower problems, each some tens of lower gradients, values and
    transposed products of c; one to three upper gradients.
    """

    name: ClassVar[str] = "blocc"
    title: ClassVar[str] = "Penalised saddle points for lower constraints"
    reference: ClassVar[str] = "Jiang2024"
    options: ClassVar[type[BackendOptions]] = BLOCCOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A strongly convex lower level with smooth convex constraints, coupled or not."""
        refusal = refuse_other_than_rows(structure, "`f2ba` is the method without them")
        if refusal is not None:
            return refusal
        if structure.convexity.value != "strongly convex":
            return Reject("needs a strongly convex lower level", structure.convexity)
        if structure.lower.constraints.value == "nonconvex":
            return Reject("needs convex lower constraints", structure.lower.constraints)
        return Accept("lower constraints by multipliers, gradients only")

    def cost(self, structure: Structure) -> Cost:
        """Three constrained problems a step."""
        kappa = structure.likely_condition
        return Cost(
            gradients=1000.0 * math.sqrt(kappa), products=0.0, memory=1000.0 * structure.dim_y
        )

    def penalised(
        self, oracle: Oracle, accuracy: Accuracy, options: F2BAOptions, rng: torch.Generator
    ) -> Penalised:
        """Saddle points in the place of minimisers."""
        return Saddles(oracle, NO_METHOD, accuracy, options=options, rng=rng)


@dataclass(slots=True)
class Saddles(Penalised):
    """``Phi_gamma`` of a constrained lower level."""

    def make(self, x: Vec, y: Vec) -> Inner:
        """A saddle problem without memories."""
        oracle, options = cast(ConstrainedOracle, self.oracle), self.options
        assert isinstance(options, BLOCCOptions)
        return Saddle(y, self.rng, options=options, rows=Scaled(oracle.g, x, y, self.rng))


@dataclass(slots=True)
class Saddle(Inner):
    """``a f + b F + l'c`` with its saddle point (y, l), rows of c scaled to length one."""

    options: BLOCCOptions = field(default_factory=BLOCCOptions)
    rows: Scaled = field(kw_only=True)
    method: MultiplierMethod | None = None

    def solve(self, oracle: Oracle, x: Vec, a: float, b: float, level: float) -> LowerSolution:
        """The saddle point by the method of multipliers."""
        method = self._method()
        found = method.solve(Weighted(oracle, a, b), x, max(level, FINEST))
        oracle.counts.lower_solves += 1
        self.scale = max(self.scale, method.scale)
        if found.ended not in ("nonfinite", "unbounded"):
            self.y = found.y
        return found

    def descend(self, oracle: Oracle, x: Vec, a: float, b: float, step: float, steps: int) -> Vec:
        """The paper's solver: projected (accelerated) ascent on l, each after ``steps`` gradient
        steps on y.
        """
        problem, rows, o = Weighted(oracle, a, b), self.rows, self.options
        length = o.dual_step or 0.5 / step
        method = self._method()
        now = ahead = method.multipliers
        for k in range(o.dual_steps):
            for _ in range(steps):
                g = problem.grad_f(x, self.y) + rows.vjp(x, self.y)(ahead)[1]
                self.y = oracle.domain_y.project(self.y - step * g)
            new = rows.project(ahead + length * rows.values(x, self.y))
            ahead = new if o.dual == "plain" else rows.project(new + k / (k + 3.0) * (new - now))
            now = new
        method.multipliers, method.y = now, self.y
        return self.y

    def value_gradient(self, oracle: Oracle, x: Vec) -> tuple[float, Vec]:
        """``f + l'c`` and its gradient in y."""
        f, g = oracle.value_grad_f(x, self.y)
        prices = self._method().multipliers
        more = float(prices @ self.rows.values(x, self.y))
        return f + more, g + self.rows.vjp(x, self.y)(prices)[1]

    def value(self, oracle: Oracle, x: Vec) -> float:
        """``f + l'c``: the violation that is left counts to first order only in this sum."""
        return oracle.f(x, self.y) + float(self._method().multipliers @ self.rows.values(x, self.y))

    def slope(self, oracle: Oracle, x: Vec) -> Vec:
        """``f_x + c_x' l``."""
        push = self.rows.vjp(x, self.y)(self._method().multipliers)[0]
        return oracle.grad_f_x(x, self.y) + push

    def restart(self, y: Vec) -> None:
        """Begin again at y, without multipliers."""
        self.y, self.method = y, None

    def reset(self) -> None:
        """Forget curvature pairs of another weight."""
        self._method().memory.reset()

    def _method(self) -> MultiplierMethod:
        if self.method is None:
            none = torch.zeros(self.rows.size, dtype=torch.float64)
            self.method = MultiplierMethod(self.rows, self.y, self.rng, none)
        return self.method
