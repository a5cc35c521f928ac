"""Products with a whole number in them, as linear rows.

A product of a whole number with a bounded column becomes linear: ``x = lo + sum 2^k b_k`` with
binaries, and ``w = b v`` by McCormick's four rows, which are exact for a binary ``b``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.monomials import Terms, terms_rows

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Rows

Array = np.ndarray[Any, np.dtype[Any]]
MOST_BITS = 30
"""Binaries of one whole number at most: more is no description of a number any more."""


class Products:
    """Makes products with whole numbers linear; keeps the columns and rows that it adds.

    Parameters
    ----------
    columns
        What the products are about; new columns are numbered from their count on.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.first = columns.count
        self.width = columns.upper - columns.lower
        self.names: list[str] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[tuple[str, Terms, float, float]] = []
        # What every added column is at a point: a bit of a whole number, or a product.
        self.bits: dict[int, tuple[int, int]] = {}
        self.factors: dict[int, tuple[int, int]] = {}
        self._binary: dict[int, list[tuple[float, int]]] = {}
        self._known: dict[tuple[int, int], int] = {}

    def linear(self, terms: Terms) -> Terms:
        """Terms without products that have a whole number and a bounded column in them."""
        found: Terms = {}

        def add(key: tuple[int, ...], c: float) -> None:
            found[key] = found.get(key, 0.0) + c

        for key, c in terms.items():
            chosen = self.chosen(key)
            if chosen is None:
                add(key, c)
                continue
            integer, other = chosen
            low = float(self.columns.lower[integer])
            if low:
                add((other,), c * low)
            for weight, bit in self._binaries(integer):
                add((self._product(bit, other),), c * weight)
        return found

    def extended(self) -> Columns:
        """The columns with those that were added."""
        return self.columns.extended(
            self.names, np.array(self.low), np.array(self.high), np.array(self.whole, bool)
        )

    def made_rows(self, width: int) -> Rows:
        """The rows that were added."""
        if not self.rows:
            return terms_rows((), (), (), (), width)
        names, terms, low, high = zip(*self.rows, strict=True)
        return terms_rows(names, terms, low, high, width)

    def complete(self, v: Array) -> Array:
        """Values of all columns at values of the given ones."""
        full = np.concatenate([v, np.zeros(len(self.names))])
        for place, (integer, bit) in self.bits.items():
            level = round(float(full[integer] - self.columns.lower[integer]))
            full[place] = float(level >> bit & 1)
        for place, (binary, other) in self.factors.items():
            full[place] = full[binary] * full[other]
        return full

    def chosen(self, key: tuple[int, ...]) -> tuple[int, int] | None:
        """The whole number of a product, the narrower one of two, and the other factor."""
        if len(key) != 2 or key[0] == key[1]:
            return None
        width = self.width
        if not (np.isfinite(width[key[0]]) and np.isfinite(width[key[1]])):
            return None
        narrow = [j for j in key if self.columns.integer[j] and width[j] < 2.0**MOST_BITS]
        if not narrow:
            return None
        integer = min(narrow, key=lambda j: float(width[j]))
        return integer, key[1] if integer == key[0] else key[0]

    def _column(self, name: str, low: float, high: float, whole: bool) -> int:
        self.names.append(name)
        self.low.append(low)
        self.high.append(high)
        self.whole.append(whole)
        return self.first + len(self.names) - 1

    def _binaries(self, integer: int) -> list[tuple[float, int]]:
        """(weight, binary) whose sum is the column minus its lower bound."""
        if integer not in self._binary:
            columns = self.columns
            low, high = float(columns.lower[integer]), float(columns.upper[integer])
            if (low, high) == (0.0, 1.0):
                self._binary[integer] = [(1.0, integer)]
                return self._binary[integer]
            count = int(high - low).bit_length()
            name = columns.names[integer]
            made = [(2.0**k, self._column(f"bit.{name}.{k}", 0.0, 1.0, True)) for k in range(count)]
            for k, (_, bit) in enumerate(made):
                self.bits[bit] = (integer, k)
            terms: Terms = {(integer,): 1.0}
            terms.update({(b,): -w for w, b in made})
            self.rows.append((f"bits.{name}", terms, low, low))
            self._binary[integer] = made
        return self._binary[integer]

    def _product(self, binary: int, other: int) -> int:
        """A column that equals ``binary * other``."""
        key = (binary, other)
        if key not in self._known:
            columns = self.columns
            low, high = float(columns.lower[other]), float(columns.upper[other])
            name = f"{self._name(binary)}*{columns.names[other]}"
            w = self._column(name, min(low, 0.0), max(high, 0.0), False)
            inf = np.inf
            self.rows += [
                (f"{name}.1", {(w,): 1.0, (binary,): -high}, -inf, 0.0),
                (f"{name}.2", {(w,): 1.0, (binary,): -low}, 0.0, inf),
                (f"{name}.3", {(w,): 1.0, (other,): -1.0, (binary,): -low}, -inf, -low),
                (f"{name}.4", {(w,): 1.0, (other,): -1.0, (binary,): -high}, -high, inf),
            ]
            self._known[key] = w
            self.factors[w] = key
        return self._known[key]

    def _name(self, column: int) -> str:
        columns = self.columns
        return columns.names[column] if column < self.first else self.names[column - self.first]
