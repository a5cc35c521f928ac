"""Where and how a statement failed to parse, for the rules that find words for it."""

from __future__ import annotations

from dataclasses import dataclass

from lark.lexer import Token

from bilevelpy.diagnostics import Source, Span
from bilevelpy.syntax import tokens as table

KINDS = {
    "VAR": "declaration",
    "LET": "definition",
    "MINIMIZE": "objective",
    "MAXIMIZE": "objective",
    "SUBJECT_TO": "constraint",
    "ASSUME": "assumption",
    "REPORT": "report",
    "EXPECT": "expectation",
    "DEF": "definition",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Tokens ``start..end`` are no ``symbol``: at token ``at``, only ``accepts`` could stand."""

    source: Source
    symbol: str
    tokens: list[Token]
    start: int
    end: int
    at: int
    accepts: frozenset[str]
    closed: bool

    @property
    def token(self) -> Token | None:
        """The token that failed; nothing at the end of the file."""
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    @property
    def previous(self) -> Token | None:
        """The token before it, in the same statement."""
        return self.tokens[self.at - 1] if self.at > self.start else None

    @property
    def inside(self) -> bool:
        """Whether the failing token belongs to the statement (not to what comes after it)."""
        return self.at < self.end

    def kind(self, offset: int) -> str:
        """The type of the token ``offset`` places after the failing one, or an empty text."""
        k = self.at + offset
        return self.tokens[k].type if self.start <= k < len(self.tokens) else ""

    def text(self, k: int) -> str:
        """The text of token ``k``, or an empty text."""
        return str(self.tokens[k]) if 0 <= k < len(self.tokens) else ""

    def span(self, first: int, last: int | None = None) -> Span:
        """The span of token ``first``, or from it to token ``last``."""
        stop = self.tokens[first if last is None else last]
        return Span(self.source.name, self.tokens[first].start_pos or 0, stop.end_pos or 0)

    def here(self) -> Span:
        """The span of the failing token; behind the last one at the end of the file."""
        if self.token is None:
            end = (self.tokens[-1].end_pos or 0) if self.tokens else 0
            return Span(self.source.name, end, end + 1)
        return self.span(self.at)

    def begins_constraint(self) -> bool:
        """Whether a name, maybe with binders, and a colon stand from the failing token on."""
        k = self.at + 1
        if self.kind(0) != "NAME" or self.open_brackets():
            return False
        if self.kind(1) == "LSQB":
            while k < self.end and self.tokens[k].type != "RSQB":
                k += 1
            k += 1
        return k < len(self.tokens) and self.tokens[k].type == "COLON"

    def same_line(self) -> bool:
        """Whether the failing token stands on the line of the one before it."""
        before, token = self.previous, self.token
        return before is not None and token is not None and before.end_line == token.line

    def open_brackets(self) -> list[int]:
        """Indices of the brackets that are open at the failing token, outermost first."""
        stack: list[int] = []
        for k in range(self.start, self.at):
            if self.tokens[k].type in table.CLOSER:
                stack.append(k)
            elif self.tokens[k].type in table.OPENER and stack:
                stack.pop()
        return stack

    def in_subscript(self) -> bool:
        """Whether the innermost bracket is the only thing in one that follows a name."""
        stack = self.open_brackets()
        return (
            len(stack) > 1
            and stack[-1] == stack[-2] + 1
            and self.tokens[stack[-1]].type == "LPAR"
            and self.tokens[stack[-2]].type == "LSQB"
            and self.tokens[stack[-2] - 1].type == "NAME"
        )

    def still_open(self) -> int:
        """How many brackets the statement opens and does not close."""
        kinds = [self.tokens[k].type for k in range(self.start, self.end)]
        return sum((kind in table.CLOSER) - (kind in table.OPENER) for kind in kinds)

    def first(self) -> str:
        """The type of the first token of the statement."""
        return self.tokens[self.start].type if self.start < len(self.tokens) else ""


def describe(tokens: list[Token], k: int) -> str:
    """Token ``k`` in the words of a message."""
    if k >= len(tokens):
        return "the end of the file"
    text = str(tokens[k])
    if tokens[k].type == "STRING":
        return "a text"
    return f"`{' '.join(text.split())[:40]}`"


def kind_of(symbol: str, tokens: list[Token]) -> str:
    """What a statement is called in a message."""
    if symbol == "constraint":
        return "constraint"
    return KINDS.get(tokens[0].type, "declaration") if tokens else "declaration"
