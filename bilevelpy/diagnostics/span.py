"""Where something stands in a source text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of character offsets ``[start, end)`` in the source called ``file``.

    ``file`` is the key of the :class:`~bilevelpy.diagnostics.source.Source` (its path as given, or
    ``"<text>"``), so that spans of included files show their own text.
    """

    file: str
    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of ``other`` (same file)."""
        return Span(self.file, self.start, max(self.end, other.end))
