"""The garbage collector, kept from looking through what is being built."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_WITHOUT = {"runs": 0, "wanted": 0}


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
