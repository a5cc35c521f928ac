"""What the analyses of a level look at: expressions, and which of their nodes move with which
variables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bilevelpy.ir.expr import DualRef, Expr, VarRef
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram, Level, Program
    from bilevelpy.ir.types import Axis

Names = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scope:
    """Expressions of a level: ``moving`` are the nodes that depend on its own variables or on
    shadow prices, ``shifting`` those that depend on variables held fixed. ``eigenvalues`` keeps the
    least eigenvalue of matrices that were factorised.
    """

    bound: BoundProgram
    moving: frozenset[Expr]
    shifting: frozenset[Expr]
    eigenvalues: dict[Expr, float] = field(default_factory=dict, compare=False, repr=False)

    def size(self, axis: Axis) -> int:
        """The number of elements of an axis."""
        return self.bound.data.sizes[axis]

    def count(self, axes: Iterable[Axis]) -> int:
        """The number of entries of a tensor over ``axes``."""
        total = 1
        for axis in axes:
            total *= self.size(axis)
        return total


def names_of(levels: Iterable[Level]) -> Names:
    """(level, name) of every variable of the levels."""
    return frozenset((level.name, v.name) for level in levels for v in level.variables)


def dependents(roots: Iterable[Expr], names: Names, duals: bool = False) -> frozenset[Expr]:
    """The nodes below the roots that read one of the variables (or, with ``duals``, a shadow
    price).
    """
    found: set[Expr] = set()
    for node in postorder(roots):
        if isinstance(node, VarRef):
            if (node.level, node.name) in names:
                found.add(node)
        elif (isinstance(node, DualRef) and duals) or any(c in found for c in node.children):
            found.add(node)
    return frozenset(found)


def make_scope(bound: BoundProgram, roots: Iterable[Expr], own: Names, other: Names) -> Scope:
    """The scope of some expressions."""
    nodes = list(roots)
    return Scope(bound, dependents(nodes, own, duals=True), dependents(nodes, other))


def text_at(program: Program, span: Span | None) -> str:
    """The source text under a span on one line, cut at 60 characters; empty where there is none."""
    if span is None or span.file not in program.sources:
        return ""
    text = " ".join(program.sources[span.file].text[span.start : span.end].split())
    return text if len(text) <= 60 else text[:57] + "..."
