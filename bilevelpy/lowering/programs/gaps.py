"""Large data matrices with many zeros (images, one-hot columns): products over the other entries.

A product with few columns is as fast as memory is read, and a matrix of which a fifth is not 0 is
read in a third of the time where it is stored without the zeros. The copy is made once so many
products have been asked for that it pays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir.mapped import budget

Array = np.ndarray[Any, np.dtype[np.float64]]

# Matrices of fewer entries lie in the cache, where BLAS has no rival.
LEAST = 100_000
# Share of entries that are not 0 up to which products without the zeros are faster, and columns:
# BLAS is better at wide products.
FEW, COLUMNS = 0.25, 20
# Products after which the matrix is looked at: a copy costs about as much as ten.
WORTH = 12
# Rows that tell most matrices without zeros.
SAMPLE = 50
# Part of the memory for data that a copy may take.
PART = 8
# A product of so many times fewer entries than the matrix is kept.
LIGHT = 8


class Gaps:
    """A matrix of data of a NumPy program: ``product(v)`` is ``A v``, or ``A' v``.

    The latest ``A v`` is kept: at one y, values, Hessians and products with them begin with the
    same predictors, and so does the next upper point.
    """

    __slots__ = ("_calls", "_columns", "_latest", "_matrix", "_rows")

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix
        self._calls = 0
        self._rows: Any = None
        self._columns: Any = None
        self._latest: tuple[bytes, Array] = b"", matrix

    def product(self, v: Array, transpose: bool) -> Array:
        """The product with a vector or a matrix; not to be written to."""
        if transpose:
            return self._product(v, True)
        key, known = v.tobytes(), self._latest
        if key == known[0] and v.ndim == known[1].ndim:
            return known[1]
        found = self._product(v, False)
        if LIGHT * found.size <= self._matrix.size:
            self._latest = key, found
        return found

    def _product(self, v: Array, transpose: bool) -> Array:
        if self._rows is not None and (v.ndim == 1 or v.shape[1] <= COLUMNS):
            found: Array = (self._columns if transpose else self._rows) @ v
            return found
        self._calls += 1
        if self._calls == WORTH:
            self._look()
        # ``A' v`` as ``(v' A)'`` reads A row by row.
        return (v.T @ self._matrix).T if transpose else self._matrix @ v

    def _look(self) -> None:
        """Store the matrix without its zeros, where it has many."""
        A = self._matrix
        some = A[:: max(1, len(A) // SAMPLE)]
        if np.count_nonzero(some) > 2.0 * FEW * some.size:
            return
        stored = np.count_nonzero(A)
        if stored <= FEW * A.size and 12 * stored <= budget() // PART:
            self._rows = sp.csr_array(A)
            # The transpose by columns: the same memory.
            self._columns = self._rows.T
