"""Arrays that lie in files: recognised, read in blocks, and given back to the system."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.errors import UsageError

# Gigabytes that data may take in memory; a quarter of the machine's where it is not set.
VARIABLE = "BILEVELPY_MEMORY"
# Bytes of a block: long enough to read at the speed of the disk, small beside any memory.
BLOCK = 1 << 25


def mapping(array: Any) -> mmap.mmap | None:
    """The memory map that an array looks into, or None where it lies in memory."""
    base = array if isinstance(array, np.ndarray) else None
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def is_mapped(array: Any) -> bool:
    """Whether an array lies in a file that is read where it is looked at."""
    return mapping(array) is not None


def release(array: Any) -> None:
    """Let go of the pages that were read; the next look reads them again."""
    found = mapping(array)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Rows of an array, a block at a time; pages of a mapped one are let go after each."""
    held = is_mapped(array)
    size = array.shape[0] if array.ndim else 0
    step = max(1, BLOCK // max(1, array.nbytes // max(1, size)))
    for low in range(0, size, step):
        yield array[low : low + step]
        if held:
            release(array)


def rows_of(array: np.ndarray[Any, Any], rows: Any) -> np.ndarray[Any, Any]:
    """A copy of the rows of a mapped array at a slice or at sorted positions.

    Stretches of rows are read from the file instead of looked at through the map: the system maps
    far more around each place than is asked for.
    """
    file = _file(array)
    if file is None:
        return np.array(array[rows])
    path, start = file
    index = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else np.asarray(rows)
    out = np.empty((len(index), *array.shape[1:]), dtype=array.dtype)
    if not out.size:
        return out
    width = out.nbytes // len(index)
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    into = out.reshape(-1).view(np.uint8).data
    with path.open("rb", buffering=0) as stream:
        for first, last in zip([0, *cuts], [*cuts, len(index)], strict=True):
            stream.seek(start + int(index[first]) * width)
            part = into[first * width : last * width]
            while part:
                done = stream.readinto(part)
                if not done:
                    raise OSError(f"{path} has become shorter")
                part = part[done:]
    return out


def _file(array: np.ndarray[Any, Any]) -> tuple[Path, int] | None:
    """The file of a mapped array and the place of its first entry, if its rows lie in order."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return None
    shift = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return Path(base.filename), int(base.offset) + int(shift)


def extent(array: Any) -> tuple[float, float]:
    """The smallest and the largest entry, in one pass."""
    if not is_mapped(array):
        return float(array.min()), float(array.max())
    ends = [(float(b.min()), float(b.max())) for b in blocks(array)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def budget() -> int:
    """Bytes that data may take in memory.

    Raises
    ------
    UsageError
        Where the variable BILEVELPY_MEMORY is no positive number of gigabytes.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0.0 < size < float("inf"):
        raise UsageError(f"{VARIABLE} is a number of gigabytes, found {text!r}")
    return int(size * 1e9)


def streamed_bytes(arrays: Iterable[Any]) -> int:
    """Bytes of the mapped arrays, in float64, where they are more than memory may take; else 0."""
    size = sum(8 * a.size for a in arrays if is_mapped(a))
    return size if size > budget() else 0
