"""Signals that engines have to hear of."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bilevelpy.system.interruption import as_interrupt, has_handler


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that have been handled."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are handled in the main thread")
    found: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: found.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def test_other_signals_come_as_an_interruption_too(handled: list[int]) -> None:
    threads = threading.active_count()
    with as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 5.0
        while len(handled) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert sorted(handled) == sorted([signal.SIGINT, signal.SIGTERM])
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_an_interruption_comes_once(handled: list[int]) -> None:
    with as_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    assert handled == [signal.SIGINT]


def test_python_waits_for_signals_that_it_handles(handled: list[int]) -> None:
    assert has_handler()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert not has_handler()
