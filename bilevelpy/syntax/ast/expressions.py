"""Nodes of expressions, and of what stands in `in ...`: binders, generators, domains."""

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
