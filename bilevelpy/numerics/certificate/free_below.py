"""Followers without rows below rows of the leader, solved again by the oracle.

Their objective may be a sum over thousands of samples: entry by entry it is an expression of
millions of terms, and no general solver takes hundreds of variables. Without rows of their own,
Newton's method on the simple set does, and a gap of f and other starts tell what they tell of
models without any rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.certificate.case import Case
from bilevelpy.numerics.certificate.constrained import FEASIBLE, Findings, check_upper
from bilevelpy.numerics.certificate.followers import Followers
from bilevelpy.numerics.certificate.lower import LowerCheck
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]


def is_free_below(oracle: TorchOracle, structure: Structure | None) -> bool:
    """Whether the lower level is smooth and known to be convex, in simple sets without rows, and
    not quadratic (quadratic programs have solvers of their own).
    """
    return (
        structure is not None
        and not oracle.g.size
        and not oracle.domain_y.matrices
        and structure.is_known_convex
        and structure.lower.smooth.value
        and structure.stance != "pessimistic"
        and structure.lower_hessian.value not in ("constant", "depends on x")
        and not any(level.nash for level in oracle.bound.program.lowers)
    )


class FreeFollowers(Followers):
    """Their responses for a certificate; ``rows`` hold no lower objectives."""

    def __init__(self, case: Case, rows: System, seed: int, until: float) -> None:
        oracle: Any = case.oracle
        super().__init__(oracle, rows, seed, until, convex=True, affine=True)
        self.case = case
        self.solver = Resolver(oracle, case.x, case.y, case.rng)

    def examined(self, v: Array) -> tuple[Findings, Array | None]:
        """Rows of the leader, bounds, the gap of f and F at the response that is found anew."""
        found, case, o = Findings(), self.case, self.case.oracle
        check_upper(self.rows, v, found)
        found.lower_feasibility = o.domain_y.violation(case.y)
        if found.lower_feasibility > FEASIBLE * max(1.0, float(case.y.abs().max())):
            case.fail(f"lower variables leave their domain by {found.lower_feasibility:.1e}")
        base, solved = self.solver.answer(case.x, case.y), None
        if base is None:
            case.fail("the lower level has no finite solution at the returned x")
        else:
            lower = LowerCheck(case, self.solver, base, o.f(case.x, case.y))
            lower.search()
            found.gap, found.relative = lower.gap()
            lower.agreement(base.size)
            solved = self.columns(case.x, base.lower.y)
        found.failures += case.found.failures
        found.notes += case.found.notes
        return found, solved

    def respond(self, v: Array) -> Array | None:
        """The columns with all followers solved again."""
        check()
        x = self.upper(v)
        found = self.solver.solved(x, self.lower(v))
        return None if found is None else self.columns(x, found.y)
