"""``exact``: optimality conditions with complementarity, solved to global optimality by SCIP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.exact.options import ExactOptions
from bilevelpy.backends.whole import Hooks, ProgramAnswer, writing
from bilevelpy.ir.types import DomainKind
from bilevelpy.options import BackendOptions, SolveOptions

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Complementarity pairs beyond which branching does not end in useful time.
LARGEST = 20_000
# Variables of both levels up to which followers are settled by cuts.
SMALL = 60
# The same where followers are linear or quadratic with linear rows, and decide whole numbers.
WHOLE = 2_000
# Entries of matrices and other variables of models of one level.
ENTRIES = 5_000
# Whole numbers of a leader who may try all her choices, and is answered by convex programs.
FEW = 12

_ONLY_CONDITIONS = {
    "nash": "takes games between linear or convex quadratic followers",
    "duals": "takes multipliers of followers that are known to be convex",
    "reported_duals": "takes multipliers of followers that are known to be convex",
}


class Exact:
    """Global optima of problems with linear or convex quadratic followers.

    Every follower is replaced by its optimality conditions; multipliers and slacks are tied by
    special ordered sets, so no bound of a multiplier has to be guessed::

        min F   s.t.   G <= 0,   grad_y f + sum_r lam_r grad_y g_r = 0,   0 <= lam_r  _|_  -g_r >= 0

    SCIP solves that to global optimality. The answer counts as proved only where the followers,
    solved again at the returned x by another solver, confirm it.
    """

    name: ClassVar[str] = "exact"
    title: ClassVar[str] = "optimality conditions with SOS1 in SCIP, global"
    reference: ClassVar[str] = "FortunyAmat1981"
    options: ClassVar[type[BackendOptions]] = ExactOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Linear or convex quadratic followers of any size, others up to some variables."""
        s = structure
        if "psd" in s.unsupported:
            return self._accepts_matrices(s)
        if "steps" in s.unsupported:
            return Reject("solves followers to their optima", s.unsupported["steps"])
        if s.externs.value:
            return Reject("needs every function written in the model", s.externs)
        in_files = s.streamed or s.statistics
        if in_files is not None:
            return Reject("takes the data as a whole, into memory", in_files)
        if s.lower_constraints > LARGEST:
            return Reject(f"branches on at most {LARGEST} constraints of followers", None)
        conditions = s.lower.form.value in ("linear", "quadratic") and (
            s.lower.constraints.value in ("none", "bounds", "linear")
        )
        convex = s.is_convex
        game = s.unsupported.get("nash")
        if conditions and not s.lower.discrete.value and (convex or game is not None):
            return Accept("global optimum by branch and bound over complementarity")
        if self._has_choices(s) and convex:
            return Accept("global optimum: a convex program answers every choice of the leader")
        few = s.upper.domains.value <= {"discrete"}
        if s.stance == "pessimistic" and not s.unique.value and not few:
            return Reject(
                "takes pessimistic leaders of linear and convex quadratic followers, or those who "
                "decide whole numbers only",
                s.unsupported.get("pessimistic"),
            )
        return self._accepts_small(s)

    @staticmethod
    def _has_choices(s: Structure) -> bool:
        """Whether the leader has few choices, and followers rows that convex programs take."""
        rows = s.lower.constraints.value in ("none", "bounds", "linear")
        whole = s.upper.domains.value <= {"discrete"} and not s.lower.discrete.value
        other = s.unsupported.keys() & {"nash", "duals", "reported_duals", "pessimistic"}
        return rows and whole and s.dim_x <= FEW and not other

    @staticmethod
    def _accepts_matrices(s: Structure) -> Accept | Reject:
        """Models of one level, as programs over cones."""
        if "single_level" not in s.unsupported:
            return Reject("takes matrices in models of one level only", s.unsupported["psd"])
        if s.upper.discrete.value:
            return Reject("takes no whole numbers beside matrices", s.upper.discrete)
        if s.dim_x > ENTRIES:
            return Reject(f"takes at most {ENTRIES:,} variables beside matrices", None)
        return Accept("global optimum of a program over cones")

    def _accepts_small(self, s: Structure) -> Accept | Reject:
        """Followers that are settled by cuts and global solves."""
        curved = s.lower.constraints.value not in ("none", "bounds", "linear", "convex")
        convex = s.is_convex and not curved
        for key, reason in _ONLY_CONDITIONS.items():
            if key in s.unsupported and not (key != "nash" and convex):
                return Reject(reason, s.unsupported[key])
        plain = s.lower.form.value in ("linear", "quadratic") and (
            s.lower.constraints.value in ("none", "bounds", "linear")
        )
        most = WHOLE if s.lower.discrete.value and plain else SMALL
        if s.dim_x + s.dim_y > most:
            if s.lower.discrete.value:
                return Reject(f"takes whole followers up to {most} variables", s.lower.discrete)
            fact = s.lower.constraints
            if s.lower.form.value not in ("linear", "quadratic"):
                fact = s.lower.form
            if not s.is_convex:
                fact = s.convexity
            return Reject(
                f"takes followers other than linear and convex quadratic ones up to {SMALL} "
                "variables of both levels",
                fact,
            )
        return Accept("global optimum by cuts from the followers' best responses")

    def cost(self, structure: Structure) -> Cost:
        """Exponential in the number of constraints in the worst case."""
        pairs = structure.lower_constraints + structure.dim_y
        return Cost(gradients=1e3, products=0.0, flops=1e4 * (1.0 + pairs) ** 2)

    def solve(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: ExactOptions,
        verify: bool,
        hooks: Hooks | None = None,
    ) -> ProgramAnswer:
        """Solve a bound program; every outcome of the mathematics is an answer."""
        from bilevelpy.backends.exact.matrices import solve_matrices
        from bilevelpy.backends.exact.run import Run

        with writing("exact", options.time_limit):
            if any(v.domain.kind is DomainKind.PSD for v in bound.program.upper.variables):
                return solve_matrices(bound, options, verify)
            run = Run(bound, options, settings, verify, hooks or Hooks())
        return run.answer()
