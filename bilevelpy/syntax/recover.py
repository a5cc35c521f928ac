"""Statement-wise parsing of a file with errors: every mistake is reported once, the rest is read.

The language is delimited by `;` and `{}`, and its reserved words cannot occur inside an expression;
so a statement ends at its `;`, or where the next one visibly starts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Fix, Label, Source, Span, diagnostic
from bilevelpy.syntax import ast, mistakes
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.cursor import Cursor
from bilevelpy.syntax.failure import Failure, describe, kind_of
from bilevelpy.syntax.lexing import Lexed
from bilevelpy.syntax.tables import Tables

MAX_DIAGNOSTICS = 50


def recover(
    source: Source, lexed: Lexed, loaded: Tables
) -> tuple[list[ast.Item], list[Diagnostic]]:
    """All readable items and all syntax errors, at most `MAX_DIAGNOSTICS`, in text order."""
    run = _Recovery(source, lexed, loaded)
    items = run.file()
    found = sorted(
        lexed.diagnostics + run.diagnostics, key=lambda d: d.primary.span.start if d.primary else 0
    )
    if len(found) > MAX_DIAGNOSTICS:
        note = f"only the first {MAX_DIAGNOSTICS} syntax errors are shown"
        found = found[:MAX_DIAGNOSTICS]
        found[-1] = replace(found[-1], notes=(*found[-1].notes, note))
    return items, found


class _Recovery(Cursor):
    """Reads the structure of a file by its delimiters, and its statements with the parser."""

    nested = False
    # How many braces are open before each token.
    depth: list[int]

    # --- structure

    def file(self) -> list[ast.Item]:
        items: list[ast.Item] = []
        steps = ((t.type == "LBRACE") - (t.type == "RBRACE") for t in self.tokens)
        self.depth = [0, *accumulate(steps, lambda before, step: max(before + step, 0))]
        while self.position < len(self.tokens) and len(self.diagnostics) <= MAX_DIAGNOSTICS:
            token = self.tokens[self.position] = self.respelled(table.TOP_KEYWORDS)
            if token.type in ("UPPER", "LOWER"):
                items += self.level()
            elif token.type == "RBRACE":
                self.stray_brace(token, 0)
            elif token.type == "SEMICOLON":
                self.empty_statement()
            elif token.type in table.LEVEL_STARTS:
                self.misplaced(token, "inside `upper { ... }` or `lower name { ... }`")
                self.level_statements(len(self.tokens), quiet=True, until_top=True)
            elif (brace := self.block_without_keyword()) is not None:
                self.report(
                    diagnostic(
                        "BLV0102",
                        self.at(token),
                        hint="a level reads `upper { ... }` or `lower name { ... }`",
                        expected="`upper` or `lower` before this level",
                        found=describe(self.tokens, self.position),
                    )
                )
                self.position = brace + 1
                end, closed = self.block_end(self.position)
                self.level_statements(end)
                self.position = end + closed
            else:
                items += self.statement("item", len(self.tokens))
        return items

    def stray_brace(self, token: Token, levels: int) -> None:
        """A `}` in ``levels`` levels. One that closes a brace which does not belong there itself,
        and is reported, is no mistake of its own; nor is one on a line with a text that has no end,
        which may have swallowed the opening one.
        """
        start, text = token.start_pos or 0, self.source.text
        if any(at < start and "\n" not in text[at:start] for at in self.tainted):
            self.position += 1
            return
        if self.depth[self.position] <= levels or not self.diagnostics:
            fix = self.removal(token)
            self.report(diagnostic("BLV0105", self.at(token), fix=fix, closer="}", what="nothing"))
        self.position += 1

    def block_without_keyword(self) -> int | None:
        """Index of the brace if a level stands at the cursor whose keyword is missing."""
        if self.tokens[self.position].type not in ("NAME", "LBRACE", "OPTIMISTIC", "PESSIMISTIC"):
            return None
        k = self.head_end(self.position)
        follows = k + 1 < len(self.tokens) and self.tokens[k + 1].type in table.LEVEL_STARTS
        return k if follows and self.tokens[k].type == "LBRACE" else None

    def level(self) -> list[ast.Item]:
        """A level with its statements, then the declarations that were written inside it."""
        start = self.position
        brace = self.head_end(start)
        opened = brace < len(self.tokens) and self.tokens[brace].type == "LBRACE"
        symbol = "upper_head" if self.tokens[start].type == "UPPER" else "lower_head"
        head = self.parse(symbol, start, brace)
        if not opened:
            if head is not None:
                where = f"after the head of `{head.name or 'upper'}`"
                self.missing("{", where, start, brace - 1)
            self.position = brace
            if brace < len(self.tokens) and self.tokens[brace].type == "SEMICOLON":
                self.position += 1
                return []
            end, closed = self.block_end(brace)
        else:
            self.position = brace + 1
            end, closed = self.block_end(brace + 1)
        hoisted: list[ast.Item] = []
        statements = self.level_statements(end, hoisted=hoisted)
        self.position = max(self.position, end)
        if closed:
            self.position = end + 1
        elif opened:
            last = self.tokens[max(end - 1, 0)]
            place = Span(self.source.name, last.end_pos or 0, (last.end_pos or 0) + 1)
            self.report(
                diagnostic(
                    "BLV0104",
                    self.at(self.tokens[brace]),
                    "this level is still open",
                    secondary=(Label(place, "`}` is missing here, at the latest"),),
                    fix=Fix("insert `}`", Span(place.file, place.start, place.start), "\n}"),
                    opener="{",
                )
            )
        if head is None:
            return hoisted
        stop = self.tokens[max(self.position - 1, start)].end_pos or 0
        span = Span(self.source.name, head.span.start, stop)
        return [self.loaded.builder.level(head, tuple(statements), span), *hoisted]

    def nested_level(self, end: int) -> list[ast.Item]:
        """A level inside a level, read as if it stood outside; a third one inside is skipped."""
        if not self.nested:
            self.nested = True
            items = self.level()
            self.nested = False
            return items
        while self.position < end and self.tokens[self.position].type != "LBRACE":
            self.position += 1
        self.position, closed = self.block_end(self.position + 1)
        self.position += closed
        return []

    def level_statements(
        self,
        end: int,
        quiet: bool = False,
        until_top: bool = False,
        hoisted: list[ast.Item] | None = None,
    ) -> list[Any]:
        """The statements up to ``end``; ``quiet`` reads on without reports."""
        statements: list[Any] = []
        kept = len(self.diagnostics)
        told = quiet
        while self.position < end and len(self.diagnostics) <= MAX_DIAGNOSTICS:
            token = self.tokens[self.position]
            constraint = self.looks_like_constraint(self.position)
            # `constraints:` before `name: ...` is a heading.
            constraint = constraint and not self.looks_like_constraint(self.position + 2)
            if not constraint:
                token = self.tokens[self.position] = self.respelled(table.LEVEL_KEYWORDS)
            if until_top and (token.type in table.TOP_STARTS or token.type == "RBRACE"):
                break
            if token.type == "SUBJECT_TO":
                statements += self.subject_to(end)
            elif token.type == "SEMICOLON":
                self.empty_statement()
            elif token.type in table.LEVEL_STARTS:
                statements += self.statement("stmt", end)
            elif token.type in table.TOP_STARTS and hoisted is not None:
                self.misplaced(token, "at the top level, outside the braces")
                if token.type in ("UPPER", "LOWER"):
                    hoisted += self.nested_level(end)
                else:
                    hoisted += self.statement("item", end)
            elif token.type == "RBRACE":
                self.stray_brace(token, 1)
            else:
                if constraint and not told:
                    told = True
                    here = self.at(token)
                    fix = Fix(
                        "insert `subject to`",
                        Span(here.file, here.start, here.start),
                        "subject to\n    ",
                    )
                    self.report(diagnostic("BLV0112", here, "this is a constraint", fix=fix))
                row = constraint or self.compares(self.position, end)
                found = self.statement("constraint" if row else "stmt", end)
                if found and constraint:
                    statements.append(ast.SubjectTo(found[0].span.to(found[-1].span), tuple(found)))
        if quiet:
            del self.diagnostics[kept:]
        return statements

    def subject_to(self, end: int) -> list[ast.SubjectTo]:
        keyword = self.tokens[self.position]
        self.position += 1
        if self.position < end and self.follows_on_line(self.position):
            extra = self.tokens[self.position]
            self.report(
                diagnostic(
                    "BLV0102",
                    self.at(extra),
                    fix=self.removal(extra),
                    expected="a constraint after `subject to`",
                    found=f"`{extra}`",
                )
            )
            self.position += 1
        elif self.position >= end or self.tokens[self.position].type in table.LEVEL_STARTS:
            self.report(
                diagnostic(
                    "BLV0102",
                    self.at(keyword),
                    "no constraint follows",
                    hint="write constraints as `name: left <= right;`, or leave `subject to` out",
                    expected="a constraint after `subject to`",
                    found=describe(self.tokens, self.position),
                )
            )
        constraints: list[ast.Constraint] = []
        while self.position < end and len(self.diagnostics) <= MAX_DIAGNOSTICS:
            token = self.tokens[self.position]
            if not self.looks_like_constraint(self.position):
                token = self.respelled(table.LEVEL_KEYWORDS, cutoff=0.85)
                # `min` and `max` also are functions, with which an unnamed constraint may start.
                if token.type in table.LEVEL_STARTS:
                    self.tokens[self.position] = token
            if token.type in table.LEVEL_STARTS | table.TOP_STARTS or token.type == "RBRACE":
                break
            if token.type == "SEMICOLON":
                self.empty_statement()
                continue
            constraints += self.statement("constraint", end)
        if not constraints:
            return []
        return [ast.SubjectTo(self.at(keyword).to(constraints[-1].span), tuple(constraints))]

    # --- statements

    def statement(self, symbol: str, limit: int) -> list[Any]:
        """Parse one statement from the cursor, report its mistake, move behind it."""
        start = self.position
        end, closed = self.statement_end(start, limit)
        self.position = max(end, start + 1)
        if self.covers(self.unreadable, start, end):
            return []
        slice_ = self.tokens[start:end]
        if not closed:
            slice_ = [*slice_, self.semicolon_after(self.tokens[end - 1])]
        node, failed, accepts = self.feed(symbol, slice_)
        kept = list(self.loaded.builder.diagnostics)
        if node is not None:
            if not closed:
                self.missing(";", f"after this {kind_of(symbol, slice_)}", start, end - 1)
            for found in kept:
                self.report_unless_tainted(found, start, end)
            return [] if kept else [node]
        at = start + failed
        if closed or failed < len(slice_) - 1:
            resumed = self.resume(symbol, slice_, failed, accepts, at)
            if resumed is not None:
                return resumed
        found_by = Failure(
            self.source, symbol, self.tokens, start, end, at, frozenset(accepts), closed
        )
        self.report_unless_tainted(mistakes.explain(found_by), start, end)
        return []

    def resume(
        self, symbol: str, slice_: list[Token], failed: int, accepts: set[str], at: int
    ) -> list[Any] | None:
        """If only a `;` is missing where a statement starts, take what stands before it."""
        if "SEMICOLON" not in accepts or failed == 0 or not self.starts_statement(at):
            return None
        before = [*slice_[:failed], self.semicolon_after(slice_[failed - 1])]
        node, _, _ = self.feed(symbol, before)
        kept = list(self.loaded.builder.diagnostics)
        if node is None:
            return None
        self.missing(";", f"after this {kind_of(symbol, slice_)}", at - failed, at - 1)
        self.position = at
        return [] if kept else [node]
