"""The kinks of convex followers that the epigraphs of affine expressions can stand for.

    c(x) max(a, b),  c >= 0      ->      c(x) (a + t),   t >= 0,   t >= b - a

A kink is one where less of it is better: ``abs``, ``max`` and ``relu`` under coefficients that are
nowhere negative, ``min`` under coefficients that are nowhere positive, of expressions that are
affine in y, or affine but for such kinks. The rewriting is ``reductions.rewriting.epigraphs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.analysis.forms.form import form_name
from bilevelpy.analysis.forms.smooth import smooth_fact
from bilevelpy.analysis.forms.terms import split
from bilevelpy.analysis.structure import Epigraphs, Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Sense
from bilevelpy.ir.walk import duals, place, postorder, program_roots

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.ir.program import Level, Program
    from bilevelpy.ir.types import Axes

KINKS = frozenset({"abs", "relu", "maximum", "minimum", "max", "min"})
# What a level may say of itself that holds of what takes its place.
KEPT = frozenset({"convex", "unique", "strongly_convex", "smooth"})

# Expressions times 1 or -1, to be added.
Part = tuple[tuple[ir.Expr, float], ...]


@dataclass(frozen=True, slots=True)
class Epigraph:
    """``node`` is the greatest (``sign`` 1) or the least (-1) of ``parts``, entry by entry.

    Where it reduces dimensions, parts have those of its operand.
    """

    node: ir.Apply | ir.Reduce
    sign: float
    parts: tuple[Part, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of the parts that the node reduces."""
        return self.node.dims if isinstance(self.node, ir.Reduce) else ()

    @property
    def axes(self) -> Axes:
        """The axes of the parts."""
        return self.node.operand.axes if isinstance(self.node, ir.Reduce) else self.node.axes

    def base(self, forms: Forms) -> int | None:
        """The number of the part that the others are compared with: data where there is some, else
        one without kinks; None where there is none, or where dimensions are reduced.
        """
        if self.dims:
            return None
        moving, shifting = forms.scope.moving, forms.scope.shifting

        def rank(part: Part) -> int:
            return max(2 if e in moving else int(e in shifting) for e, _ in part)

        known = [k for k, p in enumerate(self.parts) if all(forms.is_affine(e) for e, _ in p)]
        return min(known, key=lambda k: rank(self.parts[k]), default=None)


class _NotOne(Exception):
    """A kink that no epigraph can stand for."""


class _Finder:
    """Collects the epigraphs of one level, those inside of others first."""

    def __init__(self, forms: Forms, signs: Signs, level: Level) -> None:
        self.forms, self.signs, self.level = forms, signs, level
        self.found: dict[ir.Expr, Epigraph] = {}

    def open(self, root: ir.Expr, sign: float) -> list[ir.Expr]:
        """Take the kinks of an expression that is to be small (``sign`` 1) or large (-1); what is
        no kink is returned.
        """
        rest = []
        for term in split(self.forms.scope, root, sign):
            if getattr(term.core, "function", "") not in KINKS:
                rest.append(term.core)
                continue
            found = self.signs.product(term.factors)
            if found == "?":
                raise _NotOne
            self._take(term.core, -term.sign if found == "-" else term.sign)
        return rest

    def _take(self, node: ir.Expr, sign: float) -> None:
        assert isinstance(node, ir.Apply | ir.Reduce)
        least = node.function in ("minimum", "min")
        if sign != (-1.0 if least else 1.0) or not set(self.level.family) <= set(node.axes):
            raise _NotOne
        if node in self.found:
            return
        top = node.operand if isinstance(node, ir.Reduce) else node
        parts = tuple(self._parts(top, least))
        for expr in (e for part in parts for e, _ in part):
            # An absolute value of what is no affine function is the greatest of itself alone.
            if expr is node or not all(map(self.forms.is_affine, self.open(expr, sign))):
                raise _NotOne
        self.found[node] = Epigraph(node, sign, parts)

    def _parts(self, node: ir.Expr, least: bool) -> list[Part]:
        """What a node is the greatest (the least) of. ``max(|r| - e, 0)`` is that of ``r - e``,
        ``-r - e`` and 0: a stand-in of its own for ``|r|`` would be open wherever 0 is greatest.
        """
        if isinstance(node, ir.Apply) and node in self.forms.scope.moving:
            first = node.operands[0]
            if node.function == ("minimum" if least else "maximum"):
                return [p for o in node.operands for p in self._parts(o, least)]
            if node.function == "relu" and not least:
                zero = self.forms.scope.bound.program.builder.const(0.0)
                return [((zero, 1.0),), *self._parts(first, least)]
            if node.function == "abs" and not least and self.forms.is_affine(first):
                return [((first, 1.0),), ((first, -1.0),)]
            if node.function == "add":
                kinks = [o for o in node.operands if getattr(o, "function", "") in KINKS]
                inner = self._parts(kinks[0], least) if len(kinks) == 1 else []
                if len(inner) > 1:
                    rest = tuple((o, 1.0) for o in node.operands if o is not kinks[0])
                    return [(*part, *rest) for part in inner]
        return [((node, 1.0),)]


def find(forms: Forms, signs: Signs, level: Level) -> tuple[list[Epigraph], list[ir.Expr]] | None:
    """The epigraphs that leave the objective of a level without kinks, those inside of others
    first, and the terms beside them; None where there are other kinks.
    """
    finder = _Finder(forms, signs, level)
    sign = -1.0 if level.sense is Sense.MAXIMIZE else 1.0
    try:
        rest = finder.open(level.objective, sign)
    except _NotOne:
        return None
    # A square of a kink, say, is another function of it.
    if any(node in finder.found for core in rest for node in postorder(core)):
        return None
    if not smooth_fact(forms, signs.measured, rest, "lower").value:
        return None
    return list(finder.found.values()), rest


def epigraphs_fact(forms: Forms, signs: Signs, program: Program) -> Fact[Epigraphs] | None:
    """What the epigraphs of all followers take; None where there are no kinks, or others too."""
    said = {a.name for level in program.lowers for a in level.assumptions}
    if said - KEPT or any(level.nash for level in program.lowers):
        return None
    if duals(program_roots(program)):
        return None
    variables, rows, degree, first = 0, 0, 1, None
    for level in program.lowers:
        found = find(forms, signs, level)
        if found is None:
            return None
        degree = max(degree, *map(forms.degree, found[1]), 1)
        for e in found[0]:
            first = first or e.node
            compared = len(e.parts) - (e.base(forms) is not None)
            variables += forms.scope.count(e.node.axes)
            rows += compared * forms.scope.count(e.axes)
    if first is None:
        return None
    reason = f"epigraphs of {variables:,} kinks of affine expressions take {rows:,} rows"
    made = Epigraphs(variables, rows, form_name(degree))
    return Fact(made, Evidence.PROVED, reason, place(first))
