"""Nodes of declarations, statements, levels and files."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.diagnostics import Span
from bilevelpy.syntax.ast.expressions import (
    Domain,
    Expr,
    Generators,
    Interval,
    Node,
    Property,
)

# --- declarations


@dataclass(frozen=True, slots=True)
class Item(Node):
    """Base of what stands at the top level or in a block; `doc` holds preceding `##` lines."""


@dataclass(frozen=True, slots=True)
class ModelHeader(Item):
    """`model name "title";`."""

    name: str
    title: str | None


@dataclass(frozen=True, slots=True)
class Include(Item):
    """`include "path";`."""

    path: str
    path_span: Span


@dataclass(frozen=True, slots=True)
class DimItem(Item):
    """One dim of a `dim` declaration."""

    name: str
    name_span: Span
    value: Expr | None
    doc: str | None


@dataclass(frozen=True, slots=True)
class DimDecl(Item):
    """`dim n, k = 3;`."""

    items: tuple[DimItem, ...]


@dataclass(frozen=True, slots=True)
class SetItem(Item):
    """One set: `NAME [within A * B] [= set expression]`; `within` is a `Name` or a
    `CrossProduct`.
    """

    name: str
    name_span: Span
    within: Expr | None
    value: Expr | None
    doc: str | None


@dataclass(frozen=True, slots=True)
class SetDecl(Item):
    """`set A, B = 1..3;`."""

    items: tuple[SetItem, ...]


@dataclass(frozen=True, slots=True)
class ParamItem(Item):
    """One param: axes, domain, default (an expression, a `Table`, or a `Call` of file/csv/json)."""

    name: str
    name_span: Span
    axes: tuple[Expr, ...]
    domain: Domain | None
    default: Expr | None
    doc: str | None


@dataclass(frozen=True, slots=True)
class ParamDecl(Item):
    """`param X[n, p], y[n];`."""

    items: tuple[ParamItem, ...]


@dataclass(frozen=True, slots=True)
class DefDecl(Item):
    """`def name(a, b) = expression;`."""

    name: str
    name_span: Span
    parameters: tuple[str, ...]
    parameter_spans: tuple[Span, ...]
    body: Expr
    doc: str | None


@dataclass(frozen=True, slots=True)
class ExternArgument(Node):
    """An argument of an `extern` with its axes; no axes means a scalar."""

    name: str
    axes: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ExternDecl(Item):
    """`extern name(arguments) -> axes : properties;` (empty `result` means a scalar)."""

    name: str
    name_span: Span
    arguments: tuple[ExternArgument, ...]
    result: tuple[Expr, ...]
    properties: tuple[Property, ...]
    doc: str | None


@dataclass(frozen=True, slots=True)
class ReportDecl(Item):
    """`report name = expression;`."""

    name: str
    name_span: Span
    value: Expr
    doc: str | None


@dataclass(frozen=True, slots=True)
class ExpectDecl(Item):
    """`expect expression == number within tolerance;`."""

    value: Expr
    expected: float
    tolerance: float


# --- levels


@dataclass(frozen=True, slots=True)
class VarItem(Item):
    """One variable: axes, domain, start."""

    name: str
    name_span: Span
    axes: tuple[Expr, ...]
    domain: Domain | None
    start: Expr | None
    doc: str | None


@dataclass(frozen=True, slots=True)
class VarDecl(Item):
    """`var x[n] in [0, 1] start 0;`."""

    items: tuple[VarItem, ...]


@dataclass(frozen=True, slots=True)
class LetDecl(Item):
    """`let name[generators] = expression;`."""

    name: str
    name_span: Span
    generators: Generators | None
    value: Expr
    doc: str | None


@dataclass(frozen=True, slots=True)
class Objective(Item):
    """`minimize e;` or `maximize e;`; `sense` is the keyword."""

    sense: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Constraint(Item):
    """`name[generators]: a <= b;` with one or two relations.

    Operators are among `<= >= ==`; `< > !=` are read so that their message is one of meaning.
    """

    name: str
    name_span: Span
    generators: Generators | None
    operands: tuple[Expr, ...]
    operators: tuple[str, ...]
    operator_spans: tuple[Span, ...]
    doc: str | None


@dataclass(frozen=True, slots=True)
class SubjectTo(Item):
    """`subject to` with its constraints."""

    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class AssumeDual(Node):
    """`dual(c) in [lo, hi]` inside `assume`."""

    constraint: Expr
    domain: Interval


@dataclass(frozen=True, slots=True)
class Assume(Item):
    """`assume convex, unique;`."""

    facts: tuple[Property | AssumeDual, ...]


Statement = VarDecl | LetDecl | Objective | SubjectTo | Assume


@dataclass(frozen=True, slots=True)
class Upper(Item):
    """`upper [stance] { ... }`."""

    stance: str | None
    statements: tuple[Statement, ...]
    keyword_span: Span
    doc: str | None


@dataclass(frozen=True, slots=True)
class Lower(Item):
    """`lower name[generators] [nash] { ... }`; `head_span` covers it up to the brace."""

    name: str
    name_span: Span
    generators: Generators | None
    nash: bool
    statements: tuple[Statement, ...]
    head_span: Span
    doc: str | None


@dataclass(frozen=True, slots=True)
class File(Node):
    """All items of one source text in order."""

    items: tuple[Item, ...]
