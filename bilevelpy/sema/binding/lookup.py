"""From labels of the data to positions in an axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bilevelpy.ir.elements import first_number, label_at
from bilevelpy.ir.types import Axis, Label
from bilevelpy.sema.binding.state import State


class Lookup:
    """Positions of the elements of one axis; text and number of the same digits are the same."""

    def __init__(self, state: State, axis: Axis) -> None:
        self._table: dict[Any, int] | None = None
        self._first = 1
        self._size = state.sizes[axis]
        if axis in state.labels or axis in state.members:
            self._table = {}
            for position, label in enumerate(all_labels(state, axis)):
                self._table[label] = position
        else:
            self._first = first_number(axis, state.value)

    def find(self, label: Any) -> int | None:
        """The position of a label, or None."""
        for candidate in _spellings(label):
            if self._table is not None:
                if candidate in self._table:
                    return self._table[candidate]
            elif isinstance(candidate, int | float) and candidate == int(candidate):
                position = int(candidate) - self._first
                if 0 <= position < self._size:
                    return position
        return None


def all_labels(state: State, axis: Axis) -> list[Label]:
    """Every element of an axis, in order."""
    if axis in state.labels:
        return list(state.labels[axis])
    if axis in state.members:
        return [label_at(axis, k, state.data, state.value) for k in range(state.sizes[axis])]
    first = first_number(axis, state.value)
    return list(range(first, first + state.sizes[axis]))


def one_label(parts: tuple[Any, ...]) -> Any:
    """A flat key as a label."""
    return parts[0] if len(parts) == 1 else parts


def twice(labels: Iterable[Any]) -> list[Any]:
    """Labels that occur more than once."""
    seen: set[Any] = set()
    again: dict[Any, None] = {}
    for label in labels:
        if label in seen:
            again[label] = None
        seen.add(label)
    return list(again)


def _spellings(label: Any) -> list[Any]:
    if isinstance(label, tuple):
        other = tuple(_spellings(part)[-1] for part in label)
        return [label, other]
    if isinstance(label, str):
        try:
            number = float(label)
        except ValueError:
            return [label]
        return [label, number] if number == number and abs(number) != float("inf") else [label]
    return [label, str(label)]
