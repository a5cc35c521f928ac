"""Semantic tokens: what each name is, with upper and lower variables told apart."""

from __future__ import annotations

from lsprotocol import types

from bilevelpy.ir.atoms import CALLS
from bilevelpy.lsp.document import Document
from bilevelpy.lsp.index import ARGUMENT, ITERATOR
from bilevelpy.sema.lookup import lookup
from bilevelpy.sema.scope import TOP, UPPER, Declaration, Kind, State
from bilevelpy.syntax import tokens as table

TYPES = [
    "keyword",
    "number",
    "string",
    "comment",
    "operator",
    "function",
    "variable",
    "parameter",
    "type",
    "namespace",
    "property",
]
MODIFIERS = ["declaration", "readonly", "upper", "lower", "defaultLibrary"]

_OF_KIND = {
    str(Kind.DIM): "type",
    str(Kind.SET): "type",
    str(Kind.PARAM): "variable",
    str(Kind.DEF): "function",
    str(Kind.EXTERN): "function",
    str(Kind.REPORT): "variable",
    str(Kind.LEVEL): "namespace",
    str(Kind.VAR): "variable",
    str(Kind.LET): "variable",
    str(Kind.CONSTRAINT): "property",
    ITERATOR: "parameter",
    ARGUMENT: "parameter",
}


def legend() -> types.SemanticTokensLegend:
    """The order that the numbers in the answer refer to."""
    return types.SemanticTokensLegend(TYPES, MODIFIERS)


def semantic_tokens(document: Document, state: State) -> list[int]:
    """Five numbers a token: line and column relative to the one before, length, type, modifiers.

    ``state`` is that of the document, or of an earlier one while this one is not checked yet.
    """
    found: list[tuple[int, int, str, frozenset[str]]] = []
    for comment in document.lexed.comments:
        found.append((comment.span.start, comment.span.end, "comment", frozenset()))
    tokens = document.lexed.tokens
    for k, token in enumerate(tokens):
        kind, modifiers = _kind(document, state, k)
        if kind is not None:
            found.append((token.start_pos or 0, token.end_pos or 0, kind, modifiers))
    data: list[int] = []
    line = column = 0
    for start, end, kind, modifiers in sorted(found):
        at = document.positions.position(start)
        text = document.source.text[start:end]
        if "\n" in text or "\r" in text:
            continue  # a token stays on its line; `subject to` across lines is rare
        bits = sum(1 << MODIFIERS.index(m) for m in modifiers)
        step = at.line - line
        before = at.character - (0 if step else column)
        data += [step, before, document.positions.units(text), TYPES.index(kind), bits]
        line, column = at.line, at.character
    return data


def _kind(document: Document, state: State, k: int) -> tuple[str | None, frozenset[str]]:
    token = document.lexed.tokens[k]
    if token.type in table.KEYWORD_TYPES:
        return "keyword", frozenset()
    if token.type in ("NUMBER", "STRING"):
        return token.type.lower(), frozenset()
    if token.type != "NAME":
        written = token.type in ("REL", "CMP") or str(token) in table.OPERATORS
        return ("operator" if written else None), frozenset()
    start = token.start_pos or 0
    use = document.index.at(document.name, start) if document.is_checked else None
    if use is not None and use.span.start == start:
        if use.symbol is None:
            return "function", frozenset({"defaultLibrary"})
        s = use.symbol
        marks = _modifiers(s.kind, s.level)
        if use.span == s.span:
            marks |= {"declaration"}
        return _OF_KIND[str(s.kind)], marks
    return _unread(document, state, k)


def _modifiers(kind: str, level: str) -> frozenset[str]:
    if kind in (Kind.VAR, Kind.LET, Kind.CONSTRAINT) and level != TOP:
        return frozenset({"upper" if level == UPPER else "lower"})
    return frozenset({"readonly"} if kind in (Kind.PARAM, Kind.DIM, Kind.SET) else ())


def _unread(document: Document, state: State, k: int) -> tuple[str | None, frozenset[str]]:
    """A name in a statement that is not read yet: by what it would mean there."""
    tokens = document.lexed.tokens
    name = str(tokens[k])
    if k and tokens[k - 1].type == "DOT":
        return None, frozenset()
    found = lookup(state, document.level_of(k), name)
    if isinstance(found, Declaration):
        return _OF_KIND[str(found.kind)], _modifiers(found.kind, found.level)
    if name in CALLS:
        return "function", frozenset({"defaultLibrary"})
    return None, frozenset()
