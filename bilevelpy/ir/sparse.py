"""Products with a sparse matrix: by sparse products where possible, else entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Labels = tuple[int, ...]
DENSE_LIMIT = 5_000_000
"""Largest number of entries that a sparse matrix is expanded to."""


def is_sparse(value: object) -> bool:
    """Whether this is a SciPy sparse matrix or array (without importing SciPy)."""
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def times_dense(matrix: Any, labels: Labels, dense: Array, others: Labels, output: Labels) -> Any:
    """Sum over the labels outside ``output`` of ``matrix[labels] * dense[others]``.

    A scalar ``dense`` gives a sparse matrix if both labels are kept; everything else is dense.
    """
    row, col = labels
    if row == col:
        return _entries(matrix, labels, dense, others, output)
    if not others and output == labels:
        return matrix * float(dense)
    if not others and output == (col, row):
        return (matrix * float(dense)).T.tocsr()
    if col in others and row not in others and col not in output:
        return _product(matrix, row, col, dense, others, output)
    if row in others and col not in others and row not in output:
        return _product(matrix.T, col, row, dense, others, output)
    return _entries(matrix, labels, dense, others, output)


def _product(
    matrix: Any, row: int, col: int, dense: Array, others: Labels, output: Labels
) -> Array:
    """``matrix[row, col] @ dense[col, rest]``, summed over and permuted to ``output``."""
    place = others.index(col)
    moved = np.moveaxis(dense, place, 0)
    rest = tuple(s for s in others if s != col)
    flat = np.asarray(matrix @ moved.reshape(moved.shape[0], -1))
    result = flat.reshape(matrix.shape[0], *moved.shape[1:])
    return np.asarray(np.einsum(result, [row, *rest], list(output)))


def _entries(matrix: Any, labels: Labels, dense: Array, others: Labels, output: Labels) -> Array:
    """The same entry by entry: each takes the slice of ``dense`` at its row and column."""
    coo = matrix.tocoo()
    position = dict(zip(labels, (coo.row, coo.col), strict=True))
    values = coo.data
    if labels[0] == labels[1]:
        on_diagonal = coo.row == coo.col
        position = {labels[0]: coo.row[on_diagonal]}
        values = values[on_diagonal]
    sizes = dict(zip(labels, matrix.shape, strict=True))
    shared = [s for s in position if s in others]
    rest = [s for s in others if s not in shared]
    moved = np.transpose(dense, [others.index(s) for s in (*shared, *rest)])
    taken = (
        moved[tuple(position[s] for s in shared)]
        if shared
        else np.broadcast_to(moved, (len(values), *moved.shape))
    )
    terms = values.reshape(-1, *[1] * len(rest)) * taken
    kept = [s for s in position if s in output]
    if kept:
        total = np.zeros([*(sizes[s] for s in kept), *terms.shape[1:]])
        np.add.at(total, tuple(position[s] for s in kept), terms)
    else:
        total = terms.sum(axis=0)
    # NumPy's stubs do not know the form with lists of labels.
    einsum: Any = np.einsum
    return np.asarray(einsum(total, [*kept, *rest], list(output)))
