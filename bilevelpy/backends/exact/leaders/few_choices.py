"""The choices of a leader who decides whole numbers in finite ranges, where they are few."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# Choices of the leader that are tried one by one at most.
MOST = 5000
# Parts of choices that are looked at on the way to them, and rounding of rows.
STEPS, ROOM = 100_000, 1e-9


def few_choices(system: System, *, coupled: bool = False) -> Array | None:
    """The points x that satisfy the leader's rows, one a row (over ``upper_columns``); None where
    they are not finitely many, too many, or a row of the leader reads responses (unless these are
    left to the caller, ``coupled``).
    """
    columns, own = system.columns, system.upper_columns
    low, high = columns.lower[own], columns.upper[own]
    whole = columns.integer[own] | (low == high)
    if not whole.all() or not np.isfinite(low).all() or not np.isfinite(high).all():
        return None
    rows, mine = system.upper_rows, set(own.tolist())
    alone = [r for r in range(rows.count) if rows.functions.reads(r) <= mine]
    if len(alone) < rows.count and not coupled:
        return None
    rows = rows.take(alone)
    ranges = [
        [float(a)] if a == b else np.arange(math.ceil(a), math.floor(b) + 1).tolist()
        for a, b in zip(low, high, strict=True)
        if b - a <= MOST
    ]
    if len(ranges) < own.size:
        return None
    found = _points(ranges, rows, own)
    if found is None:
        return None
    points = np.array(found, dtype=float).reshape(-1, own.size)
    at = columns.start.copy()

    def allowed(x: Array) -> bool:
        at[own] = x
        return float(rows.violation(at).max(initial=0.0)) <= 1e-9

    return points[[allowed(x) for x in points]]


def _points(ranges: list[list[float]], rows: Rows, own: Array) -> list[tuple[float, ...]] | None:
    """All points within the ranges that the linear rows allow; None where they are too many. Values
    are chosen one after the other, and given up where a row has no more room.
    """
    f = rows.functions
    linear = [r for r in range(rows.count) if r not in f.quadratic and r not in f.trees]
    A = sp.csr_array(f.linear[linear])[:, own].toarray()
    ends = np.array([[values[0], values[-1]] if values else [0.0, 0.0] for values in ranges])
    least = np.minimum(A * ends[:, 0], A * ends[:, 1])
    most = np.maximum(A * ends[:, 0], A * ends[:, 1])
    # What the columns from j on add to a row.
    rest = [np.cumsum(part[:, ::-1], axis=1)[:, ::-1] for part in (least, most)]
    rest = [np.hstack([part, np.zeros((len(linear), 1))]) for part in rest]
    room = ROOM * np.maximum(1.0, np.abs(A).sum(axis=1))
    low = rows.lower[linear] - f.constant[linear] - room
    high = rows.upper[linear] - f.constant[linear] + room
    found: list[tuple[float, ...]] = []
    stack: list[tuple[tuple[float, ...], Array]] = [((), np.zeros(len(linear)))]
    steps = 0
    while stack:
        chosen, sums = stack.pop()
        j = len(chosen)
        steps += 1
        if bool((sums + rest[0][:, j] > high).any() or (sums + rest[1][:, j] < low).any()):
            continue
        if j == len(ranges):
            found.append(chosen)
            if len(found) > MOST:
                return None
            continue
        if steps > STEPS:
            return None
        stack += [((*chosen, v), sums + A[:, j] * v) for v in reversed(ranges[j])]
    return found
