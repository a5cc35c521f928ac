"""Text to tokens: spellings of other languages are replaced and reported, comments set aside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Fix, Source, Span, diagnostic
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.ast import MAX_DEPTH
from bilevelpy.system.deadline import check


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as written, `#` included; ``own_line`` if nothing but space stands before it."""

    text: str
    span: Span
    own_line: bool


@dataclass(slots=True)
class Lexed:
    """Tokens, comments and what the lexer had to repair.

    ``tainted`` are offsets of repairs: a statement that covers one reports nothing else.
    ``unreadable`` are offsets in statements that are not to be parsed at all.
    """

    tokens: list[Token] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    tainted: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    # Start and end of the last line with a `|`, and how many stand on it.
    bars: tuple[int, int, int] = (0, 0, 0)

    def docs(self) -> dict[int, str]:
        """The text of the `##` lines right before a token, by the token's offset."""
        found: dict[int, str] = {}
        position = 0
        pending: list[str] = []
        for comment in self.comments:
            start = comment.span.start
            if position < len(self.tokens) and (self.tokens[position].start_pos or 0) < start:
                self._attach(found, position, pending)
                while (
                    position < len(self.tokens) and (self.tokens[position].start_pos or 0) < start
                ):
                    position += 1
                pending = []
            if comment.own_line and comment.text.startswith("##"):
                pending.append(comment.text.lstrip("#").strip())
            elif comment.own_line:
                pending = []
        self._attach(found, position, pending)
        return found

    def _attach(self, found: dict[int, str], position: int, lines: list[str]) -> None:
        if lines and position < len(self.tokens):
            found[self.tokens[position].start_pos or 0] = "\n".join(lines).strip()


def retype(token: Token, kind: str, text: str | None = None) -> Token:
    """The same place in the text as another terminal."""
    return Token.new_borrow_pos(kind, str(token) if text is None else text, token)


def prepare(source: Source, lex: Callable[[str], Iterable[Token]]) -> Lexed:
    """Lex ``source`` and repair what belongs to no terminal of the grammar."""
    out = Lexed()
    skipped = 0
    for token in lex(source.text):
        kind, start, end = token.type, token.start_pos or 0, token.end_pos or 0
        if start < skipped:
            continue
        if kind == "SEMICOLON":
            check()
        if kind == "COMMENT":
            before = source.text[source.text.rfind("\n", 0, start) + 1 : start]
            text = str(token).rstrip()
            span = Span(source.name, start, start + len(text))
            out.comments.append(Comment(text, span, not before.strip(" \t\r\f\ufeff")))
            continue
        span = Span(source.name, start, end)
        if kind == "JUNK" and token.startswith("%") and _starts_line(out, source, start):
            skipped = source.text.find("\n", start)
            skipped = len(source.text) if skipped < 0 else skipped
            fix = Fix("replace `%` with `#`", Span(source.name, start, start + 1), "#")
            out.diagnostics.append(diagnostic("BLV0115", fix.span, fix=fix, found="%"))
        elif kind == "FOREIGN_COMMENT":
            _foreign_comment(out, str(token), span)
        elif kind == "FOREIGN_OPERATOR":
            _foreign_operator(out, source, token, span)
        elif kind == "OPEN_STRING":
            _open_string(out, token, span)
        elif kind == "JUNK":
            _junk(out, token, span)
        elif kind == "NUMBER" and math.isinf(float(token)):
            out.diagnostics.append(diagnostic("BLV0128", span, hint="`inf` is written as a word"))
            out.tokens.append(token)
        elif out.tainted and kind in ("NAME", "NUMBER") and _continues_name(out, token):
            _merge(out, token)
        else:
            out.tokens.append(token)
    _check_depth(out, source.name)
    return out


def _starts_line(out: Lexed, source: Source, start: int) -> bool:
    last = (out.tokens[-1].end_pos or 0) if out.tokens else 0
    return not out.tokens or source.text.find("\n", last, start) >= 0


def _foreign_comment(out: Lexed, text: str, span: Span) -> None:
    mark = text[:2]
    inner = text[2:-2] if mark == "/*" else text[2:]
    replacement = "\n".join(f"# {line.strip()}".rstrip() for line in inner.splitlines()) or "#"
    # A block comment in the middle of a line cannot become a line comment.
    fix = Fix(f"replace `{mark}` with `#`", span, replacement) if mark == "//" else None
    out.diagnostics.append(
        diagnostic("BLV0115", Span(span.file, span.start, span.start + 2), fix=fix, found=mark)
    )


def _foreign_operator(out: Lexed, source: Source, token: Token, span: Span) -> None:
    found = str(token)
    opened = bool(out.diagnostics) and "`||` is not" in out.diagnostics[-1].message
    begins = not out.tokens or out.tokens[-1].type not in table.OPERAND_ENDS
    norm = found == "||" and (begins or opened)
    if norm or (found == "|" and _bars(out, source, span.start) > 1):
        out.tainted.append(span.start)
        out.unreadable.append(span.start)
        hint = "an absolute value is written `abs(x)`, a norm `norm2(x)`"
        out.diagnostics.append(diagnostic("BLV0107", span, hint=hint, character=f"`{found}`"))
        return
    right, kind = table.FOREIGN_OPERATORS[found]
    shown = found if found.isascii() else f"U+{ord(found):04X}"
    # `a&&b` needs spaces around its word.
    replacement = f" {right} " if right.isalpha() else right
    fix = Fix(f"replace `{shown}` with `{right}`", span, replacement)
    out.tainted.append(span.start)
    if kind == "WS":
        fix = Fix("replace it with a space", span, " ")
        out.diagnostics.append(
            diagnostic("BLV0107", span, "a non-breaking space", fix=fix, character=f"`{shown}`")
        )
        return
    out.diagnostics.append(diagnostic("BLV0110", span, fix=fix, found=shown, right=right))
    if kind != "JUNK":
        out.tokens.append(retype(token, kind, right))


def _bars(out: Lexed, source: Source, at: int) -> int:
    """How many single bars stand on the line of ``at``."""
    start, end, bars = out.bars
    if not start <= at < end:
        start, end = source.text.rfind("\n", 0, at) + 1, source.text.find("\n", at)
        end = len(source.text) if end < 0 else end
        bars = source.text[start:end].replace("||", "").count("|")
        out.bars = (start, end, bars)
    return bars


def _open_string(out: Lexed, token: Token, span: Span) -> None:
    # The rest of the line went into the text; what is usually meant ends before `;`, `)` or `,`.
    text = str(token).rstrip()
    body = text.rstrip(";,)]} ")
    end = span.start + len(body)
    fix = Fix('insert `"`', Span(span.file, end, end), '"')
    out.tainted.append(span.start)
    out.diagnostics.append(
        diagnostic("BLV0108", Span(span.file, span.start, end), "starts here", fix=fix)
    )
    out.tokens.append(retype(token, "STRING", body + '"'))
    out.tokens[-1].end_pos = end
    for k, character in enumerate(text[len(body) :]):
        kind = table.PUNCTUATION.get(character)
        if kind:
            at = end + k
            column = (token.column or 1) + len(body) + k
            out.tokens.append(
                Token(kind, character, at, token.line, column, token.line, column + 1, at + 1)
            )


def _junk(out: Lexed, token: Token, span: Span) -> None:
    text = str(token)
    word = text.isalpha()
    out.tainted.append(span.start)
    first = text[0]
    shown = f"`{first}`" if first.isascii() and first.isprintable() else f"U+{ord(first):04X}"
    label = "names are made of a-z, A-Z, 0-9 and `_`" if word else ""
    # Without its sign, 40% would be forty: nothing that a program may do by itself.
    percent = text == "%"
    hint = "per cent are written as a fraction: `0.4`" if percent else None
    fix = None if word or percent else Fix("remove it", span, "")
    out.diagnostics.append(diagnostic("BLV0107", span, label, hint=hint, fix=fix, character=shown))
    if word:
        last = out.tokens[-1] if out.tokens else None
        if last is not None and last.type == "NAME" and last.end_pos == token.start_pos:
            _merge(out, token)
        else:
            out.tokens.append(retype(token, "NAME"))


def _continues_name(out: Lexed, token: Token) -> bool:
    last = out.tokens[-1] if out.tokens else None
    return last is not None and last.type == "NAME" and last.end_pos == token.start_pos


def _merge(out: Lexed, token: Token) -> None:
    last = out.tokens[-1]
    merged = retype(last, "NAME", str(last) + str(token))
    merged.end_pos, merged.end_column = token.end_pos, token.end_column
    out.tokens[-1] = merged


def _check_depth(out: Lexed, file: str) -> None:
    """Report what nests deeper than `MAX_DEPTH`, on tokens, before anything is built that nests.

    Brackets nest; so do runs of signs, `^`, `'`, `.`, subscripts, `not` and `if` between two
    operators of one bracket.
    """
    outer: list[tuple[int, int]] = []
    chain = ifs = depth = 0
    reported = False
    previous = "SEMICOLON"
    for token in out.tokens:
        kind = token.type
        if kind in table.CLOSER:
            outer.append((chain, ifs))
            depth += chain + ifs + 1
            chain = ifs = 0
        elif kind in table.OPENER:
            if outer:
                chain, ifs = outer.pop()
                depth -= chain + ifs + 1
                # A second subscript wraps the first.
                chain += kind == "RSQB"
        elif kind == "SEMICOLON":
            outer.clear()
            chain = ifs = depth = 0
            reported = False
        elif kind in ("CIRCUMFLEX", "QUOTE", "DOT", "NOT"):
            chain += 1
        elif kind == "IF":
            chain, ifs = 0, ifs + 1
        elif kind in table.ADDITIVE:
            chain = 0 if previous in table.OPERAND_ENDS else chain + 1
        elif kind == "COMMA":
            chain = ifs = 0
        elif kind in table.MULTIPLICATIVE or kind in ("REL", "CMP", "AND", "OR", "THEN", "ELSE"):
            chain = 0
        if depth + chain + ifs > MAX_DEPTH and not reported:
            reported = True
            start, end = token.start_pos or 0, token.end_pos or 0
            out.unreadable.append(start)
            out.diagnostics.append(
                diagnostic(
                    "BLV0111",
                    Span(file, start, end),
                    "too deep from here on",
                    hint="name parts with `let` or `def`",
                    limit=MAX_DEPTH,
                )
            )
        previous = kind
