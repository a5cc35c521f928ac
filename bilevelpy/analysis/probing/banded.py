"""Sparse symmetric matrices as bands: the order of E. Cuthill and J. McKee (1969), reversed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Banded:
    """``matrix`` is the given one in the order ``turn``; ``rows``, ``columns`` and ``values`` are
    its entries on and below the diagonal, ``width`` the number of diagonals below the main one.
    """

    matrix: sp.csr_array
    turn: Array
    rows: Array
    columns: Array
    values: Array
    width: int

    @property
    def cells(self) -> int:
        """Entries of the band."""
        return (self.width + 1) * self.turn.size

    @property
    def work(self) -> float:
        """Operations of a Cholesky factor."""
        return float(self.cells) * (self.width + 1)


def banded(symmetric: sp.csr_array) -> Banded:
    """A matrix in the order in which its band is narrow."""
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    turn = np.asarray(reverse_cuthill_mckee(sp.csr_matrix(symmetric), symmetric_mode=True))
    matrix = sp.csr_array(symmetric[turn][:, turn])
    entries = matrix.tocoo()
    below = entries.row >= entries.col
    rows, columns = entries.row[below], entries.col[below]
    width = int(np.max(rows - columns, initial=0))
    return Banded(matrix, turn, rows, columns, entries.data[below], width)


def stored(rows: Array, columns: Array, values: Array, width: int, size: int) -> Array:
    """Entries on and below the diagonal as LAPACK stores a band."""
    band = np.zeros((width + 1, size))
    band[rows - columns, columns] = values
    return band
