"""Elements of axes at bound data: as numbers, as labels, and their positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir.types import Axis, AxisKind, Label

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import Data

Array = np.ndarray[Any, np.dtype[Any]]
Value = Callable[["Expr"], Array]


def first_number(axis: Axis, value: Value) -> int:
    """The first element of a DIM, SIZE or RANGE axis."""
    return int(value(axis.low)) if axis.kind is AxisKind.RANGE and axis.low is not None else 1


def coordinates(axis: Axis, data: Data, value: Value) -> Array:
    """Every element of a numeric axis as a number."""
    through: list[Array] = []
    while axis.kind is AxisKind.SUBSET and len(axis.parents) == 1:
        through.append(data.members[axis][:, 0])
        axis = axis.parents[0]
    if axis in data.labels:
        numbers = np.array(data.labels[axis])
    else:
        start = first_number(axis, value)
        numbers = np.arange(start, start + data.sizes[axis])
    for members in reversed(through):
        numbers = numbers[members]
    return numbers


def label_at(axis: Axis, position: int, data: Data, value: Value) -> Label:
    """The element at a position, as it is written in a model."""
    if axis in data.labels:
        return data.labels[axis][position]
    if axis in data.members:
        parts: list[Any] = []
        for parent, k in zip(axis.parents, data.members[axis][position], strict=True):
            part = label_at(parent, int(k), data, value)
            parts.extend(part if isinstance(part, tuple) else (part,))
        return parts[0] if len(parts) == 1 else tuple(parts)
    if axis.kind is AxisKind.CONCAT:
        return position + 1
    return first_number(axis, value) + position


def find_label(axis: Axis, label: Label, data: Data, value: Value) -> int | None:
    """The position of an element given as it is written in a model, or None."""
    if axis in data.labels:
        labels = data.labels[axis]
        return labels.index(label) if label in labels else None
    if axis in data.members:
        parts = label if isinstance(label, tuple) else (label,)
        if len(parts) != len(axis.parents):
            return None
        places = [
            find_label(p, part, data, value) for p, part in zip(axis.parents, parts, strict=True)
        ]
        if any(p is None for p in places):
            return None
        found = locate(axis, [np.array(p) for p in places], False, data, value)
        return int(found) if found >= 0 else None
    if isinstance(label, str | tuple) or int(label) != label:
        return None
    position = int(label) - first_number(axis, value)
    return position if 0 <= position < data.sizes[axis] else None


def locate(axis: Axis, values: Sequence[Array], by_number: bool, data: Data, value: Value) -> Array:
    """Positions in ``axis`` of what ``values`` name (see ``ir.Locate``); -1 where there is none."""
    if by_number:
        return _locate_number(axis, values[0], data, value)
    sizes = [data.sizes[p] for p in axis.parents]
    inside = np.ones(np.shape(values[0]), dtype=bool)
    for v, size in zip(values, sizes, strict=True):
        inside &= (v >= 0) & (v < size)
    code = np.zeros(np.shape(values[0]), dtype=np.int64)
    table = np.zeros(data.sizes[axis], dtype=np.int64)
    for part, (v, size) in enumerate(zip(values, sizes, strict=True)):
        code = code * size + np.where(inside, v, 0).astype(np.int64)
        table = table * size + data.members[axis][:, part]
    return np.where(inside, _search(table, code), -1)


def _locate_number(axis: Axis, number: Array, data: Data, value: Value) -> Array:
    if axis in data.labels or axis in data.members:
        return _search(coordinates(axis, data, value), number)
    position = number - first_number(axis, value)
    whole = position.astype(np.int64)
    inside = (whole == position) & (whole >= 0) & (whole < data.sizes[axis])
    return np.where(inside, whole, -1)


def _search(table: Array, wanted: Array) -> Array:
    """Position of each wanted value in ``table``, -1 where it is missing."""
    if not len(table):
        return np.full(np.shape(wanted), -1)
    order = np.argsort(table, kind="stable")
    place = np.minimum(np.searchsorted(table[order], wanted), len(table) - 1)
    found = order[place]
    return np.where(table[found] == wanted, found, -1)
