"""The garbage collector, kept from looking through what is being built."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two looks at the youngest, in processes that are the command line's own.
SELDOM = 20_000

_LOCK = threading.Lock()
_WITHOUT = {"runs": 0, "wanted": False, "waits": False}


@contextmanager
def undisturbed() -> Iterator[None]:
    """No collection inside: trees of a large model live on, and hold no cycles to be found, but
    every collection walks them again, which takes a third of the time to read it.
    """
    with _LOCK:
        if not _WITHOUT["runs"]:
            _WITHOUT["wanted"] = gc.isenabled()
            gc.disable()
        _WITHOUT["runs"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _WITHOUT["runs"] -= 1
            if not _WITHOUT["runs"] and _WITHOUT["wanted"]:
                gc.enable()


def wait_until_loaded() -> None:
    """In a process of the command line's own: no collection before :func:`imports_done`. While
    modules are imported, collections find nothing and take a third of a second.
    """
    gc.disable()
    _WITHOUT["waits"] = True


def imports_done() -> None:
    """What is there stays: from here on the collector of such a process looks at what is made
    later, and seldom.
    """
    if _WITHOUT["waits"]:
        _WITHOUT["waits"] = False
        gc.freeze()
        gc.set_threshold(SELDOM)
        gc.enable()
