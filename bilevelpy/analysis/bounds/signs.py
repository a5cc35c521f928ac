"""Signs of coefficients over the domains of what they read."""

from __future__ import annotations

from bilevelpy.analysis.bounds.least import lower_bound
from bilevelpy.analysis.bounds.ranges import Ranges
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import BoundProgram


class Signs:
    """Signs of expressions: by declared domains where they tell, by the bound data where those do
    not.
    """

    def __init__(self, bound: BoundProgram) -> None:
        self.declared = Ranges(bound, use_data=False)
        self.measured = Ranges(bound, use_data=True)

    def of(self, node: ir.Expr) -> str:
        """The sign: "+" (nowhere negative), "-" (nowhere positive), "0" or "?"."""
        for ranges in (self.declared, self.measured):
            low, high = ranges.bounds(node)
            if low >= 0 and high <= 0:
                return "0"
            if low >= 0:
                return "+"
            if high <= 0:
                return "-"
        return "+" if lower_bound(self.measured, node) >= 0 else "?"

    def product(self, nodes: tuple[ir.Expr, ...]) -> str:
        """The sign of a product."""
        sign = "+"
        for node in nodes:
            sign = SIGN_PRODUCT[sign + self.of(node)]
        return sign


SIGN_PRODUCT = {
    a + b: "0" if "0" in (a, b) else "?" if "?" in (a, b) else ("+" if a == b else "-")
    for a in "+-0?"
    for b in "+-0?"
}
