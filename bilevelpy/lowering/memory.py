"""How large the intermediate results of a program are, from sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.objectives import lower_objective, upper_objective
from bilevelpy.ir.program import BoundProgram
from bilevelpy.ir.walk import postorder

# Leaves that exist anyway, and broadcasts, which are never stored.
_FREE = (ir.ParamRef, ir.VarRef, ir.Const, ir.Fill, ir.Align, ir.Position)


def widest(bound: BoundProgram, roots: Sequence[Expr]) -> tuple[int, Expr | None]:
    """The node below the roots with the most entries, and their number."""
    best: tuple[int, Expr | None] = (0, None)
    for node in postorder(roots):
        if not isinstance(node, _FREE):
            entries = prod(bound.data.sizes[a] for a in node.axes)
            if entries > best[0]:
                best = (entries, node)
    return best


def largest_intermediate(bound: BoundProgram) -> tuple[int, Expr | None]:
    """Bytes of the largest intermediate result of F and f in float64, and the node that makes
    it.
    """
    program = bound.program
    entries, node = widest(bound, (upper_objective(program)[0], lower_objective(program)[0]))
    return 8 * entries, node
