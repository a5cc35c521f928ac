"""Sparse Hessians as a band with a border: an order of the variables, and how to read the entries
off a few products.

Most variables meet few others (chains, grids, networks): in a good order their part of f_yy is a
band. A few that meet nearly all (a common intercept) are the border. Entries are read off products
with 0-1 vectors, one for each class of variables that share no row (A. Curtis, M. Powell and
J. Reid, "On the estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13, 1974).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.analysis.probing.banded import banded

Array = np.ndarray[Any, np.dtype[Any]]

# Variables of the border at most, and how many more others than usual they meet.
BORDER, UNUSUAL = 30, 8
# Classes of variables at most: products that one Hessian takes. They are bits of a 64-bit number.
CLASSES = 60
# Entries of the band at most (160 MB), and operations of a factor (a second or so).
BAND, WORK = 20_000_000, 1e10
# A band has at most this share of the entries of the whole matrix.
SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Bands:
    """How the Hessian of ``m`` variables lies in a band.

    ``order`` (p) are the positions in y of the variables of the band, ``border`` (k) of the others;
    ``classes`` holds for each product the positions that get a 1. ``rows``, ``columns`` are the
    entries on and below the diagonal of the band, in its order, and ``owner`` the product that
    shows each; ``width`` is the number of diagonals below the main one.
    """

    order: Array
    border: Array
    classes: tuple[Array, ...]
    rows: Array
    columns: Array
    owner: Array
    width: int

    @property
    def products(self) -> int:
        """Products that one Hessian takes."""
        return len(self.classes) + self.border.size


def bands(pattern: sp.csr_array) -> Bands | None:
    """A band with a border for a symmetric pattern; None where it would not be much smaller than
    the whole.
    """
    m = pattern.shape[0]
    whole = sp.csr_array(pattern + pattern.T + sp.eye_array(m, format="csr"))
    degree = np.diff(whole.indptr)
    usual = float(np.median(degree))
    border = np.flatnonzero(degree > UNUSUAL * usual)
    if border.size > BORDER:
        return None
    inside = np.setdiff1d(np.arange(m), border)
    core = sp.csr_array(whole[inside][:, inside])
    if core.shape[0] == 0 or core.nnz > SHARE * m * m:
        return None
    known = banded(core)
    if known.cells > min(BAND, SHARE * m * m) or known.work > WORK:
        return None
    label = _classes(known.matrix)
    if label is None:
        return None
    order = inside[known.turn]
    return Bands(
        order=order,
        border=border,
        classes=tuple(order[label == c] for c in range(int(label.max(initial=-1)) + 1)),
        rows=known.rows,
        columns=known.columns,
        owner=label[known.columns],
        width=known.width,
    )


def _classes(core: sp.csr_array) -> Array | None:
    """A class for every column so that no two of a class meet in a row; None where it takes too
    many.

    First come, first served, in waves: of all columns that are left those are served whose turn is
    before that of all they meet.
    """
    size = core.shape[0]
    if float(np.square(np.diff(core.indptr).astype(float)).sum()) > BAND:
        return None
    meets = sp.csr_array(core @ core).tocoo()
    other = meets.row != meets.col
    first, second = meets.row[other], meets.col[other]
    turn = np.random.default_rng(0).permutation(size)
    label = np.full(size, -1)
    while True:
        open_edge = (label[first] < 0) & (label[second] < 0)
        earlier = np.full(size, size)
        np.minimum.at(earlier, first[open_edge], turn[second[open_edge]])
        ready = (label < 0) & (turn < earlier)
        if not ready.any():
            return label
        taken = np.zeros(size, dtype=np.uint64)
        seen = ready[first] & (label[second] >= 0)
        bits = np.uint64(1) << label[second[seen]].astype(np.uint64)
        np.bitwise_or.at(taken, first[seen], bits)
        free = ~taken
        lowest = free & (np.uint64(0) - free)
        chosen = np.round(np.log2(lowest[ready].astype(np.float64))).astype(np.int64)
        if chosen.size and int(chosen.max()) >= CLASSES:
            return None
        label[ready] = chosen
