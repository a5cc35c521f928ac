"""The line that a terminal shows during a solve."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import TextIO

from bilevelpy.result import Record

_WIDTH = 20
# Columns that a line in a notebook is erased over.
_NOTEBOOK = 79
# Seconds between two refreshes of the line, and between two lines where there is no terminal.
_REFRESH, _LINES = 0.1, 5.0


class Progress:
    """One line on standard error, rewritten in place; its bar shows how far the hypergradient has
    fallen.

    The bar is full where the norm has come down by the factor ``tol``. Where standard error is no
    terminal and progress was asked for all the same, a plain line appears every few seconds; in a
    notebook one line is kept up to date, as on a terminal.
    """

    def __init__(self, tol: float, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.tol = tol
        terminal = self.stream.isatty()
        self.live = terminal or is_notebook(self.stream)
        # Notebooks understand a return to the start of the line, but no escape sequences.
        self.erase = "\r\x1b[2K" if terminal else "\r" + " " * _NOTEBOOK + "\r"
        self.first = math.nan
        self.share = 0.0
        self.shown = -math.inf
        self.open = False

    def __call__(self, record: Record) -> None:
        """Show ``record``, if it is time to."""
        norm = record.hypergradient_norm
        if not self.first > 0:
            self.first = norm
        if norm > 0 and self.first > 0 and math.isfinite(norm):
            self.share = max(
                self.share, min(1.0, math.log(self.first / norm) / math.log(1 / self.tol))
            )
        now = time.perf_counter()
        if now - self.shown < (_REFRESH if self.live else _LINES):
            return
        self.shown = now
        if self.live:
            room = shutil.get_terminal_size().columns - 1
            self.stream.write(self.erase + self._line(record)[:room])
            self.open = True
        else:
            self.stream.write(self._line(record) + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Take the line away: the result follows."""
        if self.open:
            self.stream.write(self.erase)
            self.stream.flush()
            self.open = False

    def _line(self, record: Record) -> str:
        filled = round(self.share * _WIDTH)
        bar = "#" * filled + "." * (_WIDTH - filled)
        norm = record.hypergradient_norm
        shown = "" if math.isnan(norm) else f"hypergradient {norm:.1e}  "
        return f"[{bar}] iteration {record.iteration}  F {record.F:.6g}  {shown}{record.time:.1f} s"


def is_notebook(stream: TextIO) -> bool:
    """Whether ``stream`` is that of a notebook's kernel."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def wanted(progress: bool | None) -> bool:
    """Whether to show a line: as asked, and on a terminal where nothing was asked."""
    return sys.stderr.isatty() if progress is None else progress
