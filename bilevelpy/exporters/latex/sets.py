r"""Index sets in LaTeX: letters that run over them, pairs in their parts, conditions below a sum.

``sum(f[i, j] for (i, j) in ARC where j == n)`` reads :math:`\sum_{(i, n) \in ARC} f_{i, n}` in a
paper. In the tree it is a sum over an axis of its own, whose elements have ARC and the node n for
parts; here the parts get letters (those that are known keep theirs) and the condition is written
below the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.exporters.latex.layout import width
from bilevelpy.exporters.latex.symbols import escape, symbol
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import AxisKind
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.exporters.latex.leaves import Indices
    from bilevelpy.exporters.latex.terms import Terms
    from bilevelpy.ir.program import Program
    from bilevelpy.ir.types import Axis

# What is wider stands below the sum in two lines.
NARROW = 14.0


class Place(str):
    """An index that has parts: an element of a set of pairs, or of several sets at once."""

    __slots__ = ("parts",)
    parts: tuple[str, ...]

    def __new__(cls, parts: tuple[str, ...]) -> Place:
        """The parts with commas between."""
        made = super().__new__(cls, ", ".join(parts))
        made.parts = parts
        return made


@dataclass(frozen=True, slots=True)
class Run:
    """``place`` runs over a set: its new letters, where each is taken from, and conditions."""

    place: str
    letters: tuple[str, ...]
    sets: tuple[str, ...]
    conditions: tuple[str, ...]

    @property
    def under(self) -> str:
        """What stands below a sum."""
        sets, conditions = ", ".join(self.sets), ", ".join(self.conditions)
        if not sets or not conditions:
            return sets or conditions
        if width(sets) + width(conditions) > NARROW:
            return rf"\substack{{{sets} \\ {conditions}}}"
        return f"{sets} : {conditions}"

    @property
    def beside(self) -> str:
        """What stands after "for all", or between braces."""
        sets, conditions = ", ".join(self.sets), ", ".join(self.conditions)
        return f"{sets} : {conditions}" if sets and conditions else sets or conditions


def unnamed(axis: Axis) -> bool:
    """Whether an axis is a condition over others, written where it is used."""
    return axis.condition is not None and not axis.name.isidentifier()


def split_axes(program: Program) -> frozenset[Axis]:
    """The axes of whose elements some expression reads a part: they are shown as pairs."""
    found: set[Axis] = set()
    seen: set[Axis] = set()
    roots = list(_expressions(program))
    while roots:
        for node in postorder(roots.pop()):
            if isinstance(node, ir.Component):
                found.add(node.axis)
            for axis in node.axes:
                if axis not in seen:
                    seen.add(axis)
                    if axis.condition is not None:
                        roots.append(axis.condition)
    return frozenset(found)


def _expressions(program: Program) -> Iterator[ir.Expr]:
    for level in program.levels:
        yield level.objective
        for row in level.constraints:
            yield from row.terms
        for v in level.variables:
            yield from (end for end in (v.domain.lower, v.domain.upper) if end is not None)


def run(t: Terms, axis: Axis, used: Indices, given: Mapping[int, str] | None = None) -> Run:
    """An index over ``axis``; ``given`` are parts that are known already."""
    if not unnamed(axis):
        if len(axis.parents) > 1 and axis in t.split:
            letters = t.letters(len(axis.parents), used)
            shown = rf"({', '.join(letters)}) \in {set_text(t, axis, used)}"
            return Run(Place(letters), letters, (shown,), ())
        (letter,) = t.letters(1, used)
        return Run(letter, (letter,), (rf"{letter} \in {set_text(t, axis, used)}",), ())
    return _conditional(t, axis, used, given or {})


def _conditional(t: Terms, axis: Axis, used: Indices, known: Mapping[int, str]) -> Run:
    """Letters for the parts of an element that are not known, and what has to hold for them."""
    parts: list[str] = []
    letters: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    for k, parent in enumerate(axis.parents):
        if k in known:
            parts.append(known[k])
            continue
        part = run(t, parent, (*used, *letters))
        parts.append(part.place)
        letters = (*letters, *part.letters)
        sets = (*sets, *part.sets)
        conditions = (*conditions, *part.conditions)
    assert axis.condition is not None
    at = tuple(parts)
    for one in _all_of(axis.condition):
        conditions = (*conditions, t.show(one, at if one.axes else (), (*used, *letters)))
    return Run(at[0] if len(at) == 1 else Place(at), letters, sets, conditions)


def _all_of(condition: ir.Expr) -> Iterator[ir.Expr]:
    """The conditions that all have to hold, over the same axes."""
    if isinstance(condition, ir.Apply) and condition.function == "and":
        for one in condition.operands:
            yield from _all_of(one)
    else:
        yield condition


def runs(t: Terms, axes: tuple[Axis, ...], used: Indices) -> list[Run]:
    """An index over each axis, no letter twice."""
    found: list[Run] = []
    for axis in axes:
        taken = tuple(c for r in found for c in r.letters)
        found.append(run(t, axis, (*used, *taken)))
    return found


def set_text(t: Terms, axis: Axis, used: Indices = ()) -> str:
    """An index set: its name, its elements, or its condition."""
    if axis.name.isidentifier():
        return symbol(axis.name)
    if unnamed(axis):
        return rf"\{{{run(t, axis, used).beside}\}}"
    if axis.kind is AxisKind.SIZE and axis.size is not None:
        return rf"\{{1, \dots, {t.show(axis.size)}\}}"
    if axis.kind is AxisKind.RANGE and axis.low is not None and axis.high is not None:
        return rf"\{{{t.show(axis.low)}, \dots, {t.show(axis.high)}\}}"
    return rf"\{{\text{{{escape(axis.name)}}}\}}"
