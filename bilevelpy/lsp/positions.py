"""Offsets of the compiler and positions of the protocol, which counts in units of an encoding."""

from __future__ import annotations

import bisect
import re

from lsprotocol import types

from bilevelpy.diagnostics import Span

_LINE_END = re.compile(r"\r\n|\n|\r")


class Positions:
    """The lines of one text. ``encoding`` is what client and server agreed on."""

    def __init__(self, text: str, encoding: str = "utf-16") -> None:
        self.text = text
        self.encoding = encoding
        self.starts = [0, *(m.end() for m in _LINE_END.finditer(text))]
        self.plain = text.isascii()

    def position(self, offset: int) -> types.Position:
        """The position of a character offset."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect.bisect_right(self.starts, offset) - 1
        start = self.starts[line]
        return types.Position(line, self.units(self.text[start:offset]))

    def offset(self, position: types.Position) -> int:
        """The character offset of a position; beyond a line or the text, its end."""
        if position.line >= len(self.starts):
            return len(self.text)
        start = self.starts[position.line]
        last = position.line + 1 == len(self.starts)
        end = len(self.text) if last else self.starts[position.line + 1]
        line = self.text[start:end].rstrip("\r\n")
        if self.plain:
            return start + min(position.character, len(line))
        units = 0
        for k, character in enumerate(line):
            if units >= position.character:
                return start + k
            units += self.units(character)
        return start + len(line)

    def range(self, span: Span) -> types.Range:
        """The range of a span of this text."""
        return types.Range(self.position(span.start), self.position(span.end))

    def units(self, text: str) -> int:
        """The length of ``text`` as the protocol counts it."""
        if self.plain or self.encoding == "utf-32":
            return len(text)
        if self.encoding == "utf-8":
            return len(text.encode("utf-8", "surrogatepass"))
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
