"""How much memory this machine has, and sizes in words."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """Bytes that this process may have: of the machine, or of its container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(_LIMIT.read_text("ascii")))
    except (OSError, ValueError):
        return total


def in_words(count: float) -> str:
    """Bytes with a unit that suits them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit in ("B", "kB", "MB") else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
