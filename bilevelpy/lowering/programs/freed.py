"""Memory of arrays that are let go stays with the process, for the next ones.

An array of more than 128 kB is given back to the system at once by the C library, and the next one
costs a fault for each of its pages: programs on arrays of some 400 kB take five times as long in
the kernel as they compute. The C library learns to keep what was freed, but only up to twice the
largest array that it has seen, which all the temporary arrays of a program together exceed.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

# Numbers of glibc's malloc.h, and the largest array that its heap may hold.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 32 << 20
# So much free memory at the end of the heap stays; more goes back to the system.
KEPT = 256 << 20
# Who sets these has chosen.
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed() -> bool:
    """Keep up to 256 MB of freed arrays, for the rest of the process; whether that was done (by
    glibc, unless its environment variables say otherwise).
    """
    if any(name in os.environ for name in CHOSEN):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (other libraries have a mallopt of their own)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # Alone, the first would end the library's own learning, and all memory would go back at once.
    return bool(mallopt(TRIM_THRESHOLD, KEPT)) and bool(mallopt(MMAP_THRESHOLD, LARGEST))
