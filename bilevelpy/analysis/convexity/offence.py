"""Terms that no rule of curvature covers, and why."""

from __future__ import annotations

from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, REDUCTIONS


class Offence(Exception):
    """The smallest node whose curvature stays unknown, and why."""

    def __init__(self, node: ir.Expr, why: str) -> None:
        super().__init__(why)
        self.node = node
        self.why = why


def shape_words(node: ir.Expr) -> str:
    """«concave, increasing » for the functions whose curvature the table of atoms gives."""
    name = getattr(node, "function", "")
    atom = ELEMENTWISE.get(name) or REDUCTIONS.get(name)
    if atom is None or atom.curvature not in ("convex", "concave"):
        return ""
    direction = {"+": "increasing ", "-": "decreasing "}.get(atom.monotone, "")
    return f"{atom.curvature}, {direction}" if direction else f"{atom.curvature} "
