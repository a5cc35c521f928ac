"""A table of runs as text that fits a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Columns of a terminal, and of one cell.
WIDTH, CELL = 80, 16


def table(
    rows: Sequence[Mapping[str, Any]], optional: Collection[str], notes: Sequence[str] = ()
) -> str:
    """Rows by the names of columns, right-aligned under their names, and ``notes`` below.

    Where a line would be longer than a terminal's, the last ones of the ``optional`` columns are
    left out, and named.
    """
    names = list(dict.fromkeys(n for row in rows for n in row))
    cells = {n: [n, *(_cell(row.get(n)) for row in rows)] for n in names}
    widths = {n: max(map(len, column)) for n, column in cells.items()}
    room = WIDTH + 2 - sum(widths[n] + 2 for n in names if n not in optional)
    hidden = []
    for name in names:
        if name in optional:
            room -= widths[name] + 2
            if room < 0:
                hidden.append(name)
    shown = [n for n in names if n not in hidden]
    lines = [
        "  ".join(cells[n][k].rjust(widths[n]) for n in shown).rstrip()
        for k in range(len(rows) + 1)
    ]
    if hidden:
        notes = [*notes, f"not shown, but in `rows()` and in files: {', '.join(hidden)}"]
    wrapped = [
        line
        for note in notes
        for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ", break_long_words=False)
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *wrapped])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= CELL else f"{text[: CELL - 4]} ..."
