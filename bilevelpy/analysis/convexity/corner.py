"""Where the Hessian of a quadratic lower level is least.

With ``f = q(y) + sum_k c_k(x) g_k(y)``, g_k convex and quadratic, f_yy grows with every c_k. Where
all of them are at their least at one x, f_yy there is below that at every other x, and its least
eigenvalue is a modulus of f.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.bounds.least import SHAVE
from bilevelpy.analysis.structure import Evidence
from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.ranges import Ranges
    from bilevelpy.analysis.convexity.judge import Verdict
    from bilevelpy.analysis.forms.scope import Scope


def is_least(
    scope: Scope, ranges: Ranges, verdicts: Iterable[Verdict], upper: Mapping[str, Any]
) -> bool:
    """Whether every coefficient of a curved term is nowhere below what it is at ``upper`` (values
    of the upper variables), and not negative. False where x stands elsewhere in such a term.
    """
    values = {("upper", name): value for name, value in upper.items()}
    interpreter = Interpreter(scope.bound.data, values, scope.bound.program.externs)
    for v in verdicts:
        core, factors = v.term.core, v.term.factors
        moving = [core]
        if isinstance(core, ir.Einsum):
            moving = [o for o in core.operands if o in scope.moving]
            factors = (*factors, *(o for o in core.operands if o not in scope.moving))
        shifting = [c for c in factors if c in scope.shifting]
        inside = any(o in scope.shifting for o in moving)
        if v.affine or not (shifting or inside):
            continue
        if inside or not v.convex or v.evidence is not Evidence.PROVED:
            return False
        for c in shifting:
            least = ranges.bounds(c)[0]
            if not least >= 0.0 or not interpreter.value(c).max(initial=0.0) <= least * (1 + SHAVE):
                return False
    return True
