"""``nlp``: local optima of problems with smooth constrained followers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.nlp.options import NLPOptions
from bilevelpy.backends.nlp.run import Run
from bilevelpy.backends.whole import Hooks, ProgramAnswer, writing
from bilevelpy.options import BackendOptions, SolveOptions

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Lower variables and constraints beyond which the conditions are not written out.
WRITTEN = 20_000
# Lower variables up to which the reduced form (of any number of upper variables) is affordable.
SOLVED = 200_000
# What only the joined conditions of convex followers describe.
_JOINED = {
    "nash": "solves games of convex followers only",
    "duals": "knows the shadow prices of convex followers only",
    "reported_duals": "knows the shadow prices of convex followers only",
}


class NLP:
    """Local optima, by the followers' conditions or by the reduced form.

    Small and middling problems: conditions with relaxed complementarity from several starts::

        min F   s.t.   G <= 0,   grad_y L = 0,   0 <= lam, 0 <= s,  lam s <= eps,   eps -> 0

    Followers that are not convex are solved from several starts at every point found; a response
    that a follower prefers becomes a further row. Games and shadow prices (of convex followers)
    come with the conditions: all players and multipliers are variables. Large families of convex
    quadratic followers: F along their solved responses, with derivatives by the KKT adjoint.
    """

    name: ClassVar[str] = "nlp"
    title: ClassVar[str] = "optimality conditions or reduced form, interior point, local"
    reference: ClassVar[str] = "Scholtes2001"
    options: ClassVar[type[BackendOptions]] = NLPOptions

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Smooth followers in continuous variables."""
        s = structure
        if "single_level" in s.unsupported:
            return Reject("needs a lower level", s.unsupported["single_level"])
        if "psd" in s.unsupported:
            return Reject("needs followers in scalar rows", s.unsupported["psd"])
        for key, reason in _JOINED.items():
            if key in s.unsupported and s.convexity.value == "nonconvex":
                return Reject(reason, s.unsupported[key])
        if "steps" in s.unsupported:
            return Reject("solves followers to their optima", s.unsupported["steps"])
        if s.externs.value:
            return Reject("needs every function written in the model", s.externs)
        in_files = s.streamed or s.statistics
        if in_files is not None:
            return Reject("takes the data as a whole, into memory", in_files)
        if s.lower.discrete.value or s.upper.discrete.value:
            fact = s.lower.discrete if s.lower.discrete.value else s.upper.discrete
            return Reject("needs continuous variables", fact)
        if s.stance == "pessimistic" and not s.unique.value:
            return Reject("takes the optimistic reading", s.unsupported.get("pessimistic"))
        size = s.dim_x + s.dim_y + s.lower_constraints
        quadratic = s.lower.form.value in ("linear", "quadratic")
        if size > (SOLVED if quadratic else WRITTEN):
            return Reject(
                f"takes followers other than quadratic ones up to {WRITTEN:,} variables and rows",
                s.lower.form,
            )
        warnings: tuple[str, ...] = ()
        if not s.is_convex:
            warnings = ("the lower level is not known to be convex: responses are local ones",)
        return Accept("a local optimum, from several starts", warnings)

    def cost(self, structure: Structure) -> Cost:
        """A sparse factor of the conditions, for some hundred iterations."""
        size = structure.dim_x + structure.dim_y + structure.lower_constraints
        return Cost(gradients=1e2, products=0.0, flops=1e3 * (1.0 + size))

    def solve(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: NLPOptions,
        verify: bool,
        hooks: Hooks | None = None,
    ) -> ProgramAnswer:
        """Solve a bound program."""
        with writing("nlp", options.time_limit):
            run = Run(bound, options, settings, verify, hooks or Hooks())
        return run.answer()
