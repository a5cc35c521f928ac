"""A bilevel program: declarations, one upper level, its followers; and the data bound to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bilevelpy.ir.types import FREE, Axes, Axis, Domain, Label, Relation, Sense, Stance

if TYPE_CHECKING:
    import numpy as np

    from bilevelpy.diagnostics import Source, Span
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.expr import Expr


# Facts with a number from 0 on.
MODULI = ("strongly_convex", "smooth")


@dataclass(frozen=True, slots=True)
class Read:
    """A default read from a file: ``file("a.npz", "X")``, ``csv("a.csv", "col")``, ``json(...)``.

    ``path`` is as written; it is relative to ``folder``, the folder of the model file that says so
    (None for text without a file), and must stay inside that folder's tree.
    """

    format: str
    path: str
    key: str | None
    folder: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Table:
    """Inline values of a labelled param."""

    values: Mapping[Label, float]
    span: Span


@dataclass(frozen=True, slots=True)
class Param:
    """Data of the model. ``default`` is folded or read once at binding; ``literal`` is its shape
    where it is an array in brackets.
    """

    name: str
    axes: Axes
    domain: Domain = FREE
    default: Expr | Read | Table | None = None
    span: Span | None = None
    doc: str | None = None
    literal: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A decision variable of a level; family axes of the level come first in ``axes``."""

    name: str
    level: str
    axes: Axes
    domain: Domain = FREE
    start: Expr | None = None
    span: Span | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A family of rows as written: ``terms[0] relations[0] terms[1] (relations[1] terms[2])``.

    ``axes`` are those of the rows (family of the level, binders, then tensor axes); every term has
    these axes or is a scalar.
    """

    name: str
    axes: Axes
    terms: tuple[Expr, ...]
    relations: tuple[Relation, ...]
    span: Span | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class Assumption:
    """A fact that the modeller declares: "convex", "strongly_convex", "smooth", "unique", "licq",
    "steps", "dual".

    ``arguments`` are data-only expressions; for "dual", ``constraint`` is bounded by the two
    arguments.
    """

    name: str
    arguments: tuple[Expr, ...] = ()
    constraint: str | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """The upper level (``name == "upper"``) or one follower (family).

    ``objective`` has the axes ``family`` (one value per follower; scalar otherwise); the level
    stands for the sum.
    """

    name: str
    family: Axes
    variables: tuple[Variable, ...]
    sense: Sense
    objective: Expr
    constraints: tuple[Constraint, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    nash: bool = False
    span: Span | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class ExternArgument:
    """Name and axes of an argument of an extern function."""

    name: str
    axes: Axes


@dataclass(frozen=True, slots=True)
class Extern:
    """A function handed over at binding, with its declared properties ("smooth", "convex(theta)",
    ...).
    """

    name: str
    arguments: tuple[ExternArgument, ...]
    result: Axes
    properties: tuple[tuple[str, tuple[str, ...]], ...] = ()
    span: Span | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A named expression evaluated at the end and, if asked, along the run."""

    name: str
    value: Expr
    span: Span | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """A known answer: ``value`` equals ``expected`` (every entry) within ``tolerance``; ``text`` is
    as written.

    ``value`` is an expression of variables and data, or the name of a level whose objective is
    meant.
    """

    value: Expr | str
    expected: float
    tolerance: float
    text: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A checked model without data. ``upper`` is a :class:`Level` named "upper"; ``lowers`` may be
    empty.

    ``builder`` made and interned every expression; whoever rewrites the program makes new nodes
    with it.
    """

    name: str
    title: str | None
    axes: Mapping[str, Axis]
    params: Mapping[str, Param]
    externs: Mapping[str, Extern]
    upper: Level
    lowers: tuple[Level, ...]
    stance: Stance
    reports: Mapping[str, Report]
    expects: tuple[Expect, ...]
    sources: Mapping[str, Source]
    builder: Builder

    @property
    def levels(self) -> tuple[Level, ...]:
        """Upper first, then the followers."""
        return (self.upper, *self.lowers)

    def level(self, name: str) -> Level:
        """The level called ``name``."""
        return next(level for level in self.levels if level.name == name)


@dataclass(frozen=True, slots=True)
class Data:
    """Everything that binding found out.

    ``sizes``: every axis in use -> its length. ``labels``: labelled axes -> their elements in
    order. ``members``: PAIRS and SUBSET axes -> int array (size, len(parents)) of positions in the
    parents. ``arrays``: param name -> float64 array (kept by reference where it already is one) or
    SciPy CSR matrix. ``externs``: name -> callable. ``origins``: name -> where the value came from,
    in words. ``named``: axes that count -> the labels that tables brought along them, in order, and
    the param of the first such table.
    """

    sizes: Mapping[Axis, int]
    labels: Mapping[Axis, tuple[Label, ...]]
    members: Mapping[Axis, np.ndarray]
    arrays: Mapping[str, Any]
    externs: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[Axis, tuple[tuple[Label, ...], str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundProgram:
    """A program with its data: what analysis, lowering, exporters and backends get."""

    program: Program
    data: Data
