"""Numbers that tell a changed array from what it was, in the time of one pass over its memory.

They are no hashes: changes in the last digits of sums over all entries pass. With fixed random
weights r and w, and the entries in rows of 4,096, the number is ``r' A w``, by BLAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from bilevelpy.ir.mapped import is_mapped

Array = np.ndarray[Any, np.dtype[Any]]

WIDTH = 4096


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
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    flat = flat.astype(np.float64, copy=False)
    rows = flat.size // WIDTH
    end = rows * WIDTH
    across = _weights(0, WIDTH)
    with np.errstate(all="ignore"):
        total = flat[end:] @ across[: flat.size - end]
        if rows:
            total += (_weights(1, rows) @ flat[:end].reshape(rows, WIDTH)) @ across
    return np.float64(total).tobytes()


@cache
def _weights(seed: int, count: int) -> Array:
    return np.random.default_rng(seed).random(count)
