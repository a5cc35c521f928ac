"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Diagnostic, Source


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


def complain(text: str) -> None:
    """An error that has no place in a model, in the style of the diagnostics."""
    head = "\x1b[1;31merror\x1b[0m" if wants_color(sys.stderr) else "error"
    say(f"{head}: {text}")


def print_json(value: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    print(storage.dumps(value))


def print_entry(name: str, width: int, text: str) -> None:
    """A line of a list, its further lines below the first word of the text."""
    first, rest = f"{name:<{width}}  ", " " * (width + 2)
    wrapped = textwrap.fill(
        text, 80, initial_indent=first, subsequent_indent=rest, break_long_words=False
    )
    print(wrapped)


def wants_color(stream: TextIO) -> bool:
    """Colour goes to terminals only, and to none where ``NO_COLOR`` is set."""
    dumb = os.environ.get("TERM") == "dumb"
    return stream.isatty() and not os.environ.get("NO_COLOR") and not dumb


def print_diagnostics(
    diagnostics: Sequence[Diagnostic], sources: Mapping[str, Source], stream: TextIO
) -> None:
    """Diagnostics in full form with a blank line between them, and how many there are."""
    from bilevelpy.diagnostics.render import render_full

    color = wants_color(stream)
    for found in diagnostics:
        print(render_full(found, sources, color), file=stream, end="\n\n")
    if diagnostics:
        print(tally(diagnostics), file=stream)


def tally(diagnostics: Sequence[Diagnostic]) -> str:
    """``2 errors, 1 warning``."""
    parts = []
    for severity in ("error", "warning"):
        count = sum(d.severity == severity for d in diagnostics)
        if count:
            parts.append(f"{count} {severity}{'s' if count > 1 else ''}")
    return ", ".join(parts) or "no problems"
