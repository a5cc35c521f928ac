"""Signals inside of engines that call Python and forget what it raises."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unlost() -> Iterator[None]:
    """What signals raise inside is raised at the end. CasADi takes it for an evaluation that has
    failed, PySCIPOpt prints it: the run ends or goes on as if nothing had been.
    """
    raised: list[BaseException] = []

    def noting(handler: Callable[[int, Any], Any]) -> Callable[[int, Any], None]:
        def note(number: int, frame: Any) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                raised.append(error)
                raise

        return note

    handlers: dict[int, Callable[[int, Any], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = int(getattr(signal, name, signal.SIGINT))  # not everywhere are there three
            handler = signal.getsignal(number)
            if callable(handler) and number not in handlers:
                handlers[number] = handler
                signal.signal(number, noting(handler))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if raised:
            raise raised[0]
