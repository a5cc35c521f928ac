"""Kinks of convex followers as further variables and rows, in the program itself.

    c(x) max(a, b),  c >= 0      ->      c(x) (a + t),   t >= 0,   t >= b - a
    c(x) max_j e_j,  c >= 0      ->      c(x) t,                   t >= e_j

and so for ``abs``, ``relu``, and for ``min`` where more of it is better. A best response of the
lifted follower is one of the given one beside its t, for every x: where c is 0, t is idle.
``lift`` does the same to scalar rows; this one is for methods that take a
model as functions of vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bilevelpy.analysis.analyze import lower_forms
from bilevelpy.analysis.bounds.signs import Signs
from bilevelpy.analysis.forms.epigraphs import Epigraph, find
from bilevelpy.analysis.forms.scope import text_at
from bilevelpy.ir.program import Assumption, Constraint, Variable
from bilevelpy.ir.substitute import substitute
from bilevelpy.ir.types import FREE, Domain, DomainKind, Relation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import BoundProgram, Level


@dataclass(frozen=True, slots=True)
class Lifted:
    """A program without kinks, and what its further variables (by level and name) are at a response
    of the given one, in terms of that.
    """

    bound: BoundProgram
    values: Mapping[tuple[str, str], Expr]


def with_epigraphs(bound: BoundProgram) -> Lifted:
    """The program without the kinks of its followers; the names of further variables have a blank,
    which no name of a model has.

    Raises
    ------
    ValueError
        Where there are kinks that epigraphs cannot stand for (see
        :func:`bilevelpy.analysis.forms.epigraphs.epigraphs_fact`).
    """
    program = bound.program
    forms, signs = lower_forms(bound), Signs(bound)
    lowers: list[Level] = []
    values: dict[tuple[str, str], Expr] = {}
    for level in program.lowers:
        found = find(forms, signs, level)
        if found is None:
            raise ValueError(f"`{level.name}` has kinks that epigraphs cannot stand for")
        lift = _Lift(bound, forms, level)
        lowers.append(lift.run(found[0]))
        values |= lift.values
    return Lifted(replace(bound, program=replace(program, lowers=tuple(lowers))), values)


class _Lift:
    """The further variables and rows of one level."""

    def __init__(self, bound: BoundProgram, forms: Forms, level: Level) -> None:
        self.bound, self.forms, self.level = bound, forms, level
        self.builder: Builder = bound.program.builder
        self.known: dict[Expr, Expr] = {}
        self.variables: list[Variable] = []
        self.rows: list[Constraint] = []
        self.values: dict[tuple[str, str], Expr] = {}

    def run(self, found: list[Epigraph]) -> Level:
        for e in found:
            self.known[e.node] = self._stand(e)
        level = self.level
        # Moduli are those of the given objective: t has no curvature.
        said = {a.name for a in level.assumptions}
        kept = [a for a in level.assumptions if a.name in ("convex", "unique")]
        if "strongly_convex" in said and "convex" not in said:
            kept.append(Assumption("convex"))
        return replace(
            level,
            variables=(*level.variables, *self.variables),
            objective=substitute(self.builder, level.objective, self.known),
            constraints=(*level.constraints, *self.rows),
            assumptions=tuple(kept),
        )

    def _stand(self, e: Epigraph) -> Expr:
        """What stands for a kink, ``base + sign t``; t and its rows are kept."""
        b, node = self.builder, e.node
        # A variable of a family of followers has the axes of the family first.
        order = [node.axes.index(a) for a in self.level.family]
        order += [d for d in range(node.rank) if d not in order]
        axes = tuple(node.axes[d] for d in order)
        kept = [d for d in range(len(e.axes)) if d not in e.dims]
        source = (*(kept[d] for d in order), *e.dims)
        whole = tuple(e.axes[d] for d in source)
        name = f"epigraph {len(self.variables) + 1}"
        t = b.var(self.level.name, name, axes)
        wide = b.align(t, (*range(len(axes)), *(None for _ in e.dims)), whole)
        parts = [b.add([b.scale(f, substitute(b, p, self.known)) for p, f in q]) for q in e.parts]
        first = e.base(self.forms)
        base = b.const(0.0) if first is None else parts[first]
        given = b.const(0.0) if first is None else b.add([b.scale(f, p) for p, f in e.parts[first]])
        here = b.scale(e.sign, b.sub(node, given))
        self.values[self.level.name, name] = b.align(here, tuple(order), axes)
        title = text_at(self.bound.program, node.span) or "a kink"
        for k, part in enumerate(parts):
            if k != first:
                rest = b.scale(e.sign, b.sub(part, base))
                rest = b.align(rest, source, whole) if rest.axes else rest
                self.rows.append(Constraint(title, whole, (wide, rest), (Relation.GE,), node.span))
        ends = (b.const(0.0), b.const(math.inf))
        domain = FREE if first is None else Domain(DomainKind.INTERVAL, *ends)
        self.variables.append(Variable(name, self.level.name, axes, domain, span=node.span))
        back = b.align(t, tuple(order.index(d) for d in range(node.rank)), node.axes)
        return b.add([base, b.scale(e.sign, back)])
