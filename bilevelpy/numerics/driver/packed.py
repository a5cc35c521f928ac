"""Carried data as few arrays and JSON: one array for every type of number, and large ones as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevelpy.numerics.driver.carried import KINDS, LARGEST, Carried

PREFIX = "carried_"
# Bytes from which on an array is not copied beside others.
LARGE = 1 << 20


def packed(known: Carried) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and the rest in JSON types: the tree, and type and shape of every array."""
    table, own, parts = [], dict[str, np.ndarray](), dict[str, list[np.ndarray]]()
    for k, array in enumerate(known.arrays):
        # LAPACK's factors lie column by column.
        columns = array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous
        kind, alone = array.dtype.name, array.nbytes >= LARGE
        table.append([kind, list(array.shape), columns, alone])
        if alone:
            own[f"{PREFIX}{k}"] = array
        else:
            parts.setdefault(kind, []).append((array.T if columns else array).reshape(-1))
    together = {f"{PREFIX}{kind}": np.concatenate(rows) for kind, rows in parts.items()}
    return together | own, {"tree": dict(known.tree), "arrays": table}


def unpacked(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Carried:
    """The inverse; a ValueError, TypeError or KeyError where the parts do not fit."""
    at = dict.fromkeys(KINDS, 0)
    found, used = [], set[str]()
    for k, (kind, shape, columns, alone) in enumerate(meta["arrays"]):
        if not all(type(n) is int and 0 <= n <= LARGEST for n in shape):
            raise ValueError(f"{shape} is no shape")
        name = f"{PREFIX}{k if alone else kind}"
        used.add(name)
        if alone:
            array = arrays[name]
        else:
            size = math.prod(shape)
            flat = arrays[name][at[kind] : at[kind] + size]
            at[kind] += size
            array = flat.reshape(shape[::-1]).T if columns else flat.reshape(shape)
        if kind not in KINDS or array.dtype.name != kind or list(array.shape) != shape:
            raise ValueError(f"array {k} is of another type or size")
        if kind == "float64" and np.isnan(array).any():
            raise ValueError("a vector has entries that are no numbers")
        found.append(array)
    if used != {name for name in arrays if name.startswith(PREFIX)} or any(
        at[kind] != arrays[f"{PREFIX}{kind}"].size for kind in KINDS if f"{PREFIX}{kind}" in used
    ):
        raise ValueError("there are more numbers than vectors")
    if not isinstance(meta["tree"], Mapping):
        raise TypeError("the state is no object")
    return Carried(meta["tree"], tuple(found))
