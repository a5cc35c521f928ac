"""Numbers that tell a changed array from what it was, in the time of two passes over its memory.

With the words of a long array in rows of 4,096, and odd random weights, the number is the weighted
sum of the sums of its rows and columns, in whole numbers modulo 2^64: the same in every order of
addition, so with any number of threads. It is no hash; whoever looks for it finds another array
of the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from bilevelpy.ir.mapped import is_mapped

Array = np.ndarray[Any, np.dtype[Any]]

WIDTH = 4096
# Arrays up to so many words are weighted word by word, in fewer calls.
SHORT = 4 * WIDTH


def fingerprints(arrays: Mapping[str, Any]) -> dict[str, tuple[bytes, ...]]:
    """Name -> type, shape and numbers of an array, or of the parts of a sparse one; of arrays in
    files type and shape alone.
    """
    found = {}
    for name, value in arrays.items():
        parts = (
            (value.indptr, value.indices, value.data)
            if hasattr(value, "indptr")
            else (np.asarray(value),)
        )
        shape = repr((value.dtype.str, value.shape)).encode()
        found[name] = (shape, *(b"" if is_mapped(p) else _number(p) for p in parts))
    return found


def _number(array: Array) -> bytes:
    flat = np.ascontiguousarray(array if array.flags.c_contiguous else array.T).reshape(-1)
    words = flat.view(np.dtype(f"u{flat.itemsize}"))
    if words.size <= SHORT:
        return np.uint64(np.add.reduce(words * _weights(0, words.size), dtype=np.uint64)).tobytes()
    rows = words.size // WIDTH
    end = rows * WIDTH
    across, rest = _weights(0, WIDTH), words[end:]
    total = np.add.reduce(rest * across[: rest.size], dtype=np.uint64)
    if rows:
        table = words[:end].reshape(rows, WIDTH)
        down = np.add.reduce(table, axis=0, dtype=np.uint64) * across
        beside = np.add.reduce(table, axis=1, dtype=np.uint64) * _weights(1, rows)
        total = np.add.reduce(np.concatenate([[total], down, beside]))
    return np.uint64(total).tobytes()


@cache
def _weights(seed: int, count: int) -> Array:
    drawn = np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)
    return 2 * drawn + 1
