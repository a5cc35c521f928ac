"""Convexity of terms, judged by cvxpy on stand-ins: shapes of one or two entries, signs, and never
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.analysis.bounds.signs import Signs
from bilevelpy.analysis.convexity.offence import Offence
from bilevelpy.analysis.convexity.plain import is_affine_product, plain_sign
from bilevelpy.analysis.convexity.stand_ins import PRODUCT, StandIns
from bilevelpy.analysis.structure import Evidence
from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import postorder
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.analysis.forms.terms import Term

NEITHER = frozenset({"sin", "cos", "tan", "atan", "tanh", "sinh", "sigmoid", "softmax", "prod"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a term is convex; where not, the smallest offending node and the reason in words."""

    term: Term
    convex: bool
    evidence: Evidence = Evidence.PROVED
    node: ir.Expr | None = None
    why: str = ""
    affine: bool = False


class Judge:
    """Judges terms; what it finds for an expression serves every term that it stands in."""

    def __init__(self, forms: Forms, signs: Signs) -> None:
        self.forms, self.signs = forms, signs
        self._rules = [StandIns(forms, signs, signed=signed) for signed in (False, True)]
        self._covered: set[ir.Expr] = set()
        self._offences: dict[ir.Expr, Offence] = {}

    def judge(self, term: Term) -> Verdict:
        """Judge one term: without signs of affine parts first, since finding those may read
        data.
        """
        check()
        forms, signs = self.forms, self.signs
        if forms.is_affine(term.core):
            return Verdict(term, True, affine=True)
        sign = _coefficient_sign(signs, term)
        if sign == "0":
            return Verdict(term, True)
        # Squares and losses of linear predictors are what most models are made of; they need no
        # judge, and cvxpy takes a second to load.
        curved = plain_sign(forms, signs, term.core)
        if curved != "?" and sign != "?":
            if curved == sign:
                return Verdict(term, True)
            words = "convex with a negative coefficient" if sign == "-" else "concave"
            return _concave(term, words)
        if is_affine_product(forms, term.core):
            return Verdict(term, False, node=term.core, why=PRODUCT)
        plain, signed = self._rules
        verdict = self._attempt(plain, term, sign)
        return verdict if verdict.convex else self._attempt(signed, term, sign)

    def _attempt(self, rules: StandIns, term: Term, sign: str) -> Verdict:
        try:
            self._reject_neither(term.core)
            core = rules.stand(term.core)
        except Offence as offence:
            return Verdict(term, False, node=offence.node, why=offence.why)
        convex = (sign == "+" and core.is_convex()) or (sign == "-" and core.is_concave())
        if convex:
            calls = (n for n in postorder(term.core) if isinstance(n, ir.ExternCall))
            declared = rules.declared and any(n in self.forms.scope.moving for n in calls)
            return Verdict(term, True, Evidence.DECLARED if declared else Evidence.PROVED)
        if sign == "?":
            why = "the sign of its coefficient is not known"
            return Verdict(term, False, node=term.root, why=why)
        return _concave(term, "convex with a negative coefficient" if sign == "-" else "concave")

    def _reject_neither(self, core: ir.Expr) -> None:
        """Raise at the first function that no rule covers: saves loading cvxpy."""
        stack = [(core, False)]
        while stack:
            node, ready = stack.pop()
            if node in self._covered:
                continue
            known = self._offences.get(node)
            name = getattr(node, "function", None)
            if ready and name in NEITHER and not self.forms.is_affine(node):
                known = Offence(node, f"`{name}` is neither convex nor concave")
            if known is not None:
                self._offences |= {node: known, core: known}
                raise known
            if ready:
                self._covered.add(node)
            else:
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(node.children))


def _concave(term: Term, what: str) -> Verdict:
    why = f"{what}, so this term is concave" if what != "concave" else "this term is concave"
    return Verdict(term, False, node=term.root, why=why)


def _coefficient_sign(signs: Signs, term: Term) -> str:
    sign = signs.product(term.factors)
    return sign if term.sign > 0 else {"+": "-", "-": "+"}.get(sign, sign)
