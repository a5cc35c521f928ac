"""Convexity of terms, judged by cvxpy on stand-ins: shapes of one or two entries, signs, and never
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.analysis.plain import is_affine_product, plain_sign
from bilevelpy.analysis.signs import Signs
from bilevelpy.analysis.stand_ins import (
    PRODUCT,
    Offence,
    StandIns,
)
from bilevelpy.analysis.structure import Evidence
from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import postorder
from bilevelpy.patience import check

if TYPE_CHECKING:
    from bilevelpy.analysis.form import Forms
    from bilevelpy.analysis.terms import Term

NEITHER = frozenset({"sin", "cos", "tan", "atan", "tanh", "sinh", "sigmoid", "softmax", "prod"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a term is convex; where not, the smallest offending node and the reason in words.

    ``concave`` says that the term is known to be concave (and not affine).
    """

    term: Term
    convex: bool
    evidence: Evidence = Evidence.PROVED
    node: ir.Expr | None = None
    why: str = ""
    concave: bool = False
    affine: bool = False


def judge(forms: Forms, signs: Signs, term: Term) -> Verdict:
    """Judge one term: without signs of affine parts first, since finding those may read data."""
    check()
    if forms.is_affine(term.core):
        return Verdict(term, True, affine=True)
    sign = _coefficient_sign(signs, term)
    if sign == "0":
        return Verdict(term, True)
    # Squares and losses of linear predictors are what most models are made of; they need no judge,
    # and cvxpy takes a second to load.
    curved = plain_sign(forms, signs, term.core)
    if curved != "?" and sign != "?":
        if curved == sign:
            return Verdict(term, True)
        return _concave(term, "convex with a negative coefficient" if sign == "-" else "concave")
    if is_affine_product(forms, term.core):
        return Verdict(term, False, node=term.core, why=PRODUCT)
    verdict = _attempt(StandIns(forms, signs, signed=False), term, sign)
    return verdict if verdict.convex else _attempt(StandIns(forms, signs, signed=True), term, sign)


def _concave(term: Term, what: str) -> Verdict:
    why = f"{what}, so this term is concave" if what != "concave" else "this term is concave"
    return Verdict(term, False, node=term.root, why=why, concave=True)


def _coefficient_sign(signs: Signs, term: Term) -> str:
    sign = signs.product(term.factors)
    return sign if term.sign > 0 else {"+": "-", "-": "+"}.get(sign, sign)


def _attempt(translation: StandIns, term: Term, sign: str) -> Verdict:
    try:
        _reject_neither(translation.forms, term.core)
        core = translation.stand(term.core)
    except Offence as offence:
        return Verdict(term, False, node=offence.node, why=offence.why)
    evidence = Evidence.DECLARED if translation.declared else Evidence.PROVED
    convex = (sign == "+" and core.is_convex()) or (sign == "-" and core.is_concave())
    if convex:
        return Verdict(term, True, evidence)
    if sign == "?":
        return Verdict(term, False, node=term.root, why="the sign of its coefficient is not known")
    return _concave(term, "convex with a negative coefficient" if sign == "-" else "concave")


def _reject_neither(forms: Forms, core: ir.Expr) -> None:
    """Raise at the first function that no rule covers: saves loading cvxpy."""
    for node in postorder(core):
        name = getattr(node, "function", None)
        if name in NEITHER and not forms.is_affine(node):
            raise Offence(node, f"`{name}` is neither convex nor concave")
