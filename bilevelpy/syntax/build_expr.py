"""From reductions of the parser to expressions, sets, binders and domains; `build` has the rest.

The LALR parser calls the method named after a rule of ``grammar/bilevel.lark`` with the tokens and
values of that rule, bottom up, so that no parse tree exists and nothing recurses.
"""

# The rules say what their methods build.
# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Span, diagnostic
from bilevelpy.syntax import ast

Children = list[Any]
Label = str | int | float

CONDITIONS = (ast.Compare, ast.Boolean, ast.Not)
SETS = (ast.Range, ast.LabelSet, ast.SetOperation)


@dataclass(frozen=True, slots=True)
class Part(ast.Node):
    """A value on its way into a node: its span covers the brackets, which the value does not."""

    value: Any


@dataclass(frozen=True, slots=True)
class Parens(Part):
    """An expression in parentheses."""


@dataclass(frozen=True, slots=True)
class Axes(Part):
    """Axes of a declaration."""


@dataclass(frozen=True, slots=True)
class Slice(Part):
    """The subscript `:`."""


@dataclass(frozen=True, slots=True)
class LabelPart(Part):
    """A label of a set or table: text, number, or a tuple of them."""


@dataclass(frozen=True, slots=True)
class Signed(Part):
    """A signed number; the value is its float, ``text`` what was written."""

    text: str


N = TypeVar("N")


def unquote(token: Token) -> str:
    """The text between the quotes of a string token."""
    return str(token)[1:-1]


def plain_number(text: str) -> int | float:
    """An int where the text is one (and not absurdly long), else a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


class ExpressionBuilder:
    """Makes nodes; ``file``, ``docs`` are set before a parse, ``diagnostics`` read after it."""

    def __init__(self) -> None:
        self.file = "<text>"
        self.docs: dict[int, str] = {}
        self.diagnostics: list[Diagnostic] = []

    # --- helpers

    def _at(self, token: Token) -> Span:
        return Span(self.file, token.start_pos or 0, token.end_pos or 0)

    def _span(self, children: Children) -> Span:
        first, last = children[0], children[-1]
        start = first.start_pos if isinstance(first, Token) else first.span.start
        end = last.end_pos if isinstance(last, Token) else last.span.end
        return Span(self.file, start or 0, end or 0)

    def _doc(self, token: Token) -> str | None:
        return self.docs.get(token.start_pos or 0)

    def _value(self, child: Any) -> ast.Expr:
        """The expression of a child that must be a number or a tensor."""
        expr: ast.Expr = child.value if isinstance(child, Parens) else child
        if isinstance(expr, CONDITIONS):
            self._misfit("BLV0118", child.span, "this is true or false")
        elif isinstance(expr, SETS):
            self._misfit("BLV0119", child.span, "this is a set")
        return expr

    def _condition(self, child: Any) -> ast.Expr:
        """The expression of a child that must be true or false."""
        expr: ast.Expr = child.value if isinstance(child, Parens) else child
        if not isinstance(expr, CONDITIONS):
            self._misfit("BLV0120", child.span, "nothing is compared here")
        return expr

    def _set(self, child: Any) -> ast.Expr:
        """The expression of a child that must be a set, or may name or compute one."""
        expr: ast.Expr = child.value if isinstance(child, Parens) else child
        if isinstance(expr, CONDITIONS):
            self._misfit("BLV0118", child.span, "this is true or false")
        return expr

    def _misfit(self, code: str, span: Span, label: str) -> None:
        self.diagnostics.append(diagnostic(code, span, label))

    def _after(self, children: Children, kind: str) -> Any:
        """The child after the last direct token of type ``kind``, or nothing."""
        for k in range(len(children) - 2, -1, -1):
            if isinstance(children[k], Token) and children[k].type == kind:
                return children[k + 1]
        return None

    def _optional_value(self, children: Children, kind: str) -> ast.Expr | None:
        child = self._after(children, kind)
        return None if child is None else self._value(child)

    def _values(self, children: Children) -> tuple[ast.Expr, ...]:
        return tuple(self._value(c) for c in children if not isinstance(c, Token))

    @staticmethod
    def _only(children: Children, kind: type[N]) -> tuple[N, ...]:
        return tuple(c for c in children if isinstance(c, kind) and not isinstance(c, Token))

    @staticmethod
    def _first(children: Children, kind: type[N]) -> N | None:
        return next((c for c in children if isinstance(c, kind)), None)

    # --- axes, binders, domains

    def axes(self, children: Children) -> Axes:
        return Axes(self._span(children), self._values(children))

    def binders(self, children: Children) -> ast.Generators:
        inner: ast.Generators = children[1]
        return replace(inner, span=self._span(children))

    def generators(self, children: Children) -> ast.Generators:
        condition = self._after(children, "WHERE")
        return ast.Generators(
            self._span(children),
            self._only(children, ast.Binder),
            None if condition is None else self._condition(condition),
        )

    def binder(self, children: Children) -> ast.Binder:
        names = [c for c in children[:-1] if c.type == "NAME"]
        return ast.Binder(
            self._span(children),
            tuple(str(n) for n in names),
            tuple(self._at(n) for n in names),
            self._set(children[-1]),
        )

    def interval(self, children: Children) -> ast.Interval:
        return ast.Interval(
            self._span(children), self._value(children[1]), self._value(children[3])
        )

    def property(self, children: Children) -> ast.Property:
        return ast.Property(self._span(children), str(children[0]), self._values(children[1:]))

    # --- sets and tables

    def set_operation(self, children: Children) -> ast.SetOperation:
        return ast.SetOperation(
            self._span(children),
            tuple(self._set(c) for c in children[::2]),
            tuple(str(c) for c in children[1::2]),
        )

    def range(self, children: Children) -> ast.Range:
        return ast.Range(self._span(children), self._value(children[0]), self._value(children[2]))

    def label_set(self, children: Children) -> ast.LabelSet:
        labels = self._only(children, LabelPart)
        return ast.LabelSet(
            self._span(children),
            tuple(part.value for part in labels),
            tuple(part.span for part in labels),
        )

    def table(self, children: Children) -> ast.Table:
        entries = [c for c in children if isinstance(c, Part)]
        return ast.Table(
            self._span(children),
            tuple(e.value[0].value for e in entries),
            tuple(e.value[1].value for e in entries),
            tuple(e.value[0].span for e in entries),
        )

    def entry(self, children: Children) -> Part:
        return Part(self._span(children), (children[0], children[2]))

    def label(self, children: Children) -> LabelPart:
        return LabelPart(self._span(children), self._label(children[0]))

    def pair(self, children: Children) -> LabelPart:
        members = (c for c in children if not isinstance(c, Token) or c.type == "STRING")
        return LabelPart(self._span(children), tuple(self._label(c) for c in members))

    @staticmethod
    def _label(child: Any) -> Label:
        return unquote(child) if isinstance(child, Token) else plain_number(child.text)

    def signed(self, children: Children) -> Signed:
        text = "".join(str(c) for c in children)
        return Signed(self._span(children), float(text), text)

    # --- conditions

    def condition(self, children: Children) -> ast.Boolean:
        return ast.Boolean(
            self._span(children), "or", tuple(self._condition(c) for c in children[::2])
        )

    def conjunction(self, children: Children) -> ast.Boolean:
        return ast.Boolean(
            self._span(children), "and", tuple(self._condition(c) for c in children[::2])
        )

    def not_(self, children: Children) -> ast.Not:
        return ast.Not(self._span(children), self._condition(children[1]))

    def comparison(self, children: Children) -> ast.Compare:
        return ast.Compare(
            self._span(children),
            tuple(self._value(c) for c in children[::2]),
            tuple(str(c) for c in children[1::2]),
        )

    # --- expressions

    def if_else(self, children: Children) -> ast.IfElse:
        _, condition, _, then, _, otherwise = children
        return ast.IfElse(
            self._span(children),
            self._condition(condition),
            self._value(then),
            self._value(otherwise),
        )

    def sum(self, children: Children) -> ast.Sum:
        return ast.Sum(
            self._span(children),
            tuple(self._value(c) for c in children[::2]),
            tuple(str(c) for c in children[1::2]),
        )

    def product(self, children: Children) -> ast.Product:
        operators = children[1::2]
        return ast.Product(
            self._span(children),
            tuple(self._value(c) for c in children[::2]),
            tuple(str(c) for c in operators),
            tuple(self._at(c) for c in operators),
        )

    def negate(self, children: Children) -> ast.Negate:
        return ast.Negate(self._span(children), str(children[0]), self._value(children[1]))

    def power(self, children: Children) -> ast.Power:
        return ast.Power(self._span(children), self._value(children[0]), self._value(children[2]))

    def index(self, children: Children) -> ast.Index:
        subscripts = (c for c in children[1:] if not isinstance(c, Token))
        return ast.Index(
            self._span(children),
            self._value(children[0]),
            tuple(None if isinstance(c, Slice) else self._value(c) for c in subscripts),
        )

    def full_slice(self, children: Children) -> Slice:
        return Slice(self._span(children), None)

    def transpose(self, children: Children) -> ast.Transpose:
        return ast.Transpose(self._span(children), self._value(children[0]))

    def member(self, children: Children) -> ast.Member:
        base, _, name = children
        return ast.Member(self._span(children), self._value(base), str(name), self._at(name))

    def number(self, children: Children) -> ast.Number:
        text = str(children[0])
        return ast.Number(self._span(children), float(text), text)

    def string(self, children: Children) -> ast.String:
        return ast.String(self._span(children), unquote(children[0]))

    def name(self, children: Children) -> ast.Name:
        return ast.Name(self._span(children), str(children[0]))

    def upper_member(self, children: Children) -> ast.Member:
        level, _, name = children
        base = ast.Name(self._at(level), str(level))
        return ast.Member(self._span(children), base, str(name), self._at(name))

    def call(self, children: Children) -> ast.Call:
        function, arguments = children[0], children[2:-1]
        positional = [c for c in arguments if not isinstance(c, Token | ast.Keyword)]
        keywords = self._only(arguments, ast.Keyword)
        return ast.Call(
            self._span(children),
            str(function),
            self._at(function),
            self._values(positional),
            keywords,
        )

    def keyword(self, children: Children) -> ast.Keyword:
        return ast.Keyword(self._span(children), str(children[0]), self._value(children[2]))

    def comprehension(self, children: Children) -> ast.Comprehension:
        function, _, body, _, generators, _ = children
        return ast.Comprehension(
            self._span(children), str(function), self._at(function), self._value(body), generators
        )

    def parenthesis(self, children: Children) -> Parens:
        inner = children[1]
        return Parens(self._span(children), inner.value if isinstance(inner, Parens) else inner)

    def array(self, children: Children) -> ast.Array:
        return ast.Array(self._span(children), self._values(children))
