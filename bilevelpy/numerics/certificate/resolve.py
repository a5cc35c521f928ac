"""Independent re-solves for the certificate: fresh factors, tight tolerances, nothing taken from a
backend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.block_curvature import comes_in_parts, curvature_of
from bilevelpy.numerics.lower.group_newton import minimise
from bilevelpy.numerics.lower.hypergradient import Adjoint, dense_adjoint, krylov_adjoint
from bilevelpy.numerics.lower.krylov import newton_cg
from bilevelpy.numerics.lower.solve import LowerSolution

Vec = torch.Tensor

# Lower variables up to which a dense Hessian is always affordable.
DENSE = 400
# Up to this size too where a Hessian with its factor costs no more than so many gradients.
LARGE, CHEAP = 5000, 50.0
# Residuals of large lower levels, relative to the gradient that an error of 100 % in y would cause.
LEVEL = 1e-9
# The same where values are compared: F is corrected for the residual, what is left is its square.
NEARLY = 1e-7
# The same at points where only the size of the hypergradient is asked for.
ROUGH = 1e-5
# Newton steps of small lower levels, relative to y, that belong to these accuracies.
STEPS = {LEVEL: 1e-11, NEARLY: 1e-9, ROUGH: 1e-6}
# A factor from so near, relative to y, serves the adjoint as well as one made at the response.
NEAR = 1e-5
# Residuals of the adjoint system: a hundredth of the tightest claim that is made of it.
ADJOINT, ROUGH_ADJOINT = 1e-6, 1e-3
# Curvature along a direction, relative to a random direction's, that counts as none at all.
FLAT = 1e-9


@dataclass(frozen=True, slots=True)
class Answer:
    """The response at x with its hypergradient; ``value`` is Phi(x), corrected for the lower
    residual. ``by_y`` is the norm of dF/dy.
    """

    x: Vec
    lower: LowerSolution
    F: float
    value: float
    gradient: Vec
    size: float
    adjoint: Adjoint
    by_y: float


class Resolver:
    """Solves the lower level and the adjoint of one oracle to tight accuracy."""

    def __init__(self, oracle: Oracle, x: Vec, y: Vec, rng: torch.Generator) -> None:
        self.oracle = oracle
        self.dense = self.is_small(oracle)
        self.curvature = curvature_of(oracle)
        v = torch.randn(oracle.m, generator=rng, dtype=torch.float64)
        v = v / max(norm(v), 1e-300)
        self.bend = norm(oracle.hvp(x, y)(v)) if oracle.m else 0.0
        away = oracle.domain_y.projected_gradient_norm(oracle.y0, oracle.grad_f(x, oracle.y0))
        self.gradient_scale = max(self.bend * norm(y), away if math.isfinite(away) else 0.0)

    @staticmethod
    def is_small(oracle: Oracle) -> bool:
        """Whether a dense Hessian is affordable here."""
        price = getattr(oracle, "hessian_price", math.inf)
        if comes_in_parts(oracle) or getattr(oracle, "support_only", False):
            return True
        return oracle.m <= DENSE or (oracle.m <= LARGE and price <= CHEAP)

    def respond(self, x: Vec, y: Vec, level: float = LEVEL) -> LowerSolution:
        """Minimise f(x, .) from y to an accuracy of :data:`STEPS`."""
        if self.dense:
            return minimise(
                self.oracle, x, y, self.curvature, tol=STEPS[level], scale=1e-3 * norm(y)
            )
        return newton_cg(self.oracle, x, y, tol=level * self.gradient_scale, max_cg=1000)

    def solved(self, x: Vec, y: Vec, level: float = LEVEL) -> LowerSolution | None:
        """The same; None where the lower level has no finite solution."""
        lower = self.respond(x, y, level)
        usable = lower.usable or lower.ended == "limit"
        return lower if usable and math.isfinite(lower.f) else None

    def unsolved(self, lower: LowerSolution) -> float:
        """What is left of the lower gradient where a solve has not reached its tolerance, beside
        the gradient that an error of 100 % in y would cause.
        """
        if lower.ended == "reached":
            return 0.0
        scale = max(self.gradient_scale, self.bend * norm(lower.y))
        return lower.residual / max(scale, 1e-300)

    def answer(
        self, x: Vec, y: Vec, guide: Answer | None = None, *, rough: bool = False
    ) -> Answer | None:
        """Response and hypergradient at x; None where the lower level has no finite solution.

        ``rough`` is for points whose hypergradient only serves as a scale: a percent will do.
        """
        lower = self.solved(x, y, ROUGH if rough else LEVEL)
        if lower is None:
            return None
        F, gF_x, gF_y = self.oracle.value_grad_F(x, lower.y)
        u0 = guide.adjoint.u if guide is not None else None
        if self.dense:
            if not rough and not self._is_near(x, lower.y):
                self.curvature.refresh(self.oracle, x, lower.y)
            adjoint = dense_adjoint(
                self.oracle,
                x,
                lower.y,
                lower.face,
                gF_y,
                self.curvature,
                tol=ROUGH_ADJOINT if rough else 1e-11,
            )
        else:
            adjoint = krylov_adjoint(
                self.oracle,
                x,
                lower.y,
                lower.face,
                gF_y,
                tol=ROUGH_ADJOINT if rough else ADJOINT,
                change=1e-2 if rough else 1e-4,
                u0=u0,
                max_iter=2000,
            )
        value = F - dot(adjoint.u, lower.face.project(lower.gradient))
        return Answer(
            x,
            lower,
            F,
            value,
            gF_x - adjoint.cross,
            norm(gF_x) + norm(adjoint.cross),
            adjoint,
            norm(gF_y),
        )

    def _is_near(self, x: Vec, y: Vec) -> bool:
        """Whether the factor was made almost here."""
        place = getattr(self.curvature, "place", None)
        return (
            place is not None and torch.equal(place[0], x) and norm(place[1] - y) <= NEAR * norm(y)
        )

    def value(self, x: Vec, base: Answer) -> float | None:
        """Phi at x near the base point, from a response that starts there."""
        lower = self.respond(x, base.lower.y, NEARLY)
        if not math.isfinite(lower.f) or lower.ended in ("unbounded", "nonfinite"):
            return None
        F = self.oracle.F(x, lower.y)
        return F - dot(base.adjoint.u, lower.face.project(lower.gradient))

    def hypergradient(self, x: Vec, y: Vec, face: Face) -> Vec:
        """dPhi/dx as if the response stayed on ``face``."""
        _, gF_x, gF_y = self.oracle.value_grad_F(x, y)
        if self.dense:
            self.curvature.refresh(self.oracle, x, y)
            adjoint = dense_adjoint(self.oracle, x, y, face, gF_y, self.curvature)
        else:
            adjoint = krylov_adjoint(self.oracle, x, y, face, gF_y, tol=1e-3, max_iter=2000)
        return gF_x - adjoint.cross

    def is_flat(self, x: Vec, a: Vec, b: Vec) -> bool:
        """Whether f has no curvature along ``b - a``: both can then be solutions."""
        d = b - a
        d = d / max(norm(d), 1e-300)
        along = dot(d, self.oracle.hvp(x, 0.5 * (a + b))(d))
        return along <= FLAT * max(self.bend, 1e-300)
