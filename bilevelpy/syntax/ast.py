"""The abstract syntax tree of a model file: frozen dataclasses, each with its span.

Left-associative runs of one precedence level are flat (`Sum`, `Product`): a sum of ten thousand
terms has depth one. Everything that nests (parentheses, subscripts, calls, powers, signs, `if`) is
bounded by `MAX_DEPTH` in the parser, so that recursive walks over the tree are safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.diagnostics import Span

MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Node:
    """Base of all nodes."""

    span: Span


# --- expressions


@dataclass(frozen=True, slots=True)
class Expr(Node):
    """Base of all expressions."""


@dataclass(frozen=True, slots=True)
class Number(Expr):
    """A numeric literal, `inf` included, as written; never negative: a sign is a `Negate`."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class String(Expr):
    """A text literal; `value` is without its quotes."""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Expr):
    """A name in use."""

    name: str


@dataclass(frozen=True, slots=True)
class Member(Expr):
    """`base.name`, for variables and constraints of a follower (`flow.f`, `fit.objective`)."""

    base: Expr
    name: str
    name_span: Span


@dataclass(frozen=True, slots=True)
class Sum(Expr):
    """`terms[0] op terms[1] op ...`; `operators[k]` ('+' or '-') stands before `terms[k + 1]`."""

    terms: tuple[Expr, ...]
    operators: tuple[str, ...]
    operator_spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Product(Expr):
    """`factors[0] op factors[1] op ...` with '*', '/' or '@', left-associative."""

    factors: tuple[Expr, ...]
    operators: tuple[str, ...]
    operator_spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Negate(Expr):
    """`-operand` (or `+operand`, `sign` says which)."""

    sign: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Power(Expr):
    """`base ^ exponent`, right-associative."""

    base: Expr
    exponent: Expr


@dataclass(frozen=True, slots=True)
class Transpose(Expr):
    """`operand'`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Index(Expr):
    """`base[subscripts]`; a full slice `:` is `None`."""

    base: Expr
    subscripts: tuple[Expr | None, ...]


@dataclass(frozen=True, slots=True)
class Keyword(Node):
    """`name = value` among the arguments of a call."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """`function(arguments, keywords)`; also `dual(c)`, `file(...)`, `card(S)`."""

    function: str
    function_span: Span
    arguments: tuple[Expr, ...]
    keywords: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Expr):
    """`function(body for generators)`."""

    function: str
    function_span: Span
    body: Expr
    generators: Generators


@dataclass(frozen=True, slots=True)
class Array(Expr):
    """`[a, b, c]`, nested for matrices."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class IfElse(Expr):
    """`if condition then a else b`, over data."""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class Compare(Expr):
    """A chain `a < b <= c` in a condition; operators among `< > <= >= == !=`."""

    operands: tuple[Expr, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Boolean(Expr):
    """`a and b and c` or `a or b`; `operator` is 'and' or 'or'."""

    operator: str
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Not(Expr):
    """`not operand`."""

    operand: Expr


# --- set expressions


@dataclass(frozen=True, slots=True)
class Range(Expr):
    """`low .. high`, both ends included."""

    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class LabelSet(Expr):
    """`{a, b}`; an element is a str, an int or a float, or a tuple of them for pairs."""

    elements: tuple[str | float | int | tuple[str | float | int, ...], ...]
    element_spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class SetOperation(Expr):
    """`first op rest[0] op ...` with 'union', 'inter', 'diff', left-associative."""

    operands: tuple[Expr, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CrossProduct(Expr):
    """`A * B` after `within` in a set declaration."""

    factors: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Table(Expr):
    """`{"a": 1, ("a", "b"): -2}`, the inline values of a labelled param."""

    keys: tuple[str | float | int | tuple[str | float | int, ...], ...]
    values: tuple[float, ...]
    key_spans: tuple[Span, ...]


# --- binders, domains, properties


@dataclass(frozen=True, slots=True)
class Binder(Node):
    """`i in S` or `(i, j) in S`.

    The set is a `Name`, `Range`, `LabelSet`, `SetOperation`, a `Number` (size) or an expression.
    """

    names: tuple[str, ...]
    name_spans: tuple[Span, ...]
    set: Expr


@dataclass(frozen=True, slots=True)
class Generators(Node):
    """`i in I, j in J where condition`."""

    binders: tuple[Binder, ...]
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class Interval(Node):
    """`[low, high]`."""

    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class Property(Node):
    """`convex`, `strongly_convex(mu)`, `simplex`, `ball(r)`, `integers(lo, hi)`, ..."""

    name: str
    arguments: tuple[Expr, ...]


Domain = Interval | Property


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
