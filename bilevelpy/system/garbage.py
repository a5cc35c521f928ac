"""The garbage collector, kept from looking through what is being built."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two looks at the youngest, in processes that are the command line's own. The
# default of 700 makes a look at all of torch's objects of what is imported, a quarter of a second.
SELDOM = 20_000

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


def seldom() -> None:
    """Collect garbage less often, for the rest of the process."""
    gc.set_threshold(SELDOM)
