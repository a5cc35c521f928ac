"""Columns of a sparse matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

Array = np.ndarray[Any, np.dtype[np.float64]]


class Columns:
    """A matrix by its products with sums of unit vectors whose columns have no row in common (A. R.
    Curtis, M. J. D. Powell and J. K. Reid, IMA J. Appl. Math. 13, 1974): a diagonal one by a single
    product.

    ``pattern`` holds the entries that may differ from zero; None: all.
    """

    def __init__(self, shape: tuple[int, int], pattern: sp.csr_array | None) -> None:
        self.shape = shape
        groups = None if pattern is None else _groups(pattern)
        self._places: list[tuple[Array, Array]] | None = None
        if pattern is None or groups is None:
            self.seeds = list(torch.eye(shape[1], dtype=torch.float64))
            return
        seeds = torch.zeros((int(groups.max(initial=-1)) + 1, shape[1]), dtype=torch.float64)
        seeds[torch.from_numpy(groups), torch.arange(shape[1])] = 1.0
        self.seeds = list(seeds)
        rows, columns = pattern.nonzero()
        owner = groups[columns]
        self._places = [(rows[owner == k], columns[owner == k]) for k in range(len(self.seeds))]

    def __len__(self) -> int:
        """The number of products."""
        return len(self.seeds)

    def of(self, product: Callable[[torch.Tensor], Array]) -> Array:
        """The matrix, dense."""
        out = np.zeros(self.shape)
        for k, seed in enumerate(self.seeds):
            found = product(seed)
            if self._places is None:
                out[:, k] = found
            else:
                rows, columns = self._places[k]
                out[rows, columns] = found[rows]
        return out


def _groups(pattern: sp.csr_array) -> Array | None:
    """A group for each column, none of whose rows another one of the group has; None where that
    takes one for each.
    """
    count = pattern.shape[1]
    if not count or int(np.diff(pattern.indptr).max(initial=0)) == count:
        return None
    meets = sp.csr_array(pattern.T @ pattern)
    group = np.full(count, -1)
    for j in range(count):
        taken = set(group[meets.indices[meets.indptr[j] : meets.indptr[j + 1]]].tolist())
        group[j] = next(k for k in range(count) if k not in taken)
    return None if int(group.max()) + 1 == count else group
