"""Axes, domains and the small enumerations of a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.expr import Expr

Label = str | int | float | tuple[str | int | float, ...]


class AxisKind(StrEnum):
    """What the elements of an axis are, and where they come from."""

    DIM = "dim"  # counted from 1; size declared or inferred from data
    SIZE = "size"  # a literal size; equal numbers are the same axis
    RANGE = "range"  # integers low..high
    LABELS = "labels"  # declared labels, or labels from the data
    PAIRS = "pairs"  # tuples over `parents` (`within A * B`)
    SUBSET = (
        "subset"  # the elements of `parents` that satisfy `condition`, or that `labels`/data name
    )
    CONCAT = "concat"  # one axis after another (result of `concat`)


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """An index set. Axes are compared by identity: equal sizes or labels do not make axes equal.

    ``size``: declared size of a DIM or SIZE, an expression over data. ``low``/``high``: ends of a
    RANGE. ``labels``: declared elements of LABELS, PAIRS or SUBSET (None where the data brings
    them). ``parents``: factor axes of PAIRS and of a SUBSET (one for ``within A``, several for a
    condition over several iterators), the parts of a CONCAT. ``condition``: boolean expression over
    ``parents`` (its axes in that order) of a SUBSET; ``operation`` with ``operands`` for `union`,
    `inter`, `diff`.
    """

    name: str
    kind: AxisKind
    span: Span | None = None
    size: Expr | None = None
    low: Expr | None = None
    high: Expr | None = None
    labels: tuple[Label, ...] | None = None
    parents: tuple[Axis, ...] = ()
    condition: Expr | None = None
    operation: str | None = None
    operands: tuple[Axis, ...] = ()
    doc: str | None = None

    def __repr__(self) -> str:
        return f"<axis {self.name}>"

    @property
    def is_numeric(self) -> bool:
        """Whether its elements are whole numbers by declaration."""
        if self.kind is AxisKind.SUBSET and len(self.parents) == 1:
            return self.parents[0].is_numeric
        return self.kind in (AxisKind.DIM, AxisKind.SIZE, AxisKind.RANGE)

    def descends_from(self, other: Axis) -> bool:
        """Whether this axis is ``other`` or a one-parent subset of it, at any depth."""
        axis = self
        while axis is not other:
            if axis.kind is not AxisKind.SUBSET or len(axis.parents) != 1:
                return False
            axis = axis.parents[0]
        return True


Axes = tuple[Axis, ...]


class Sense(StrEnum):
    """Direction of an objective."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Stance(StrEnum):
    """Who gets the choice among several lower optima."""

    OPTIMISTIC = "optimistic"
    PESSIMISTIC = "pessimistic"


class Relation(StrEnum):
    """Relations of constraints."""

    LE = "<="
    GE = ">="
    EQ = "=="


class DomainKind(StrEnum):
    """Kinds of domains of params and variables."""

    FREE = "free"
    INTERVAL = "interval"
    SIMPLEX = "simplex"  # non-negative, sums to one over the last axis
    BALL = "ball"  # Euclidean ball of `radius` around 0 over all own axes
    PSD = "psd"
    BINARY = "binary"
    INTEGERS = "integers"


@dataclass(frozen=True, slots=True)
class Domain:
    """The set a param or variable lives in; bounds are data-only expressions, scalar or of the
    variable's axes.
    """

    kind: DomainKind
    lower: Expr | None = None
    upper: Expr | None = None
    radius: Expr | None = None
    span: Span | None = None

    @property
    def is_discrete(self) -> bool:
        """Whether the values are whole numbers."""
        return self.kind in (DomainKind.BINARY, DomainKind.INTEGERS)


FREE = Domain(DomainKind.FREE)
