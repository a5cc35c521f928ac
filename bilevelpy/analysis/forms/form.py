"""The degree of expressions in a level's variables, and how its second derivatives move.

A profile maps each degree of the polynomial parts of an expression in its moving variables to
whether the coefficients of that degree depend on the other level. What is no polynomial has the
degree ``NONLINEAR``, what an extern function hides ``HIDDEN``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import place, postorder

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

NONLINEAR = 1000
HIDDEN = 1001
# Degrees beyond this one are all called polynomial, so one profile entry holds them.
TOP_DEGREE = 8

Profile = dict[int, bool]


def _merge(parts: list[Profile]) -> Profile:
    total: Profile = {}
    for part in parts:
        for degree, shifts in part.items():
            total[degree] = total.get(degree, False) or shifts
    return total


def _multiply(a: Profile, b: Profile) -> Profile:
    total: Profile = {}
    for p, sp in a.items():
        for q, sq in b.items():
            degree = max(p, q) if max(p, q) >= NONLINEAR else min(p + q, TOP_DEGREE)
            total[degree] = total.get(degree, False) or sp or sq
    return total


def _power(a: Profile, exponent: int) -> Profile:
    total = a
    for _ in range(exponent - 1):
        total = _multiply(total, a)
    return total


class Forms:
    """Profiles of the nodes of one scope, each computed once."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._known: dict[ir.Expr, Profile] = {}

    def profile(self, root: ir.Expr) -> Profile:
        """The profile of a node."""
        if root not in self._known:
            for node in postorder(root):
                if node not in self._known:
                    self._known[node] = self._visit(node)
        return self._known[root]

    def degree(self, root: ir.Expr) -> int:
        """The largest degree (0 where nothing moves)."""
        return max(self.profile(root))

    def is_affine(self, root: ir.Expr) -> bool:
        """Whether the node is affine in the moving variables."""
        return self.degree(root) <= 1

    def _visit(self, node: ir.Expr) -> Profile:
        if node not in self.scope.moving:
            return {0: node in self.scope.shifting}
        parts = [self._known[c] for c in node.children]
        match node:
            case ir.VarRef():
                return {1: False}
            case ir.Apply(function="add" | "neg"):
                return _merge(parts)
            case ir.Apply(function="square"):
                return _power(parts[0], 2)
            case ir.Apply(function="pow", operands=(_, ir.Const(value=value))) if value in (
                1,
                2,
                3,
                4,
                5,
                6,
            ):
                return _power(parts[0], int(value))
            case ir.Apply(function="select") if node.operands[0] not in self.scope.moving:
                return _merge(parts[1:])
            case ir.Einsum():
                total: Profile = {0: False}
                for part in parts:
                    total = _multiply(total, part)
                return total
            case (
                ir.Reduce(function="sum")
                | ir.Align()
                | ir.Gather()
                | ir.ScatterSum()
                | ir.Concat()
                | ir.Diag()
            ):
                return _merge([self._known[c] for c in node.children if c in self.scope.moving])
            case ir.Reduce(function="prod") if max(parts[0]) < NONLINEAR:
                return {TOP_DEGREE: any(parts[0].values())}
            case ir.DualRef():
                return {HIDDEN: False}
            case ir.ExternCall():
                return {HIDDEN: any(any(p.values()) for p in parts)}
            case _:
                hidden = any(HIDDEN in p for p in parts)
                return {HIDDEN if hidden else NONLINEAR: any(any(p.values()) for p in parts)}

    def first_of_degree(self, roots: list[ir.Expr], least: int) -> ir.Expr | None:
        """The first smallest node whose degree reaches ``least``."""
        for root in roots:
            self.profile(root)
            for node in postorder(root):
                if max(self._known[node]) >= least:
                    return node
        return None


def form_name(degree: int) -> str:
    """The word for a largest degree."""
    if degree >= HIDDEN:
        return "unknown"
    if degree >= NONLINEAR:
        return "nonlinear"
    return {0: "linear", 1: "linear", 2: "quadratic"}.get(degree, "polynomial")


def form_fact(forms: Forms, roots: list[ir.Expr], whose: str) -> Fact[str]:
    """The class of a level's objectives in ``whose`` variables."""
    degree = max((forms.degree(r) for r in roots), default=0)
    name = form_name(degree)
    node = forms.first_of_degree(roots, degree) if degree > 1 else None
    reasons = {
        "linear": f"every term is affine in the {whose} variables",
        "quadratic": f"no term has a degree above 2 in the {whose} variables",
        "polynomial": f"a polynomial of degree 3 or more in the {whose} variables",
        "nonlinear": f"a function of the {whose} variables that is no polynomial",
        "unknown": "an extern function, or a shadow price, hides the form",
    }
    return Fact(
        name, Evidence.PROVED, reasons[name], _root_place(roots) if node is None else place(node)
    )


def _root_place(roots: list[ir.Expr]) -> Span | None:
    return place(roots[0]) if roots else None


def hessian_fact(forms: Forms, roots: list[ir.Expr]) -> Fact[str]:
    """How f_yy moves: its parts are the terms of degree 2 and more."""
    total = _merge([forms.profile(r) for r in roots]) if roots else {0: False}
    on_y = any(degree >= 3 for degree in total)
    on_x = any(shifts for degree, shifts in total.items() if degree >= 2)
    hidden = HIDDEN in total
    if hidden:
        return Fact(
            "depends on both",
            Evidence.PROVED,
            "an extern function may depend on everything it reads",
        )
    node = forms.first_of_degree(roots, 3 if on_y else 2)
    span = place(node) if node is not None else None
    if on_x and on_y:
        return Fact(
            "depends on both",
            Evidence.PROVED,
            "terms beyond degree 2, some with upper variables",
            span,
        )
    if on_y:
        return Fact(
            "depends on y",
            Evidence.PROVED,
            "terms beyond degree 2, none with upper variables",
            span,
        )
    if on_x:
        return Fact(
            "depends on x", Evidence.PROVED, "quadratic in y, with coefficients that read x", span
        )
    return Fact(
        "constant",
        Evidence.PROVED,
        "quadratic in y, with coefficients that read neither level",
        span,
    )
