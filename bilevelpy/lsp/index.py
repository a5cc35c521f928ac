"""Every use of a name in the trees of a model, with the declaration that it means."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from bilevelpy.diagnostics import Span
from bilevelpy.ir.atoms import CALLS
from bilevelpy.sema.lookup import lookup
from bilevelpy.sema.scope import REPORTS, TOP, UPPER, Declaration, Kind, State
from bilevelpy.syntax import ast

ITERATOR, ARGUMENT = "an iterator", "an argument"


@dataclass(frozen=True, eq=False, slots=True)
class Symbol:
    """What a name means; ``kind`` is a :class:`Kind`, or one of the two local kinds.

    ``span`` is where it is declared, ``node`` the declaration (for an iterator its binder).
    """

    name: str
    kind: str
    level: str
    span: Span
    node: Any
    declaration: Declaration | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """A place where a symbol is written; ``symbol`` is None for a function of the language."""

    span: Span
    name: str
    symbol: Symbol | None


@dataclass(slots=True)
class Index:
    """All uses, by file and in the order of the text."""

    uses: dict[str, list[Use]] = field(default_factory=dict)

    def at(self, file: str, offset: int) -> Use | None:
        """The use under ``offset``, or right before it."""
        found = self.uses.get(file, [])
        k = bisect.bisect_right(found, offset, key=lambda u: u.span.start)
        for use in found[max(k - 1, 0) : k]:
            if use.span.start <= offset <= use.span.end:
                return use
        return None

    def of(self, symbol: Symbol) -> list[Use]:
        """Every use of ``symbol``, its declaration included."""
        return [u for uses in self.uses.values() for u in uses if u.symbol is symbol]


def build(state: State, files: Iterable[ast.File]) -> Index:
    """Resolve the names of all ``files`` as the check did."""
    walker = _Walker(state)
    for file in files:
        for item in file.items:
            walker.item(item)
    index = Index()
    seen: set[tuple[Span, str]] = set()
    for use in sorted(walker.uses, key=lambda u: (u.span.file, u.span.start)):
        if (use.span, use.name) not in seen:
            seen.add((use.span, use.name))
            index.uses.setdefault(use.span.file, []).append(use)
    return index


_FIELDS = {
    kind: tuple(f.name for f in fields(kind) if f.name != "span")
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.Node)
}


def children(node: ast.Node) -> Iterator[ast.Node]:
    """The nodes right below ``node``."""
    for name in _FIELDS[type(node)]:
        value = getattr(node, name)
        if isinstance(value, ast.Node):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, ast.Node))


class _Walker:
    """Walks trees with the names that are bound around each node."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.uses: list[Use] = []
        self.symbols: dict[int, Symbol] = {}
        self.locals: dict[str, Symbol] = {}
        self.level = TOP

    # --- items

    def item(self, item: ast.Item) -> None:
        """An item of the top level."""
        match item:
            case ast.Upper():
                self._block(UPPER, item)
            case ast.Lower():
                self._declared(item.name, item.name_span)
                self._block(item.name, item)
            case ast.ReportDecl() | ast.ExpectDecl():
                if isinstance(item, ast.ReportDecl):
                    self._declared(item.name, item.name_span)
                self._in(REPORTS, item.value)
            case ast.DefDecl():
                self._declared(item.name, item.name_span)
                names = list(zip(item.parameters, item.parameter_spans, strict=True))
                self.locals = {n: Symbol(n, ARGUMENT, TOP, s, item) for n, s in names}
                self.uses += [Use(s, n, self.locals[n]) for n, s in names]
                self._in(TOP, item.body)
                self.locals = {}
            case ast.ExternDecl():
                self._declared(item.name, item.name_span)
                for argument in item.arguments:
                    self._in(TOP, *argument.axes)
                self._in(TOP, *item.result)
            case _:
                self._in(TOP, item)

    def _block(self, level: str, block: ast.Upper | ast.Lower) -> None:
        self.level = level
        outer = self.locals
        if isinstance(block, ast.Lower) and block.generators is not None:
            self.locals = self._binders(block.generators)
        for statement in block.statements:
            self.visit(statement)
        self.level, self.locals = TOP, outer

    def _in(self, level: str, *nodes: ast.Node) -> None:
        self.level = level
        for node in nodes:
            self.visit(node)
        self.level = TOP

    def visit(self, node: ast.Node) -> None:
        """Any node below an item."""
        match node:
            case ast.Name():
                self._use(node.span, node.name, self._resolve(node.name))
            case ast.Member():
                self._member(node)
            case ast.Call(function="dual"):
                self.uses.append(Use(node.function_span, "dual", None))
                for argument in node.arguments:
                    self._constraint(argument)
            case ast.Call():
                self._function(node.function, node.function_span)
                self._children(node)
            case ast.Comprehension():
                self._function(node.function, node.function_span)
                self._scoped(node.generators, [node.body])
            case ast.Constraint():
                self._declared(node.name, node.name_span)
                self._scoped(node.generators, node.operands)
            case ast.LetDecl():
                self._declared(node.name, node.name_span)
                self._scoped(node.generators, [node.value])
            case ast.AssumeDual():
                self._constraint(node.constraint)
                self._children(node.domain)
            case _:
                name_span = getattr(node, "name_span", None)
                if isinstance(name_span, Span):
                    self._declared(node.name, name_span)  # type: ignore[attr-defined]
                self._children(node)

    def _children(self, node: ast.Node) -> None:
        for child in children(node):
            self.visit(child)

    def _scoped(self, generators: ast.Generators | None, nodes: Iterable[ast.Node]) -> None:
        outer = self.locals
        if generators is not None:
            self.locals = self._binders(generators)
        for node in nodes:
            self.visit(node)
        self.locals = outer

    def _binders(self, generators: ast.Generators) -> dict[str, Symbol]:
        """The names in force inside ``generators``; its sets and its condition are visited."""
        outer, inner = self.locals, dict(self.locals)
        for binder in generators.binders:
            self.visit(binder.set)
            for name, span in zip(binder.names, binder.name_spans, strict=True):
                inner[name] = Symbol(name, ITERATOR, self.level, span, binder)
                self.uses.append(Use(span, name, inner[name]))
        if generators.condition is not None:
            self.locals = inner
            self.visit(generators.condition)
            self.locals = outer
        return inner

    # --- names

    def _symbol(self, declaration: Declaration) -> Symbol:
        found = self.symbols.get(id(declaration))
        if found is None:
            d = declaration
            found = Symbol(d.name, d.kind, d.level, d.span, d.node, d)
            self.symbols[id(declaration)] = found
        return found

    def _use(self, span: Span, name: str, found: Symbol | None) -> None:
        if found is not None:
            self.uses.append(Use(span, name, found))

    def _declared(self, name: str, span: Span) -> None:
        """The place where ``name`` is declared in the level being walked."""
        for table in self._tables(self.level):
            found = table.get(name)
            if found is not None and found.span == span:
                self._use(span, name, self._symbol(found))
                return

    def _tables(self, level: str) -> list[dict[str, Declaration]]:
        own = self.state.lowers.get(level)
        rows = self.state.constraints.get(level, {})
        return [rows, self.state.top] if own is None else [own, rows, self.state.top]

    def _resolve(self, name: str) -> Symbol | None:
        local = self.locals.get(name)
        if local is not None:
            return local
        found = lookup(self.state, self.level, name)
        return self._symbol(found) if isinstance(found, Declaration) else None

    def _function(self, name: str, span: Span) -> None:
        found = self._resolve(name)
        if found is not None or name in CALLS:
            self.uses.append(Use(span, name, found))

    def _member(self, node: ast.Member) -> None:
        level = node.base.name if isinstance(node.base, ast.Name) else None
        if level is None:
            self.visit(node.base)
            return
        owner = self.state.top.get(level)
        if owner is not None and owner.kind is Kind.LEVEL:
            self._use(node.base.span, level, self._symbol(owner))
        for table in (self.state.lowers.get(level, {}), self.state.constraints.get(level, {})):
            if node.name in table:
                self._use(node.name_span, node.name, self._symbol(table[node.name]))
                return
        found = self.state.top.get(node.name)
        if level == UPPER and found is not None and found.level == UPPER:
            self._use(node.name_span, node.name, self._symbol(found))

    def _constraint(self, node: ast.Expr) -> None:
        """What stands in `dual(...)`: a constraint, with its follower or alone."""
        while isinstance(node, ast.Index):
            for subscript in node.subscripts:
                if subscript is not None:
                    self.visit(subscript)
            node = node.base
        if isinstance(node, ast.Member):
            self._member(node)
        elif isinstance(node, ast.Name):
            levels = (self.level, *self.state.lowers)
            tables = [self.state.constraints.get(level, {}) for level in levels]
            found = next((t[node.name] for t in tables if node.name in t), None)
            self._use(node.span, node.name, self._symbol(found) if found else None)
