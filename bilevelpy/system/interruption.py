"""Signals inside of engines that call Python and forget what it raises."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# What ends the thread of `as_interrupt`: no number of a signal.
DONE = 0


def has_handler() -> bool:
    """Whether the signal TERM is handled by Python, here: in the main thread, and when the engine
    comes back to it.
    """
    main = threading.current_thread() is threading.main_thread()
    return main and callable(signal.getsignal(signal.SIGTERM))


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


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Signals as INT too, which engines heed by handlers of their own in C, where Python's have no
    turn. A thread sends it: inside, the engine has to run without the interpreter's lock.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def forward() -> None:
        while (number := os.read(read, 1)[0]) != DONE:
            if number != signal.SIGINT:
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(write, bytes([DONE]))
        thread.join()
        os.close(read)
        os.close(write)
