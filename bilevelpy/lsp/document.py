"""One state of an open file: its text with everything that the compiler knows about it."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Severity, Source, Span
from bilevelpy.ir.atoms import CALLS
from bilevelpy.ir.program import Program
from bilevelpy.lsp.index import Index, Use, build
from bilevelpy.lsp.positions import Positions
from bilevelpy.sema.check import Examination, examine
from bilevelpy.sema.include import STANDARD
from bilevelpy.sema.lookup import lookup
from bilevelpy.sema.scope import TOP, UPPER, Declaration, State
from bilevelpy.syntax import ast
from bilevelpy.syntax.lexing import Lexed
from bilevelpy.syntax.parser import lex, parse

# Longer texts are data or junk; they are shown as they are, and not read at every key.
MAX_CHARACTERS = 1_000_000


def name_of(uri: str) -> str:
    """The path that the compiler knows a document by; what is no file is a text without a folder.

    >>> name_of("file:///models/a%20b.blv")
    '/models/a b.blv'
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return f"<{uri}>"
    path = unquote(parts.path)
    drive = len(path) > 2 and path[0] == "/" and path[2] == ":"
    return path[1:] if drive else path


def uri_of(name: str) -> str:
    """The document of a file that the compiler read."""
    if name.startswith("<"):
        return name[1:-1]
    if name.startswith(STANDARD):
        stem = name.removeprefix(STANDARD).removesuffix(".blv")
        file = resources.files("bilevelpy") / "stdlib" / f"{stem}.blv"
        return Path(str(file)).as_uri()
    return Path(name).absolute().as_uri()


class Document:
    """A text, read on demand and once. ``version`` counts the client's edits."""

    def __init__(
        self,
        uri: str,
        text: str,
        version: int | None,
        *,
        encoding: str = "utf-16",
        loader: Callable[[str], Source] | None = None,
    ) -> None:
        self.uri = uri
        self.name = name_of(uri)
        self.version = version
        self.encoding = encoding
        self.too_long = len(text) > MAX_CHARACTERS
        # A byte-order mark counts as a character of the first line for the client, too.
        self.source = Source(self.name, "" if self.too_long else text)
        self.positions = Positions(self.source.text, encoding)
        self._loader = loader

    @cached_property
    def lexed(self) -> Lexed:
        """Tokens and comments."""
        return lex(self.source)

    @cached_property
    def examination(self) -> Examination:
        """The check, with what it collected."""
        return examine(self.source, loader=self._loader)

    @cached_property
    def index(self) -> Index:
        """The uses of names, in this file and in those that it includes."""
        return build(self.examination.state, self.examination.files)

    @property
    def is_checked(self) -> bool:
        """Whether the check has run."""
        return "examination" in self.__dict__

    @property
    def tree(self) -> ast.File:
        """The tree of this file alone."""
        if self.is_checked:
            return self.examination.files[0]
        return self._parsed

    @cached_property
    def _parsed(self) -> ast.File:
        """The tree of a text that is not checked yet."""
        return parse(self.source, replace(self.lexed, tokens=list(self.lexed.tokens))).file

    @cached_property
    def _levels(self) -> list[str]:
        """The level that each token stands in."""
        return list(levels(self.lexed.tokens))

    def level_of(self, token: int) -> str:
        """The level in which the token of this number stands."""
        return self._levels[token]

    @property
    def state(self) -> State:
        """Declarations and shapes."""
        return self.examination.state

    @property
    def program(self) -> Program | None:
        """The checked program; None where there are errors."""
        return self.examination.result.program

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Everything that the check found, in this file and in included ones."""
        return self.examination.result.diagnostics

    @property
    def has_syntax_errors(self) -> bool:
        """Whether parts of the text are in no tree."""
        return any(
            d.severity is Severity.ERROR and d.code.startswith("BLV01") for d in self.diagnostics
        )

    def positions_in(self, name: str) -> Positions | None:
        """The lines of this file or of an included one."""
        if name == self.name:
            return self.positions
        source = self.state.sources.get(name)
        return None if source is None else Positions(source.text, self.encoding)

    def use_at(self, offset: int) -> Use | None:
        """The name under ``offset``."""
        found = self.index.at(self.name, offset)
        return self._unread_at(offset) if found is None and self.has_syntax_errors else found

    def _unread_at(self, offset: int) -> Use | None:
        """A name in a statement that is in no tree yet: what it would mean there."""
        k = len(self.tokens_before(offset + 1)) - 1
        before = self.lexed.tokens[max(k - 1, 0) : k + 1]
        if not before or before[-1].type != "NAME" or (before[-1].end_pos or 0) < offset:
            return None
        if len(before) > 1 and before[0].type == "DOT":
            return None
        name = str(before[-1])
        span = Span(self.name, before[-1].start_pos or 0, before[-1].end_pos or 0)
        declared = lookup(self.state, self.level_of(k), name)
        if isinstance(declared, Declaration):
            uses = (u for found in self.index.uses.values() for u in found)
            symbols = (u.symbol for u in uses if u.symbol is not None)
            symbol = next((s for s in symbols if s.declaration is declared), None)
            return None if symbol is None else Use(span, name, symbol)
        return Use(span, name, None) if declared is None and name in CALLS else None

    def tokens_before(self, offset: int) -> list[Token]:
        """The tokens that begin before ``offset``."""
        tokens = self.lexed.tokens
        end = bisect.bisect_left(tokens, offset, key=lambda t: t.start_pos or 0)
        return tokens[:end]


def levels(tokens: Iterable[Token]) -> Iterator[str]:
    """For each token the level whose braces are open before it: "top", "upper" or a follower."""
    level, depth = TOP, 0
    head: str | None = None
    named = False
    for token in tokens:
        yield level
        if token.type == "UPPER":
            head = UPPER
        elif token.type == "LOWER":
            head, named = TOP, True
        elif token.type == "NAME" and named:
            head, named = str(token), False
        elif token.type == "LBRACE":
            depth += 1
            if head is not None:
                level, head, depth = head, None, 1
        elif token.type == "RBRACE":
            depth -= 1
            if depth <= 0:
                level, depth = TOP, 0
    yield level


def level_at(tokens: list[Token]) -> str:
    """The level whose braces are open after ``tokens``."""
    *_, last = levels(tokens)
    return last


def statement(tokens: list[Token]) -> list[Token]:
    """The tokens since the last statement ended or its level began."""
    for k in range(len(tokens) - 1, -1, -1):
        kind = tokens[k].type
        opens = kind == "LBRACE" and (k == 0 or tokens[k - 1].type != "EQUAL")
        if kind in ("SEMICOLON", "RBRACE", "SUBJECT_TO") or opens:
            return tokens[k + 1 :]
    return tokens
