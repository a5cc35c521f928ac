"""Definition, references, rename, symbols of a document, code actions and formatting."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lsprotocol import types

from bilevelpy.diagnostics import Diagnostic, Severity, Span
from bilevelpy.ir.atoms import CALLS
from bilevelpy.lsp.document import Document, uri_of
from bilevelpy.lsp.index import ARGUMENT, ITERATOR, Symbol
from bilevelpy.sema.include import STANDARD
from bilevelpy.sema.scope import TOP
from bilevelpy.syntax import ast
from bilevelpy.syntax.format import format_source
from bilevelpy.syntax.tokens import KEYWORDS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refusal(Exception):
    """A request that cannot be met; the text says why."""


def location(document: Document, span: Span) -> types.Location | None:
    """Where a span is, in this file or in an included one."""
    positions = document.positions_in(span.file)
    return None if positions is None else types.Location(uri_of(span.file), positions.range(span))


def definition(document: Document, offset: int) -> types.Location | None:
    """The declaration of the name under ``offset``; for `include`, the file."""
    for file in document.examination.files:
        for item in file.items:
            if (
                isinstance(item, ast.Include)
                and item.path_span.file == document.name
                and item.path_span.start <= offset <= item.path_span.end
            ):
                return _included(document, item.path)
    use = document.use_at(offset)
    return None if use is None or use.symbol is None else location(document, use.symbol.span)


def _included(document: Document, path: str) -> types.Location | None:
    name = path if path.startswith(STANDARD) else str(Path(document.name).parent / path)
    if name not in document.state.sources:
        return None
    start = types.Position(0, 0)
    return types.Location(uri_of(name), types.Range(start, start))


def references(document: Document, offset: int, declaration: bool) -> list[types.Location]:
    """Every use of the name under ``offset``."""
    use = document.use_at(offset)
    if use is None or use.symbol is None:
        return []
    spans = [u.span for u in document.index.of(use.symbol)]
    if not declaration:
        spans = [s for s in spans if s != use.symbol.span]
    return [found for s in spans if (found := location(document, s)) is not None]


def renamable(document: Document, offset: int) -> tuple[Symbol, types.Range]:
    """The symbol under ``offset`` and its range, or a refusal in words."""
    use = document.use_at(offset)
    if use is None:
        raise Refusal("there is no name of this model here")
    if use.symbol is None:
        raise Refusal(f"`{use.name}` is a function of the language")
    if use.symbol.span.file.startswith(STANDARD):
        raise Refusal(f"`{use.name}` belongs to the standard library")
    if document.has_syntax_errors:
        raise Refusal("correct the syntax errors first: names in unread statements would be missed")
    return use.symbol, document.positions.range(use.span)


def rename(document: Document, offset: int, new: str) -> types.WorkspaceEdit:
    """Edits that call the name under ``offset`` ``new`` everywhere."""
    symbol, _ = renamable(document, offset)
    if not _NAME.fullmatch(new):
        raise Refusal(f"`{new}` is no name: letters, digits and `_`, not starting with a digit")
    if new in KEYWORDS:
        raise Refusal(f"`{new}` is a reserved word")
    if new in CALLS or new == "pi":
        raise Refusal(f"`{new}` means something in the language")
    if new != symbol.name and _taken(document, symbol, new):
        raise Refusal(f"`{new}` is in use already where `{symbol.name}` is")
    changes: dict[str, list[types.TextEdit]] = {}
    for use in document.index.of(symbol):
        place = location(document, use.span)
        if place is not None:
            changes.setdefault(place.uri, []).append(types.TextEdit(place.range, new))
    return types.WorkspaceEdit(changes=changes)


def _taken(document: Document, symbol: Symbol, new: str) -> bool:
    """Whether ``new`` would clash with, or hide, another name."""
    state = document.state
    tables = [state.top, *state.constraints.values(), *state.lowers.values()]
    if symbol.kind in (ITERATOR, ARGUMENT) or symbol.level == TOP:
        local = any(
            u.name == new
            for uses in document.index.uses.values()
            for u in uses
            if u.symbol is not None and u.symbol.kind in (ITERATOR, ARGUMENT)
        )
        return local or any(new in t for t in tables)
    return any(new in t for t in tables)


# --- outline -------------------------------------------------------------------------------------

_SYMBOL_KINDS: dict[type, types.SymbolKind] = {
    ast.DimItem: types.SymbolKind.Constant,
    ast.SetItem: types.SymbolKind.Enum,
    ast.ParamItem: types.SymbolKind.Field,
    ast.DefDecl: types.SymbolKind.Function,
    ast.ExternDecl: types.SymbolKind.Function,
    ast.ReportDecl: types.SymbolKind.Event,
    ast.VarItem: types.SymbolKind.Variable,
    ast.LetDecl: types.SymbolKind.Variable,
    ast.Constraint: types.SymbolKind.Property,
    ast.Objective: types.SymbolKind.Operator,
}


def symbols(document: Document) -> list[types.DocumentSymbol]:
    """The outline: declarations, and the levels with what is in them."""
    found: list[types.DocumentSymbol] = []
    for item in document.tree.items:
        if isinstance(item, ast.Upper | ast.Lower):
            name = item.name if isinstance(item, ast.Lower) else "upper"
            head = item.name_span if isinstance(item, ast.Lower) else item.keyword_span
            inner = [s for statement in item.statements for s in _outline(document, statement)]
            found.append(
                types.DocumentSymbol(
                    name,
                    types.SymbolKind.Namespace,
                    document.positions.range(item.span.to(head)),
                    document.positions.range(head),
                    children=inner,
                )
            )
        else:
            found += _outline(document, item)
    return found


def _outline(document: Document, item: ast.Item) -> list[types.DocumentSymbol]:
    parts: Iterable[ast.Item]
    if isinstance(item, ast.DimDecl | ast.SetDecl | ast.ParamDecl | ast.VarDecl):
        parts = item.items
    elif isinstance(item, ast.SubjectTo):
        parts = item.constraints
    else:
        parts = (item,)
    found = []
    for part in parts:
        kind = _SYMBOL_KINDS.get(type(part))
        if kind is None:
            continue
        name = part.sense if isinstance(part, ast.Objective) else part.name  # type: ignore[attr-defined]
        whole = document.positions.range(part.span)
        at = whole
        if not isinstance(part, ast.Objective):
            at = document.positions.range(part.name_span)  # type: ignore[attr-defined]
        found.append(types.DocumentSymbol(name, kind, whole, at))
    return found


# --- diagnostics, fixes, layout ------------------------------------------------------------------


def to_protocol(document: Document, found: Diagnostic) -> types.Diagnostic:
    """A diagnostic for an editor: the message, then label, notes and help, a line each."""
    here = found.primary is not None and found.primary.span.file == document.name
    span = found.primary.span if here and found.primary else Span(document.name, 0, 0)
    if span.start == span.end:
        span = Span(span.file, span.start, min(span.end + 1, len(document.source.text)))
    lines = [found.message if here else _elsewhere(document, found)]
    if found.primary is not None and found.primary.text:
        lines.append(found.primary.text)
    lines += [f"note: {n}" for n in found.notes]
    if found.hint:
        lines.append(f"help: {found.hint}")
    related = [
        types.DiagnosticRelatedInformation(place, label.text or "see here")
        for label in found.secondary
        if (place := location(document, label.span)) is not None
    ]
    error = found.severity is Severity.ERROR
    return types.Diagnostic(
        document.positions.range(span),
        "\n".join(lines),
        types.DiagnosticSeverity.Error if error else types.DiagnosticSeverity.Warning,
        found.code,
        source="bilevelpy",
        related_information=related or None,
    )


def _elsewhere(document: Document, found: Diagnostic) -> str:
    """The message of a mistake in an included file, with its place."""
    span = found.primary.span if found.primary else None
    source = document.state.sources.get(span.file) if span else None
    if span is None or source is None:
        return found.message
    line, column = source.position(span.start)
    return f"{span.file}:{line}:{column}: {found.message}"


def actions(document: Document, wanted: types.Range) -> list[types.CodeAction]:
    """Quick fixes for the diagnostics that touch the range."""
    start, end = document.positions.offset(wanted.start), document.positions.offset(wanted.end)
    found = []
    for d in document.diagnostics:
        fix, primary = d.fix, d.primary
        if fix is None or primary is None or fix.span.file != document.name:
            continue
        if primary.span.file != document.name or primary.span.start > end:
            continue
        if max(primary.span.end, fix.span.end) < start:
            continue
        edit = types.TextEdit(document.positions.range(fix.span), fix.replacement)
        found.append(
            types.CodeAction(
                fix.title,
                kind=types.CodeActionKind.QuickFix,
                diagnostics=[to_protocol(document, d)],
                edit=types.WorkspaceEdit(changes={document.uri: [edit]}),
                is_preferred=True,
            )
        )
    return found


def formatted(document: Document) -> list[types.TextEdit]:
    """The edit that brings the text into canonical layout; none where it cannot be read."""
    text = format_source(document.source.text, document.name).text
    if text is None or text == document.source.text:
        return []
    whole = Span(document.name, 0, len(document.source.text))
    return [types.TextEdit(document.positions.range(whole), text)]
