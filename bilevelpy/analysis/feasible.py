"""Domains and constraints of a level, counted and named."""

from __future__ import annotations

from bilevelpy.analysis.forms.form import Forms
from bilevelpy.analysis.forms.scope import Scope, names_of
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Constraint, Level
from bilevelpy.ir.types import Domain, DomainKind, Relation
from bilevelpy.ir.walk import place, variables

_WORDS = {
    DomainKind.FREE: "free",
    DomainKind.INTERVAL: "box",
    DomainKind.SIMPLEX: "simplex",
    DomainKind.BALL: "ball",
    DomainKind.PSD: "psd",
    DomainKind.BINARY: "discrete",
    DomainKind.INTEGERS: "discrete",
}


def _infinite(end: ir.Expr | None, sign: float) -> bool:
    return end is None or (isinstance(end, ir.Const | ir.Fill) and end.value == sign * float("inf"))


def domain_word(domain: Domain) -> str:
    """free, box, simplex, ball, psd or discrete; an interval without finite ends is free."""
    if (
        domain.kind is DomainKind.INTERVAL
        and _infinite(domain.lower, -1)
        and _infinite(domain.upper, 1)
    ):
        return "free"
    return _WORDS[domain.kind]


def domains_fact(levels: tuple[Level, ...]) -> Fact[frozenset[str]]:
    """The kinds of domains of the levels' variables, at the first variable that is not free."""
    owners = [(domain_word(v.domain), v) for level in levels for v in level.variables]
    kinds = frozenset(word for word, _ in owners)
    bounded = [(word, v) for word, v in owners if word != "free"]
    if not bounded:
        return Fact(kinds, Evidence.PROVED, "every variable is free")
    word, first = bounded[0]
    # The most unusual domain is the one that decides; point at it.
    for kind in ("discrete", "psd", "ball", "simplex", "box"):
        chosen = [v for w, v in bounded if w == kind]
        if chosen:
            word, first = kind, chosen[0]
            break
    span = first.domain.span or first.span
    return Fact(kinds, Evidence.PROVED, f"`{first.name}` has a {word} domain", span)


def discrete_fact(levels: tuple[Level, ...], which: str) -> Fact[bool]:
    """Whether a variable takes whole numbers only."""
    for level in levels:
        for v in level.variables:
            if v.domain.is_discrete:
                reason = f"discrete {which} variable `{v.name}`"
                return Fact(True, Evidence.PROVED, reason, v.domain.span or v.span)
    return Fact(False, Evidence.PROVED, f"every {which} variable is continuous")


def row_count(scope: Scope, levels: tuple[Level, ...]) -> int:
    """The number of scalar rows; a two-sided row counts once."""
    return sum(scope.count(c.axes) for level in levels for c in level.constraints)


def parts(constraint: Constraint) -> list[tuple[ir.Expr, ir.Expr, bool]]:
    """The relations as ``(left, right, equal)``, meaning left <= right or left == right."""
    rows = []
    for left, relation, right in zip(
        constraint.terms, constraint.relations, constraint.terms[1:], strict=False
    ):
        first, second = (right, left) if relation is Relation.GE else (left, right)
        rows.append((first, second, relation is Relation.EQ))
    return rows


def nonaffine(forms: Forms, levels: tuple[Level, ...]) -> list[Constraint]:
    """The constraints with a term that is not affine in the moving variables."""
    return [
        c
        for level in levels
        for c in level.constraints
        if not all(forms.is_affine(t) for t in c.terms)
    ]


def coupling_fact(upper: Level, lowers: tuple[Level, ...]) -> Fact[bool]:
    """Whether a constraint of the upper level reads lower variables."""
    names = names_of(lowers)
    for c in upper.constraints:
        if variables(c.terms) & names:
            reason = f"constraint `{c.name}` of the upper level reads lower variables"
            return Fact(True, Evidence.PROVED, reason, c.span or place(c.terms[0]))
    return Fact(False, Evidence.PROVED, "no upper constraint reads lower variables")
