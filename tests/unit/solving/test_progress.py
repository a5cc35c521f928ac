"""The progress line: rewritten on a terminal, rare plain lines elsewhere."""

from __future__ import annotations

import io
import math

from bilevelpy.result import Record
from bilevelpy.solving.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(k: int, norm: float) -> Record:
    return Record(k, 0.1 * k, 1.0 / (k + 1), 0.0, norm, 0.0, {})


def test_on_a_terminal_the_line_is_rewritten_and_taken_away() -> None:
    stream = Terminal()
    progress = Progress(1e-6, stream)
    progress(record(0, 1.0))
    progress.shown = -math.inf
    progress(record(1, 1e-3))
    text = stream.getvalue()
    assert text.count("\r\x1b[2K") == 2
    assert "[....................] iteration 0" in text
    assert "[##########..........] iteration 1" in text
    assert "\n" not in text
    progress.close()
    progress.close()
    assert stream.getvalue() == text + "\r\x1b[2K"


def test_elsewhere_plain_lines_at_intervals() -> None:
    stream = io.StringIO()
    progress = Progress(1e-6, stream)
    for k in range(100):
        progress(record(k, 10.0**-k))
    progress.close()
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_strange_norms_do_no_harm() -> None:
    stream = Terminal()
    progress = Progress(1e-6, stream)
    for norm in (math.nan, 0.0, math.inf, 1.0, 1e9, 1e-9):
        progress.shown = -math.inf
        progress(record(1, norm))
    assert progress.share == 1.0


def test_a_notebook_keeps_one_line() -> None:
    class Stream(io.StringIO):
        """Stands for the standard error of a kernel."""

    Stream.__module__ = "ipykernel.iostream"
    stream = Stream()
    line = Progress(1e-6, stream)
    for k, norm in enumerate((1.0, 0.1, 0.01)):
        line.shown = -float("inf")
        line(record(k, norm))
    line.close()
    written = stream.getvalue()
    assert "\n" not in written
    assert "\x1b" not in written
    assert "iteration 2" in written
    assert written.endswith(" \r")
