"""What cannot be read or taken over, with its file and line."""

from __future__ import annotations

from pathlib import Path

from bilevelpy.diagnostics import Source, Span
from bilevelpy.diagnostics.diagnostic import diagnostic
from bilevelpy.errors import ModelError, UsageError
from bilevelpy.system.storage import open_text


class Text:
    """A file to import, as lines with their places; ``marked`` where a byte order mark began it."""

    def __init__(self, path: str | Path, text: str | None = None) -> None:
        content = open_text(path, "file") if text is None else text
        self.marked = content.startswith("\ufeff")
        self.source = Source(str(path), content.removeprefix("\ufeff"))
        self.lines = self.source.text.splitlines()

    def span(self, line: int) -> Span:
        """A line (from 1) without the blanks around it."""
        text = self.source.line(line)
        start = self.source.offset(line, 1) + len(text) - len(text.lstrip())
        return Span(self.source.name, start, start + len(text.strip()))

    @property
    def last(self) -> int:
        """The last line that holds something."""
        last = max(1, len(self.lines))
        while last > 1 and not self.lines[last - 1].strip():
            last -= 1
        return last

    def bad(self, line: int, reason: str, hint: str | None = None) -> ModelError:
        """The error of a malformed line."""
        found = diagnostic("BLV0720", self.span(line), hint=hint, reason=reason)
        return ModelError([found], {self.source.name: self.source})

    def foreign(self, line: int, what: str, reason: str) -> ModelError:
        """The error of a line that means something which this language does not have."""
        found = diagnostic("BLV0721", self.span(line), reason, what=what)
        return ModelError([found], {self.source.name: self.source})


# Characters of a word that a message quotes.
_QUOTED = 40


def quoted(word: str) -> str:
    """A word as messages show it."""
    return f"`{word}`" if len(word) <= _QUOTED else f"`{word[: _QUOTED - 3]}...`"


def missing_package(name: str, what: str) -> UsageError:
    """An optional package that is not there."""
    return UsageError(f"{what} needs the package `{name}`: pip install {name}")
