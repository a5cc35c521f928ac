"""An end for work on expressions: models that are written out entry by entry may take longer than
the time that a run has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_END: ContextVar[float] = ContextVar("end", default=math.inf)


class TooLong(Exception):
    """The time was up inside a reduction."""


@contextmanager
def until(end: float) -> Iterator[None]:
    """Reductions inside raise :class:`TooLong` after ``end`` (of ``time.perf_counter``)."""
    token = _END.set(min(end, _END.get()))
    try:
        yield
    finally:
        _END.reset(token)


def check() -> None:
    """Raise where the time is up."""
    end = _END.get()
    if end < math.inf and time.perf_counter() > end:
        raise TooLong
