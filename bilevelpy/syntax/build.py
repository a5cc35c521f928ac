"""From reductions of the parser to declarations and levels: the callbacks of the whole grammar."""

# The rules say what their methods build.
# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from lark.lexer import Token

from bilevelpy.diagnostics import Span
from bilevelpy.syntax import ast
from bilevelpy.syntax.build_expr import Axes, Children, ExpressionBuilder, unquote

Documented = TypeVar("Documented", ast.DimItem, ast.SetItem, ast.ParamItem, ast.VarItem)


@dataclass(frozen=True, slots=True)
class Head(ast.Node):
    """What stands before the brace of a level."""

    keyword: Token
    name: Token | None
    generators: ast.Generators | None
    mark: str | None


class Builder(ExpressionBuilder):
    """All callbacks, for declarations, levels and what they are made of."""

    def _documented(self, children: Children, kind: type[Documented]) -> tuple[Documented, ...]:
        """Items of a declaration; a `##` before it documents those without one of their own."""
        doc = self._doc(children[0])
        items = self._only(children, kind)
        return items if doc is None else tuple(i if i.doc else replace(i, doc=doc) for i in items)

    def _axes(self, children: Children) -> tuple[ast.Expr, ...]:
        part = self._first(children, Axes)
        return () if part is None else part.value

    def _domain_of(self, children: Children) -> ast.Interval | ast.Property | None:
        return self._first(children, ast.Interval) or self._first(children, ast.Property)

    # --- top level

    def start(self, children: Children) -> ast.File:
        return ast.File(
            self._span(children) if children else Span(self.file, 0, 0), tuple(children)
        )

    def model_header(self, children: Children) -> ast.ModelHeader:
        title = unquote(children[2]) if children[2].type == "STRING" else None
        return ast.ModelHeader(self._span(children), str(children[1]), title)

    def include(self, children: Children) -> ast.Include:
        return ast.Include(self._span(children), unquote(children[1]), self._at(children[1]))

    def dim_decl(self, children: Children) -> ast.DimDecl:
        return ast.DimDecl(self._span(children), self._documented(children, ast.DimItem))

    def dim_item(self, children: Children) -> ast.DimItem:
        name = children[0]
        value = self._optional_value(children, "EQUAL")
        return ast.DimItem(self._span(children), str(name), self._at(name), value, self._doc(name))

    def set_decl(self, children: Children) -> ast.SetDecl:
        return ast.SetDecl(self._span(children), self._documented(children, ast.SetItem))

    def set_item(self, children: Children) -> ast.SetItem:
        name, value = children[0], self._after(children, "EQUAL")
        return ast.SetItem(
            self._span(children),
            str(name),
            self._at(name),
            self._first(children[1:2], ast.Expr),
            None if value is None else self._set(value),
            self._doc(name),
        )

    def within(self, children: Children) -> ast.Name | ast.CrossProduct:
        names = tuple(ast.Name(self._at(c), str(c)) for c in children if c.type == "NAME")
        return names[0] if len(names) == 1 else ast.CrossProduct(self._span(children[1:]), names)

    def param_decl(self, children: Children) -> ast.ParamDecl:
        return ast.ParamDecl(self._span(children), self._documented(children, ast.ParamItem))

    def param_item(self, children: Children) -> ast.ParamItem:
        name = children[0]
        return ast.ParamItem(
            self._span(children),
            str(name),
            self._at(name),
            self._axes(children),
            self._domain_of(children),
            self._optional_value(children, "EQUAL"),
            self._doc(name),
        )

    def def_decl(self, children: Children) -> ast.DefDecl:
        keyword, name = children[0], children[1]
        parameters = [c for c in children[2:] if isinstance(c, Token) and c.type == "NAME"]
        return ast.DefDecl(
            self._span(children),
            str(name),
            self._at(name),
            tuple(str(p) for p in parameters),
            tuple(self._at(p) for p in parameters),
            self._value(children[-2]),
            self._doc(keyword),
        )

    def extern_decl(self, children: Children) -> ast.ExternDecl:
        keyword, name = children[0], children[1]
        return ast.ExternDecl(
            self._span(children),
            str(name),
            self._at(name),
            self._only(children, ast.ExternArgument),
            self._axes(children),
            self._only(children, ast.Property),
            self._doc(keyword),
        )

    def extern_arg(self, children: Children) -> ast.ExternArgument:
        return ast.ExternArgument(self._span(children), str(children[0]), self._axes(children))

    def scalar(self, children: Children) -> Axes:
        return Axes(self._span(children), ())

    def report(self, children: Children) -> ast.ReportDecl:
        keyword, name = children[0], children[1]
        value = self._value(children[3])
        return ast.ReportDecl(
            self._span(children), str(name), self._at(name), value, self._doc(keyword)
        )

    def expect(self, children: Children) -> ast.ExpectDecl:
        _, value, relation, expected, _, tolerance, _ = children
        if relation != "==":
            self._misfit("BLV0121", self._at(relation), "not an equality")
        return ast.ExpectDecl(
            self._span(children), self._value(value), expected.value, tolerance.value
        )

    # --- levels

    def upper_head(self, children: Children) -> Head:
        mark = str(children[1]) if len(children) > 1 else None
        return Head(self._span(children), children[0], None, None, mark)

    def upper(self, children: Children) -> ast.Upper:
        head, statements = children[0], tuple(children[2:-1])
        return self.upper_level(head, statements, self._span(children))

    def lower_head(self, children: Children) -> Head:
        last = children[-1]
        mark = "nash" if isinstance(last, Token) and last.type == "NASH" else None
        generators = self._first(children, ast.Generators)
        return Head(self._span(children), children[0], children[1], generators, mark)

    def lower(self, children: Children) -> ast.Lower:
        head, statements = children[0], tuple(children[2:-1])
        return self.lower_level(head, statements, self._span(children))

    def level(
        self, head: Head, statements: tuple[ast.Statement, ...], span: Span
    ) -> ast.Upper | ast.Lower:
        """The node of a level from its head and statements."""
        if head.name is None:
            return self.upper_level(head, statements, span)
        return self.lower_level(head, statements, span)

    def upper_level(
        self, head: Head, statements: tuple[ast.Statement, ...], span: Span
    ) -> ast.Upper:
        doc = self._doc(head.keyword)
        return ast.Upper(span, head.mark, statements, self._at(head.keyword), doc)

    def lower_level(
        self, head: Head, statements: tuple[ast.Statement, ...], span: Span
    ) -> ast.Lower:
        assert head.name is not None
        return ast.Lower(
            span,
            str(head.name),
            self._at(head.name),
            head.generators,
            head.mark == "nash",
            statements,
            head.span,
            self._doc(head.keyword),
        )

    def var_decl(self, children: Children) -> ast.VarDecl:
        return ast.VarDecl(self._span(children), self._documented(children, ast.VarItem))

    def var_item(self, children: Children) -> ast.VarItem:
        name = children[0]
        return ast.VarItem(
            self._span(children),
            str(name),
            self._at(name),
            self._axes(children),
            self._domain_of(children),
            self._optional_value(children, "START"),
            self._doc(name),
        )

    def let_decl(self, children: Children) -> ast.LetDecl:
        keyword, name = children[0], children[1]
        generators = self._first(children, ast.Generators)
        value = self._value(children[-2])
        return ast.LetDecl(
            self._span(children), str(name), self._at(name), generators, value, self._doc(keyword)
        )

    def objective(self, children: Children) -> ast.Objective:
        return ast.Objective(self._span(children), str(children[0]), self._value(children[1]))

    def subject_to(self, children: Children) -> ast.SubjectTo:
        return ast.SubjectTo(self._span(children), self._only(children, ast.Constraint))

    def constraint(self, children: Children) -> ast.Constraint:
        name = children[0]
        relations = [c for c in children if isinstance(c, Token) and c.type in ("REL", "CMP")]
        return ast.Constraint(
            self._span(children),
            str(name),
            self._at(name),
            self._first(children, ast.Generators),
            self._values([c for c in children if not isinstance(c, ast.Generators)]),
            tuple(str(r) for r in relations),
            tuple(self._at(r) for r in relations),
            self._doc(name),
        )

    def assume(self, children: Children) -> ast.Assume:
        facts = tuple(c for c in children if not isinstance(c, Token))
        return ast.Assume(self._span(children), facts)

    def assume_dual(self, children: Children) -> ast.AssumeDual:
        if children[0] != "dual":
            self._misfit("BLV0122", self._at(children[0]), "this is no dual")
        return ast.AssumeDual(self._span(children), self._value(children[2]), children[-1])
