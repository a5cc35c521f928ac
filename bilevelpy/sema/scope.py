"""Declarations, who may read what, and the state of one check."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from bilevelpy.diagnostics import Diagnostic, Fix, Source, Span, diagnostic
from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir import program as model
from bilevelpy.ir.build import Builder
from bilevelpy.ir.types import Axes, Axis, Label
from bilevelpy.sema.values import Iterator, Iterators, Point, Value, move, plain
from bilevelpy.syntax import ast


class Kind(StrEnum):
    """What a name stands for; the value is how messages call it."""

    DIM = "a dim"
    SET = "a set"
    PARAM = "a param"
    DEF = "a function"
    EXTERN = "an extern function"
    REPORT = "a report"
    LEVEL = "a lower level"
    VAR = "a variable"
    LET = "a `let`"
    CONSTRAINT = "a constraint"


# Guessing compares a name with all others: beyond this many errors nobody reads it.
MAX_GUESSES = 50
DATA_KINDS = (Kind.DIM, Kind.SET, Kind.PARAM, Kind.DEF, Kind.EXTERN)
TOP, UPPER, REPORTS = "top", "upper", "reports"


@dataclass(frozen=True, eq=False, slots=True)
class Declaration:
    """A declared name; ``level`` is "top", "upper" or the name of a lower level."""

    name: str
    kind: Kind
    level: str
    span: Span
    node: Any

    @property
    def place(self) -> str:
        """`name` with its follower in front, as the rest of the file writes it."""
        return self.name if self.level in (TOP, UPPER) else f"{self.level}.{self.name}"


# What a name of a comprehension, family or function argument stands for; None where its expression
# was wrong.
Local = Point | Value | Declaration | None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a `def` that is being inlined."""

    name: str
    span: Span
    note: str


@dataclass(frozen=True, slots=True)
class Context:
    """Where an expression stands: which names it sees, and what it may read.

    ``reads_only`` says in words why only data may be read here (empty: anything). ``moves``
    replaces iterators by positions, stage by stage (inside a sum whose condition joined them into
    one axis). ``guards`` are the conditions under which a branch of an ``if`` is taken: a subscript
    in it need not exist elsewhere.
    """

    level: str
    names: Mapping[str, Local] = field(default_factory=dict)
    own: Iterators = ()
    nash: bool = False
    reads_only: str = ""
    moves: tuple[Mapping[Iterator, Value], ...] = ()
    trail: tuple[Call, ...] = ()
    guards: tuple[Value, ...] = ()

    def data(self, why: str) -> Context:
        """The same place, reading data only."""
        return self if self.reads_only else replace(self, reads_only=why)

    def under(self, condition: Value) -> Context:
        """The branch that is taken where ``condition`` holds."""
        return replace(self, guards=(*self.guards, condition))

    def bind(self, names: Mapping[str, Local]) -> Context:
        """The same place with more names."""
        return replace(self, names={**self.names, **names})


@dataclass(frozen=True, slots=True)
class Frame:
    """A level while it is elaborated: its block, its context, its family."""

    name: str
    block: ast.Upper | ast.Lower
    context: Context
    family: Axes
    iters: Iterators


Request = tuple[ast.Expr, Context]
Steps = Generator[Request, "Value | None", "Value | None"]


# Declarations of the top level.
AT_TOP = Context(TOP, reads_only="data is given before anything is decided")


@dataclass(slots=True)
class State:
    """Everything that one check collects."""

    builder: Builder = field(default_factory=Builder)
    sources: dict[str, Source] = field(default_factory=dict)
    folders: dict[str, str | None] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    reported: set[Diagnostic] = field(default_factory=set)
    # Places that the parser has reported.
    unread: list[Span] = field(default_factory=list)
    # Labels and heads of followers that read each other, of which one message is enough.
    games: set[tuple[str, Span]] = field(default_factory=set)
    top: dict[str, Declaration] = field(default_factory=dict)
    lowers: dict[str, dict[str, Declaration]] = field(default_factory=dict)
    # By name, what the followers declare, in their order.
    below: dict[str, list[Declaration]] = field(default_factory=dict)
    constraints: dict[str, dict[str, Declaration]] = field(default_factory=dict)
    axes: dict[Declaration, Axis | None] = field(default_factory=dict)
    shapes: dict[Declaration, Axes | None] = field(default_factory=dict)
    lets: dict[Declaration, Value | None] = field(default_factory=dict)
    families: dict[str, Axes | None] = field(default_factory=dict)
    rows: dict[Declaration, Axes | None] = field(default_factory=dict)
    objectives: dict[str, Value | None] = field(default_factory=dict)
    params: dict[str, model.Param] = field(default_factory=dict)
    externs: dict[str, model.Extern] = field(default_factory=dict)
    circular: set[Declaration] = field(default_factory=set)
    doubtful: set[Declaration] = field(default_factory=set)
    elements: dict[Axis, frozenset[Label]] = field(default_factory=dict)
    anonymous: dict[object, Axis] = field(default_factory=dict)
    inlined: dict[object, Value | None] = field(default_factory=dict)
    expansion: int = 0
    expanded_too_far: bool = False
    missing: frozenset[str] = frozenset()
    serial: int = 0
    guesses: int = 0

    def error(
        self,
        code: str,
        span: Span | None,
        label: str = "",
        *,
        context: Context | None = None,
        secondary: Iterable[Place] = (),
        notes: Iterable[str] = (),
        hint: str | None = None,
        fix: Fix | None = None,
        **values: object,
    ) -> None:
        """Record a diagnostic; inside a `def` the call is shown beside the body.

        What could not be read as it stands is reported already: nothing is said of its meaning.
        """
        if span is not None and any(_within(span, place) for place in self.unread):
            return
        places, facts = tuple(secondary), tuple(notes)
        if context is not None and context.trail:
            call = context.trail[-1]
            places += (Place(call.span, f"in this call of `{call.name}`"),)
            facts += (call.note,) if call.note else ()
        found = diagnostic(
            code, span, label, secondary=places, notes=facts, hint=hint, fix=fix, **values
        )
        if found not in self.reported:
            self.reported.add(found)
            self.diagnostics.append(found)

    def iterator(self, name: str, axis: Axis, span: Span | None) -> Iterator:
        """A new iterator, deeper than all before."""
        self.serial += 1
        return Iterator(name, axis, self.serial, span)

    def moved(self, context: Context, value: Value) -> Value:
        """``value`` as seen from ``context``."""
        for stage in context.moves:
            value = move(self.builder, value, stage)
        return value

    def point(self, context: Context, point: Point) -> Point:
        """``point`` as seen from ``context``."""
        position = self.moved(context, point.position)
        if position is point.position:
            return point
        # A position that again runs plainly over its axis is an iterator like any other.
        runs = len(position.iters) == 1 and position.expr is self.builder.position(point.axis)
        return plain(self.builder, position.iters[0]) if runs else Point(point.axis, position)

    def guess(self, name: str, candidates: Iterable[str]) -> str | None:
        """The candidate that ``name`` most likely means; a flood of errors gets no guesses."""
        self.guesses += 1
        return closest(name, candidates) if self.guesses <= MAX_GUESSES else None

    def excludes(self, axis: Axis, label: Label | float) -> bool:
        """Whether the text lists the elements of ``axis``, and ``label`` is none of them."""
        if axis.labels is None:
            return False
        if axis not in self.elements:
            self.elements[axis] = frozenset(axis.labels)
        return label not in self.elements[axis]

    def text(self, span: Span) -> str:
        """The source under ``span``, on one line."""
        source = self.sources.get(span.file)
        return " ".join(source.text[span.start : span.end].split()) if source else ""


def element_text(label: Label | float) -> str:
    """A label as it is written in a model."""
    if isinstance(label, tuple):
        return "(" + ", ".join(element_text(part) for part in label) + ")"
    return f'"{label}"' if isinstance(label, str) else str(label)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` most likely means."""
    names = sorted(set(candidates))
    folded = {n.casefold(): n for n in names}
    if name.casefold() in folded and folded[name.casefold()] != name:
        return folded[name.casefold()]
    found = get_close_matches(name, names, n=1, cutoff=0.6)
    return found[0] if found else None


def _within(inner: Span, outer: Span) -> bool:
    return inner.file == outer.file and outer.start <= inner.start and inner.end <= outer.end
