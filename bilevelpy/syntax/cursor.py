"""A cursor over the tokens of a file with errors: looking ahead, parsing pieces, reporting."""

from __future__ import annotations

import bisect
from contextlib import suppress
from typing import Any

from lark.exceptions import UnexpectedToken
from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Fix, Source, Span, diagnostic
from bilevelpy.syntax import mistakes
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.build import Head
from bilevelpy.syntax.failure import Failure
from bilevelpy.syntax.lexing import Lexed, retype
from bilevelpy.syntax.meant import meant_keyword
from bilevelpy.syntax.tables import Tables


class Cursor:
    """The tokens, the place in them, and what was found so far."""

    def __init__(self, source: Source, lexed: Lexed, loaded: Tables) -> None:
        self.source = source
        self.tokens = lexed.tokens
        self.tainted = lexed.tainted
        self.unreadable = lexed.unreadable
        self.loaded = loaded
        self.diagnostics: list[Diagnostic] = []
        self.position = 0

    # --- looking ahead

    def head_end(self, start: int) -> int:
        """Index of the brace that opens the level at ``start``, or where its head ends without."""
        depth = 0
        first_brace: int | None = None
        k = start
        for k in range(start, len(self.tokens)):
            kind = self.tokens[k].type
            if kind == "LBRACE":
                # A set in the head has a brace too; a statement follows that of the level.
                following = self.tokens[k + 1].type if k + 1 < len(self.tokens) else ""
                if following in table.LEVEL_STARTS:
                    return k
                first_brace = k if depth == 0 and first_brace is None else first_brace
            elif (
                kind == "SEMICOLON"
                or (kind == "RBRACE" and depth <= 0)
                or (k > start and kind in table.TOP_STARTS | table.LEVEL_STARTS)
            ):
                break
            depth += (kind in table.CLOSER) - (kind in table.OPENER)
        else:
            k += 1
        return k if first_brace is None else first_brace

    def block_end(self, start: int) -> tuple[int, bool]:
        """Index of the brace that closes a level opened before ``start``, or where it must end."""
        depth = 0
        first_top: int | None = None
        for k in range(start, len(self.tokens)):
            kind = self.tokens[k].type
            if kind == "LBRACE":
                depth += 1
            elif kind == "RBRACE":
                if depth == 0:
                    return k, True
                depth -= 1
            elif first_top is None and kind in table.TOP_STARTS and self.first_on_line(k):
                first_top = None if self.is_member(k) else k
        return (len(self.tokens) if first_top is None else first_top), False

    def statement_end(self, start: int, limit: int) -> tuple[int, bool]:
        """End of the statement at ``start``, behind its `;`, and whether it has one."""
        braces = 0
        for k in range(start, limit):
            kind = self.tokens[k].type
            if kind == "SEMICOLON" and not self.goes_on(k + 1, limit):
                return k + 1, True
            if kind == "LBRACE":
                braces += 1
            elif kind == "RBRACE":
                if braces == 0 and k > start and self.first_on_line(k):
                    return k, False
                braces -= 1
            elif (
                k > start
                and kind in table.TOP_STARTS | table.LEVEL_STARTS
                and self.first_on_line(k)
                and not self.is_member(k)
            ):
                return k, False
        return limit, False

    def goes_on(self, k: int, limit: int) -> bool:
        """Whether token ``k`` can start no statement, as after the `;` in `[1, 2; 3, 4]`."""
        return k < limit and self.tokens[k].type == "NUMBER" and not self.first_on_line(k)

    def starts_statement(self, k: int) -> bool:
        """Whether a new statement visibly starts at token ``k``."""
        token = self.tokens[k]
        if token.type in table.TOP_STARTS | table.LEVEL_STARTS:
            return True
        if token.type != "NAME":
            return False
        if not self.first_on_line(k):
            if k + 1 == len(self.tokens):
                return False
            meant = meant_keyword(self.tokens, k, {"subject to": "SUBJECT_TO"}, 1.0)
            return meant[0] is not None
        return self.looks_like_constraint(k) or str(token).lower() in table.FOREIGN_WORDS

    def looks_like_constraint(self, k: int) -> bool:
        """Whether `name:` or `name[...]:` stands at token ``k``."""
        if k + 1 >= len(self.tokens) or self.tokens[k].type != "NAME":
            return False
        k += 1
        if self.tokens[k].type == "LSQB":
            while k < len(self.tokens) and self.tokens[k].type not in (
                "RSQB",
                "SEMICOLON",
                "RBRACE",
            ):
                k += 1
            k += 1
        return k < len(self.tokens) and self.tokens[k].type == "COLON"

    def compares(self, start: int, limit: int) -> bool:
        """Whether the statement at ``start`` compares something outside brackets."""
        depth = 0
        for k in range(start, self.statement_end(start, limit)[0]):
            kind = self.tokens[k].type
            depth += (kind in table.CLOSER) - (kind in table.OPENER)
            if depth == 0 and kind in ("REL", "CMP"):
                return True
        return False

    def respelled(self, keywords: dict[str, str], cutoff: float = 0.75) -> Token:
        """The token at the cursor, as the keyword that was meant if it is a word close to one."""
        token = self.tokens[self.position]
        if token.type != "NAME":
            return token
        meant, length = meant_keyword(self.tokens, self.position, keywords, cutoff)
        if meant is None:
            return token
        last = self.tokens[self.position + length - 1]
        span = self.at(token).to(self.at(last))
        found = self.source.text[span.start : span.end]
        fix = Fix(f"replace `{found}` with `{meant}`", span, meant)
        self.report(diagnostic("BLV0114", span, fix=fix, found=found, right=meant))
        new = retype(last, keywords[meant], meant)
        new.start_pos, new.line, new.column = token.start_pos, token.line, token.column
        self.position += length - 1
        return new

    # --- parsing and reporting

    def feed(self, symbol: str, tokens: list[Token]) -> tuple[Any, int, set[str]]:
        """Parse ``tokens`` as a ``symbol``.

        The node; or nothing, the index of the failing token and what could stand there.
        """
        self.loaded.builder.diagnostics = []
        cursor, k = self.loaded.shifted(symbol, tokens)
        if k == len(tokens):
            with suppress(UnexpectedToken):
                return cursor.feed_eof(tokens[-1] if tokens else None), k, set()
        # The failed step may have reduced already: ask again from the state before it.
        again, _ = self.loaded.shifted(symbol, tokens[:k])
        accepts: set[str] = again.accepts()
        return None, k, accepts

    def parse(self, symbol: str, start: int, end: int) -> Head | None:
        """The head of a level."""
        if self.covers(self.unreadable, start, end):
            return None
        node, failed, accepts = self.feed(symbol, self.tokens[start:end])
        if node is None:
            failure = Failure(
                self.source,
                symbol,
                self.tokens,
                start,
                end,
                start + failed,
                frozenset(accepts),
                False,
            )
            self.report_unless_tainted(mistakes.explain(failure), start, end)
            return None
        for found in self.loaded.builder.diagnostics:
            self.report_unless_tainted(found, start, end)
        head: Head = node
        return head

    def empty_statement(self) -> None:
        """Report and skip a `;` without a statement."""
        token = self.tokens[self.position]
        self.report(diagnostic("BLV0127", self.at(token), fix=self.removal(token)))
        self.position += 1

    def misplaced(self, token: Token, place: str) -> None:
        """Report a statement that belongs elsewhere."""
        notes: tuple[str, ...] = ()
        if str(token) == "lower":
            notes = (
                "there are two levels; a third one is written as the optimality conditions of its "
                "problem, among the constraints of the second",
            )
        self.report(
            diagnostic("BLV0123", self.at(token), notes=notes, keyword=str(token), place=place)
        )

    def missing(self, what: str, where: str, first: int, last: int) -> None:
        """Report that ``what`` is missing behind tokens ``first..last``."""
        end = self.tokens[last].end_pos or 0
        fix = Fix(f"insert `{what}`", Span(self.source.name, end, end), what)
        place = Span(self.source.name, end, end + 1)
        text = self.source.text[self.tokens[first].start_pos or 0 : end]
        short = what == ";" and len(text) <= 60 and text.isascii() and "\n" not in text
        hint = f"write `{text};`" if short else None
        found = diagnostic(
            "BLV0101",
            place,
            f"`{what}` is missing here",
            hint=hint,
            fix=fix,
            expected=what,
            where=where,
        )
        self.report(found)

    def semicolon_after(self, token: Token) -> Token:
        """The `;` that is missing behind ``token``."""
        end = token.end_pos or 0
        return Token(
            "SEMICOLON",
            ";",
            end,
            token.end_line,
            token.end_column,
            token.end_line,
            token.end_column,
            end,
        )

    def at(self, token: Token) -> Span:
        """The span of a token."""
        return Span(self.source.name, token.start_pos or 0, token.end_pos or 0)

    def removal(self, token: Token) -> Fix:
        """The edit that removes a token."""
        return Fix(f"remove `{token}`", self.at(token), "")

    def first_on_line(self, k: int) -> bool:
        """Whether token ``k`` is the first of its line."""
        return k == 0 or self.tokens[k - 1].end_line != self.tokens[k].line

    def follows_on_line(self, k: int) -> bool:
        """Whether a `:` or `;` stands behind the keyword before it."""
        return self.tokens[k].type in ("COLON", "SEMICOLON") and not self.first_on_line(k)

    def is_member(self, k: int) -> bool:
        """Whether a level keyword is the `upper` of `upper.objective`."""
        return k + 1 < len(self.tokens) and self.tokens[k + 1].type == "DOT"

    def covers(self, offsets: list[int], start: int, end: int) -> bool:
        """Whether one of ``offsets`` lies in the tokens ``start..end`` or right behind them."""
        if not offsets or start >= len(self.tokens):
            return False
        low = self.tokens[start].start_pos or 0
        high = (
            self.tokens[end].start_pos or 0 if end < len(self.tokens) else len(self.source.text) + 1
        )
        k = bisect.bisect_left(offsets, low)
        return k < len(offsets) and offsets[k] < high

    def report(self, found: Diagnostic) -> None:
        """Keep a diagnostic."""
        self.diagnostics.append(found)

    def report_unless_tainted(self, found: Diagnostic, start: int, end: int) -> None:
        """Keep a diagnostic of tokens ``start..end`` unless the lexer already had one there."""
        if not self.covers(self.tainted, start, end):
            self.report(found)
