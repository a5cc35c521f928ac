"""An end for work on expressions: to read a large model, to compile it, to judge it or to write it
out may take longer than the time that a run has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bilevelpy.errors import BackendError

# Seconds that reading, compiling and judging get however late it is: a limit that is spent already
# ends the run of a small model, not what is known of it.
LEAST = 1.0
_END: ContextVar[float] = ContextVar("end", default=math.inf)


class TooLong(Exception):
    """The time was up inside such work."""


@contextmanager
def until(end: float) -> Iterator[None]:
    """Work inside raises :class:`TooLong` after ``end`` (of ``time.perf_counter``)."""
    token = _END.set(min(end, _END.get()))
    try:
        yield
    finally:
        _END.reset(token)


@contextmanager
def reading(began: float, seconds: float) -> Iterator[None]:
    """A model is read, which may take longer than a run of so many seconds since ``began`` has.

    Raises
    ------
    BackendError
        Where it does.
    """
    try:
        with until(max(began + seconds, time.perf_counter() + LEAST)):
            yield
    except TooLong as error:
        raise BackendError(
            f"the time limit of {seconds:g} s was over before the model was read"
        ) from error


def time_left() -> float:
    """Seconds until then."""
    return _END.get() - time.perf_counter()


def check() -> None:
    """Raise where the time is up."""
    end = _END.get()
    if end < math.inf and time.perf_counter() > end:
        raise TooLong
