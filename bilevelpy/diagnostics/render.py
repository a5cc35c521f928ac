"""Diagnostics as text for people, as lines for editors, as JSON, as GitHub annotations.

Everything is ASCII, and no more than `WIDTH` columns of a source line are shown, so that a file of
one enormous line, or of bytes that are no text, still gives a readable message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bilevelpy.diagnostics.diagnostic import Diagnostic, Label
from bilevelpy.diagnostics.source import Source
from bilevelpy.diagnostics.span import Span

WIDTH = 120
BEFORE = 50
MAX_TEXT = 2000

RESET, BOLD, BLUE = "\x1b[0m", "\x1b[1m", "\x1b[1;34m"
SEVERITY_COLOR = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m"}


@dataclass(frozen=True, slots=True)
class Mark:
    """An underlined part of one line: columns from 1, end excluded."""

    line: int
    start: int
    end: int
    text: str
    primary: bool


def render_full(diagnostic: Diagnostic, sources: Mapping[str, Source], color: bool = False) -> str:
    """The message with its source lines, underlines, notes, help and fix; no newline at the end."""
    paint = _painter(color)
    severity = str(diagnostic.severity)
    strong = SEVERITY_COLOR[severity]
    head = paint(f"{severity}[{diagnostic.code}]", strong) + paint(
        f": {_text(diagnostic.message)}", BOLD
    )
    lines = [head]
    blocks = _blocks(diagnostic, sources)
    numbers = [mark.line for _, marks in blocks for mark in marks]
    width = len(str(max(numbers, default=1)))
    bar = paint(" " * (width + 1) + "|", BLUE)
    for index, (label, marks) in enumerate(blocks):
        arrow = "-->" if index == 0 else ":::"
        place = _place(label.span, sources.get(label.span.file))
        lines.append(paint(" " * width + arrow, BLUE) + f" {place}")
        source = sources.get(label.span.file)
        if source is None or not marks:
            continue
        lines.append(bar)
        lines += _snippet(source, marks, width, bar, paint, strong)
    details = _details(diagnostic)
    if details and any(marks for _, marks in blocks):
        lines.append(bar)
    indent = " " * (width + 1)
    for kind, text in details:
        first, *rest = _text(text).split("\n")
        lines.append(indent + paint("=", BLUE) + f" {paint(kind, BOLD)}: {first}")
        # Continuation lines stand below the text of the first one.
        lines += [(indent + " " * (len(kind) + 4) + line).rstrip() for line in rest]
    return "\n".join(line.rstrip() for line in lines)


def render_concise(diagnostic: Diagnostic, sources: Mapping[str, Source]) -> str:
    """One line: `file:line:column: error[CODE]: message`."""
    text = f"{diagnostic.severity}[{diagnostic.code}]: {_one_line(diagnostic.message)}"
    if diagnostic.primary is None:
        return text
    span = diagnostic.primary.span
    return f"{_place(span, sources.get(span.file))}: {text}"


def to_json(diagnostic: Diagnostic, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Plain values; lines and columns count from 1, the end is excluded."""
    primary = diagnostic.primary
    fix = diagnostic.fix
    return {
        "code": diagnostic.code,
        "severity": str(diagnostic.severity),
        **_range(primary.span if primary else None, sources),
        "message": diagnostic.message,
        "label": primary.text if primary and primary.text else None,
        "hint": diagnostic.hint,
        "notes": list(diagnostic.notes),
        "secondary": [
            {**_range(label.span, sources), "label": label.text} for label in diagnostic.secondary
        ],
        "fix": None
        if fix is None
        else {"title": fix.title, **_range(fix.span, sources), "replacement": fix.replacement},
    }


def render_github(diagnostic: Diagnostic, sources: Mapping[str, Source]) -> str:
    """A workflow command that GitHub shows as an annotation of the line."""
    primary = diagnostic.primary
    place = _range(primary.span if primary else None, sources)
    keys = (
        ("file", "file"),
        ("line", "line"),
        ("endLine", "end_line"),
        ("col", "column"),
        ("endColumn", "end_column"),
    )
    properties = [
        f"{name}={_escaped(place[key], True)}" for name, key in keys if place[key] is not None
    ]
    properties.append(f"title={diagnostic.code}")
    body = [diagnostic.message, *diagnostic.notes]
    body += [f"help: {diagnostic.hint}"] if diagnostic.hint else []
    text = _escaped("\n".join(body), False)
    return f"::{diagnostic.severity} {','.join(properties)}::{text}"


# --- pieces


def _painter(color: bool) -> Any:
    def paint(text: str, code: str) -> str:
        return f"{code}{text}{RESET}" if color and text else text

    return paint


def _details(diagnostic: Diagnostic) -> list[tuple[str, str]]:
    details = [("note", note) for note in diagnostic.notes]
    if diagnostic.hint:
        details.append(("help", diagnostic.hint))
    if diagnostic.fix:
        inserts = diagnostic.fix.span.start == diagnostic.fix.span.end
        details.append(
            ("fix", diagnostic.fix.title + ("   (bilevelpy check --fix)" if inserts else ""))
        )
    return details


def _blocks(
    diagnostic: Diagnostic, sources: Mapping[str, Source]
) -> list[tuple[Label, list[Mark]]]:
    """One block for each file, with the label that names its place; the primary file first."""
    if diagnostic.primary is None:
        labels = [(label, False) for label in diagnostic.secondary]
    else:
        labels = [(diagnostic.primary, True), *((label, False) for label in diagnostic.secondary)]
    blocks: dict[str, tuple[Label, list[Mark]]] = {}
    for label, primary in labels:
        block = blocks.setdefault(label.span.file, (label, []))
        source = sources.get(label.span.file)
        if source is not None:
            block[1].append(_mark(source, label, primary))
    return list(blocks.values())


def _mark(source: Source, label: Label, primary: bool) -> Mark:
    line, column = source.position(label.span.start)
    end_line, end = source.position(label.span.end)
    if end_line > line:
        # A place over several lines is underlined on its first line.
        end = max(len(source.line(line)), column) + 1
    return Mark(line, column, max(end, column + 1), label.text, primary)


def _snippet(
    source: Source, marks: list[Mark], width: int, bar: str, paint: Any, strong: str
) -> list[str]:
    rows: list[str] = []
    previous: int | None = None
    for number in sorted({mark.line for mark in marks}):
        if previous is not None and number == previous + 2:
            shown, _ = _clip(source.line(number - 1), None)
            rows.append(paint(f"{number - 1:>{width}} |", BLUE) + f" {shown}")
        elif previous is not None and number > previous + 2:
            rows.append(paint(" " * (width + 1) + ":", BLUE))
        here = [mark for mark in marks if mark.line == number]
        main = next((mark for mark in here if mark.primary), here[0])
        shown, offset = _clip(source.line(number), main)
        rows.append(paint(f"{number:>{width}} |", BLUE) + f" {shown}")
        for mark in sorted(here, key=lambda mark: (-mark.start, not mark.primary)):
            start = mark.start - offset
            if not 1 <= start <= WIDTH + 1:
                continue
            length = min(mark.end - mark.start, WIDTH + 2 - start)
            under = ("^" if mark.primary else "-") * max(length, 1)
            text = f" {_one_line(mark.text)}" if mark.text else ""
            rows.append(
                f"{bar} {' ' * (start - 1)}{paint(under + text, strong if mark.primary else BLUE)}"
            )
        previous = number
    return rows


def _clip(line: str, mark: Mark | None) -> tuple[str, int]:
    """At most `WIDTH` columns of a line, around the mark, and how many were cut on the left."""
    if len(line) <= WIDTH:
        return _plain(line), 0
    start = 0 if mark is None or mark.start <= WIDTH - 20 else mark.start - BEFORE
    piece = _plain(line[start : start + WIDTH])
    if start > 0:
        piece = "..." + piece[3:]
    if start + WIDTH < len(line):
        piece = piece[:-3] + "..."
    return piece, start


def _plain(line: str) -> str:
    """One ASCII column for each character, so that underlines stay in place."""
    return "".join(c if " " <= c <= "~" else " " if c in "\t\ufeff" else "?" for c in line)


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + " ..."
    clean = "".join(c if c == "\n" or (c >= " " and c != "\x7f") else "?" for c in text)
    return clean.encode("ascii", "backslashreplace").decode("ascii")


def _one_line(text: str) -> str:
    return " ".join(_text(text).split("\n"))


def _place(span: Span, source: Source | None) -> str:
    name = _one_line(span.file)
    if source is None:
        return name
    line, column = source.position(span.start)
    return f"{name}:{line}:{column}"


def _range(span: Span | None, sources: Mapping[str, Source]) -> dict[str, Any]:
    keys = ("line", "column", "end_line", "end_column")
    source = sources.get(span.file) if span else None
    if span is None or source is None:
        return {"file": span.file if span else None, **dict.fromkeys(keys)}
    line, column = source.position(span.start)
    end_line, end_column = source.position(span.end)
    return {
        "file": span.file,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    }


def _escaped(value: object, is_property: bool) -> str:
    text = str(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if is_property else text
