"""Declarations, who may read what, and the state of one check."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from itertools import islice
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


DATA_KINDS = (Kind.DIM, Kind.SET, Kind.PARAM, Kind.DEF, Kind.EXTERN)
# Guessing compares a name with all others: beyond this many errors nobody reads it.
MAX_GUESSES = 50
# Of many followers that declare the same name, so many are shown.
SHOWN = 6
# Unknown names of so few letters are indices more often than anything else.
LETTERS = 2
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


Request = tuple[ast.Expr, Context]
Steps = Generator[Request, "Value | None", "Value | None"]
PointSteps = Generator[Request, "Value | None", "Point | None"]


@dataclass(slots=True)
class State:
    """Everything that one check collects."""

    builder: Builder = field(default_factory=Builder)
    sources: dict[str, Source] = field(default_factory=dict)
    folders: dict[str, str | None] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    reported: set[Diagnostic] = field(default_factory=set)
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
        """Record a diagnostic; inside a `def` the call is shown beside the body."""
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


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A plain name that several followers declare: the first of them."""

    candidates: tuple[Declaration, ...]


def lookup(state: State, level: str, name: str) -> Declaration | Ambiguous | None:
    """What ``name`` means in ``level``, whoever may read it."""
    own = state.lowers.get(level, {}).get(name)
    if own is not None:
        return own
    if name in state.top:
        return state.top[name]
    others = state.below.get(name, ())
    readable = tuple(islice((d for d in others if d.kind is Kind.VAR), SHOWN + 1))
    if len(readable) > 1:
        return Ambiguous(readable)
    return readable[0] if readable else (others[0] if others else None)


def visible(state: State, context: Context) -> dict[str, Declaration]:
    """The names that an expression in ``context`` may use, beside its local ones."""
    found: dict[str, Declaration] = {}
    lower = context.level in state.lowers
    for name, declaration in state.top.items():
        if declaration.kind in (Kind.LEVEL, Kind.REPORT):
            continue
        if declaration.level == UPPER and (
            context.level == TOP or (lower and declaration.kind is Kind.LET)
        ):
            continue
        found[name] = declaration
    if context.reads_only:
        found = {n: d for n, d in found.items() if d.kind in DATA_KINDS}
    elif lower:
        found |= state.lowers[context.level]
    elif context.level != TOP:
        for table in state.lowers.values():
            found |= {n: d for n, d in table.items() if d.kind is Kind.VAR}
    return found


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` most likely means."""
    names = sorted(set(candidates))
    folded = {n.casefold(): n for n in names}
    if name.casefold() in folded and folded[name.casefold()] != name:
        return folded[name.casefold()]
    found = get_close_matches(name, names, n=1, cutoff=0.6)
    return found[0] if found else None


READERS = {
    TOP: (
        "at the top of the file",
        "names that data and functions may use: dims, sets, params, defs, and their own arguments",
    ),
    UPPER: (
        "in `upper`, nor at the top of the file",
        "names that `upper` may use: its own, dims, sets, params, defs, "
        "and the variables of every `lower`",
    ),
    REPORTS: (
        "in `upper`, in a `lower`, nor at the top of the file",
        "names that a report may use: all of `upper` and of the top of the file, "
        "and the variables of every `lower`",
    ),
}


def unknown(
    state: State, context: Context, name: str, span: Span, kinds: tuple[Kind, ...] = tuple(Kind)
) -> None:
    """Report an unknown name with the closest visible one of ``kinds``.

    A name that a syntax error may have swallowed is passed over.
    """
    if not name.isascii():  # its characters have been reported where it was read
        return
    if name in state.missing:
        return
    flood = state.guesses > MAX_GUESSES
    names = {} if flood else visible(state, context)
    known = {n: d for n, d in names.items() if d.kind in kinds}
    guess = state.guess(name, [*known, *context.names])
    secondary: tuple[Place, ...] = ()
    if guess is not None and guess in known and guess not in context.names:
        secondary = (Place(known[guess].span, f"`{guess}` is declared here"),)
    hint = f"did you mean `{guess}`?" if guess else None
    fix = Fix(f"replace `{name}` with `{guess}`", span, guess) if guess else None
    where, note = READERS.get(
        context.level,
        (
            f"in `{context.level}`, in `upper`, nor at the top of the file",
            f"names that `{context.level}` may use: its own, dims, sets, params, defs, "
            "and the variables of `upper`",
        ),
    )
    if Kind.VAR not in kinds:
        listed = ", ".join(f"`{n}`" for n in list(known)[:8])
        where = "at the top of the file"
        note = (
            f"dims and sets of this file: {listed}"
            if known or flood
            else "this file has no dims and sets"
        )
    elif context.reads_only:
        where, note = READERS[TOP]
        if guess is None and len(name) <= LETTERS:
            hint = f"an index says over what it runs: `sum(... for {name} in S)`"
    state.error(
        "BLV0201",
        span,
        f"not declared {where}",
        context=context,
        secondary=secondary,
        notes=(note,),
        hint=hint,
        fix=fix,
        name=name,
    )


def shape_text(axes: Axes) -> str:
    """Axes in words: ``axes (n, p)`` or ``a scalar``."""
    return f"axes {axes_text(axes)}" if axes else "a scalar"


def axes_text(axes: Axes) -> str:
    """Axes as messages write them: ``(n, p)``."""
    return "(" + ", ".join(a.name for a in axes) + ")"


def wrong_arguments(
    state: State, context: Context, node: ast.Call, signature: str, label: str, place: Span | None
) -> None:
    """Report a call that does not fit the signature of what it calls."""
    state.error(
        "BLV0218",
        node.span,
        label,
        context=context,
        secondary=[Place(place, "declared here")] if place else [],
        hint=f"it is called as `{signature}`",
        name=node.function,
    )
