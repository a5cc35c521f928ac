"""A value for one name before it meets its axes: an array, with labels, or values by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelpy.ir.types import Label

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Grid:
    """An array (float64, or SciPy CSR) with the labels of its dimensions where there are some.

    ``loose`` labels come with every pandas object; along an axis that counts from 1 they only say
    which rows of two tables belong together (:mod:`~bilevelpy.sema.binding.counted`).
    ``rows`` are the lines of the source file, one per entry of dimension 0.
    """

    array: Any
    labels: tuple[tuple[Label, ...] | None, ...]
    loose: bool = False
    rows: Array | None = None


@dataclass(frozen=True, slots=True)
class Long:
    """Values by key: flat tuples of labels, one component per set of the param's axes."""

    keys: tuple[tuple[Any, ...], ...]
    values: Array
    rows: Array | None = None


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of a set, in order."""

    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it came from, in words."""

    value: Grid | Long
    origin: str

    def describe(self) -> str:
        """The value in words, with its shape and origin."""
        origin = the(self.origin)
        if isinstance(self.value, Long):
            return f"{len(self.value.keys)} labelled values from {origin}"
        shape = self.value.array.shape
        return f"an array {shape_text(shape)} from {origin}" if shape else f"a number from {origin}"


class NotNumbers(Exception):
    """A value cannot be read as numbers; the text says what was found."""


def shape_text(shape: Sequence[int]) -> str:
    """A shape as users write it: ``(3)``, ``(3, 2)``."""
    return "(" + ", ".join(str(k) for k in shape) + ")"


def the(origin: str) -> str:
    """An origin inside a sentence."""
    return {"argument": "the ", "default": "its "}.get(origin.split(" ")[0], "") + origin
