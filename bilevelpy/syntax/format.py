"""The canonical layout of a model file, without options.

Works on tokens and comments: one statement a line, two spaces a level, at most `WIDTH` columns; a
longer statement breaks where its operators bind least. The layout depends on the tokens, on the
place of comments and on where blank lines are, never on other line breaks; so formatting twice
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from lark.lexer import Token

from bilevelpy.diagnostics import Diagnostic, Source
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.lexing import Comment
from bilevelpy.syntax.parser import lex, parse

WIDTH = 100
INDENT = 2
CONTINUATION = 4
MAX_STEPS = 8

# Where a line may break, loosest first: before these, or after a comma or `=`.
BREAK_RANK = {
    "FOR": 0,
    "THEN": 0,
    "ELSE": 0,
    "WHERE": 1,
    "COMMA": 2,
    "OR": 3,
    "AND": 4,
    "REL": 5,
    "CMP": 5,
    "UNION": 5,
    "INTER": 5,
    "DIFF": 5,
    "PLUS": 6,
    "MINUS": 6,
    "STAR": 7,
    "SLASH": 7,
    "AT": 7,
    "EQUAL": 8,
}
BREAK_AFTER = frozenset({"COMMA", "EQUAL"})
TIGHT_BEFORE = frozenset(
    {"COMMA", "SEMICOLON", "RPAR", "RSQB", "QUOTE", "CIRCUMFLEX", "DOT", "RANGE"}
)
TIGHT_AFTER = frozenset({"LPAR", "LSQB", "CIRCUMFLEX", "DOT", "RANGE"})


@dataclass(frozen=True, slots=True)
class Formatted:
    """The formatted text, or nothing and the reasons why the text could not be read."""

    text: str | None
    diagnostics: list[Diagnostic]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token or comment on its way to the output, with its terminal and source lines."""

    text: str
    kind: str
    line: int
    end_line: int


def format_source(text: str, name: str = "<text>") -> Formatted:
    """``text`` in canonical layout; a file with syntax errors is not touched."""
    source = Source(name, text)
    lexed = lex(source)
    diagnostics = parse(source, lexed).diagnostics
    if diagnostics:
        return Formatted(None, diagnostics)
    printer = _Printer()
    for piece in _pieces(source, lexed.tokens, lexed.comments):
        printer.add(piece)
    return Formatted(printer.finish(), [])


def _pieces(source: Source, tokens: list[Token], comments: list[Comment]) -> list[Piece]:
    """Tokens and comments in the order of the text."""
    found: list[tuple[int, Piece]] = []
    for token in tokens:
        text = " ".join(str(token).split()) if token.type == "SUBJECT_TO" else str(token)
        line, end_line = token.line or 1, token.end_line or 1
        found.append((token.start_pos or 0, Piece(text, token.type, line, end_line)))
    for comment in comments:
        line, _ = source.position(comment.span.start)
        kind = "OWN_COMMENT" if comment.own_line else "COMMENT"
        found.append((comment.span.start, Piece(comment.text, kind, line, line)))
    return [piece for _, piece in sorted(found, key=lambda pair: pair[0])]


class _Printer:
    """Collects the pieces of a statement and prints it when it ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.statement: list[Piece] = []
        self.leading: list[Piece] = []
        self.depth = 0
        self.in_level = False
        self.in_constraints = False
        self.last_line = 0
        self.opened = False

    def add(self, piece: Piece) -> None:
        if piece.kind == "COMMENT" and not self.statement and self.lines:
            self.lines[-1] += f"  {piece.text}"
            self.last_line = piece.line
        elif piece.kind in ("COMMENT", "OWN_COMMENT"):
            (self.statement if self.statement else self.leading).append(piece)
        else:
            self._token(piece)

    def _token(self, piece: Piece) -> None:
        kind = piece.kind
        if not self.statement and kind == "RBRACE":
            self._flush_leading(INDENT)
            self.in_level = self.in_constraints = False
            self._print([piece], 0, blank=False)
            return
        if not self.statement and kind in table.LEVEL_STARTS:
            self.in_constraints = False
        first = self.statement[0].kind if self.statement else kind
        self.statement.append(piece)
        if kind in table.CLOSER:
            self.depth += 1
        elif kind in table.OPENER:
            self.depth -= 1
        if (
            kind == "LBRACE"
            and self.depth == 1
            and first in ("UPPER", "LOWER")
            and not self.in_level
        ):
            self._end(0)
            self.in_level = self.opened = True
        elif kind == "SUBJECT_TO":
            self._end(INDENT)
            self.in_constraints = True
        elif kind == "SEMICOLON":
            self._end(INDENT * (self.in_level + self.in_constraints))

    def _end(self, indent: int) -> None:
        self._flush_leading(indent)
        self._print(self.statement, indent, blank=True)
        self.statement = []
        self.depth = 0

    def _flush_leading(self, indent: int) -> None:
        for comment in self.leading:
            self._blank_before(comment.line)
            self.lines.append(" " * indent + comment.text)
            self.last_line = comment.end_line
        self.leading = []

    def _print(self, pieces: list[Piece], indent: int, blank: bool) -> None:
        if blank:
            self._blank_before(pieces[0].line)
        self.lines += _layout(pieces, indent)
        self.last_line = pieces[-1].end_line

    def _blank_before(self, line: int) -> None:
        if self.lines and line - self.last_line > 1 and not self.opened:
            self.lines.append("")
        self.opened = False

    def finish(self) -> str:
        self._flush_leading(0)
        return "\n".join(self.lines) + "\n" if self.lines else ""


@dataclass(slots=True)
class _Word:
    """A token, the space before it, the rank of a line break before it (smaller breaks first)."""

    text: str
    space: bool
    rank: tuple[int, int] | None


def _layout(pieces: list[Piece], indent: int) -> list[str]:
    """The lines of one statement; comments inside it end a line, or have a line of their own."""
    lines: list[str] = []
    words: list[_Word] = []
    margin = indent

    def flush() -> None:
        nonlocal words, margin
        if words:
            lines.extend(_fill(words, margin, indent + CONTINUATION))
            words = []
        margin = indent + CONTINUATION

    previous: Piece | None = None
    before: Piece | None = None
    depth = 0
    for piece in pieces:
        if piece.kind == "COMMENT":
            flush()
            lines[-1] += f"  {piece.text}"
            continue
        if piece.kind == "OWN_COMMENT":
            flush()
            lines.append(" " * margin + piece.text)
            continue
        if piece.kind in table.OPENER:
            depth -= 1
        space = _space(before, previous, piece, pieces[0].kind)
        words.append(_Word(piece.text, space, _rank(previous, piece, depth)))
        if piece.kind in table.CLOSER:
            depth += 1
        before, previous = previous, piece
    flush()
    return lines


def _fill(words: list[_Word], margin: int, continuation: int) -> list[str]:
    """Lines of at most `WIDTH` columns.

    An overfull line breaks at its loosest place, the last of equals; a break that is tighter than
    an earlier one is indented further.
    """
    lines: list[str] = []
    used: set[tuple[int, int]] = set()
    start, width, k = 0, margin, 0
    while k < len(words):
        width += len(words[k].text) + (words[k].space and k > start)
        if width > WIDTH:
            places = [
                (rank, -j) for j in range(start + 1, k + 1) if (rank := words[j].rank) is not None
            ]
            if places:
                rank, position = min(places)
                lines.append(_join(words[start:-position], margin))
                used.add(rank)
                looser = sum(other < rank for other in used)
                start = k = -position
                margin = width = continuation + INDENT * min(looser, MAX_STEPS)
                continue
        k += 1
    lines.append(_join(words[start:], margin))
    return lines


def _join(words: list[_Word], margin: int) -> str:
    body = "".join((" " if word.space and k else "") + word.text for k, word in enumerate(words))
    return " " * margin + body


def _rank(previous: Piece | None, piece: Piece, depth: int) -> tuple[int, int] | None:
    """How loosely the place before ``piece`` binds: bracket depth, then operator.

    Nothing where a line cannot break.
    """
    if previous is None:
        return None
    if previous.kind in BREAK_AFTER:
        return depth, BREAK_RANK[previous.kind]
    if piece.kind in BREAK_AFTER or piece.kind not in BREAK_RANK:
        return None
    if piece.kind in table.ADDITIVE and previous.kind not in table.OPERAND_ENDS:
        return None
    return depth, BREAK_RANK[piece.kind]


def _space(before: Piece | None, previous: Piece | None, piece: Piece, first: str) -> bool:
    """Whether a space stands before ``piece``; ``first`` is how the statement starts."""
    if previous is None:
        return False
    last, kind = previous.kind, piece.kind
    if last == "NUMBER" and (kind == "DOT" or (kind == "RANGE" and previous.text.endswith("."))):
        # Without the space the dot would be read as part of the number.
        return True
    if kind in TIGHT_BEFORE or last in TIGHT_AFTER:
        return False
    if kind == "COLON":
        return last == "COMMA" or first == "EXTERN"
    if last in table.ADDITIVE:
        return before is not None and before.kind in table.OPERAND_ENDS
    if kind in ("LPAR", "LSQB"):
        return last not in table.OPERAND_ENDS
    return last != "LBRACE" and kind != "RBRACE"
