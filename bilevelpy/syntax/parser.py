"""One entry: text of a model file to its syntax tree, comments and every syntax error."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lark.exceptions import UnexpectedToken
from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Source, Span, diagnostic
from bilevelpy.syntax import ast
from bilevelpy.syntax.lexing import Comment, Lexed, prepare
from bilevelpy.syntax.recover import recover
from bilevelpy.syntax.tables import Tables, tables

__all__ = ["Comment", "ParseResult", "lex", "parse"]

# The parser calls back into one builder, whose state belongs to the parse that runs.
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What could be read of the tree, all syntax errors in the order of the text, the comments."""

    file: ast.File
    diagnostics: list[Diagnostic]
    comments: tuple[Comment, ...]


def parse(source: Source, lexed: Lexed | None = None) -> ParseResult:
    """Parse ``source``; whatever its text, this returns and reports errors as diagnostics.

    A statement with an error is left out of the tree; the others are in it. ``lexed`` are its
    tokens where they are known; those of a text with errors may be respelled.
    """
    with _LOCK:
        loaded = tables()
        lexed = prepare(source, loaded.lex) if lexed is None else lexed
        loaded.builder.file = source.name
        loaded.builder.docs = lexed.docs()
        file, stop = (None, None) if lexed.diagnostics else _whole(loaded, lexed)
        diagnostics: list[Diagnostic] = []
        if file is None:
            items, diagnostics = recover(source, lexed, loaded)
            if stop is not None and not diagnostics:
                # The grammar has the last word, should reading by statements ever be more lenient.
                place = Span(source.name, stop.start_pos or 0, stop.end_pos or 0)
                expected, found = "another declaration or statement", f"`{stop}`"
                diagnostics = [diagnostic("BLV0102", place, expected=expected, found=found)]
            file = ast.File(Span(source.name, 0, len(source.text)), tuple(items))
        loaded.builder.docs = {}
    return ParseResult(file, diagnostics, tuple(lexed.comments))


def lex(source: Source) -> Lexed:
    """Tokens and comments of ``source``, for the formatter and editors."""
    return prepare(source, tables().lex)


def _whole(loaded: Tables, lexed: Lexed) -> tuple[ast.File | None, Token | None]:
    """The tree of a file without errors; else nothing, and the token that could not stand."""
    loaded.builder.diagnostics = []
    cursor, read = loaded.shifted("start", lexed.tokens)
    if read < len(lexed.tokens):
        return None, lexed.tokens[read]
    last = lexed.tokens[-1] if lexed.tokens else Token("SEMICOLON", "", 0, 1, 1, 1, 1, 0)
    try:
        file: ast.File = cursor.feed_eof(last)
    except UnexpectedToken as stop:
        return None, stop.token
    return (None if loaded.builder.diagnostics else file), None
