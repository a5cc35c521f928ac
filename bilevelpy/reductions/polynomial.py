"""Exact coefficients of tensors that are polynomials of degree two in the columns.

A tensor with N entries (row by row) is ``constant + linear v + sum_k T_k ((A_k v) * (B_k v))`` with
``*`` entry by entry and sparse T_k (N x K), A_k, B_k (K x n). The form is closed under every linear
operation of the IR, which is then one sparse product from the left, and the Hessian of a sum of
squares is a product of two matrices that never sees the data entry by entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.system.deadline import check
from bilevelpy.system.memory import machine_memory

Array = np.ndarray[Any, np.dtype[Any]]
Sparse = Any  # SciPy ships no types
MANY = 64
"""Tensors from which on a sum is made at once: one by one takes the square of their number."""
DENSE = 0.25
"""Share of stored entries from which on a product of matrices is one of dense ones."""
ENTRY = 16
"""Bytes of a stored entry with its place."""
START, COPIES = 4, 4
"""Bytes of a matrix for each of its rows, be they empty, and matrices that are kept of each."""


class Oversized(Exception):
    """``what`` is made takes so many bytes, and does not fit into memory."""

    def __init__(self, what: str, size: int) -> None:
        super().__init__(what)
        self.what, self.size = what, size


@dataclass(frozen=True, slots=True)
class Products:
    """``T ((A v) * (B v))``."""

    outer: Sparse
    left: Sparse
    right: Sparse


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor of N entries as ``constant + linear v + products``; ``linear`` is N x n."""

    constant: Array
    linear: Sparse
    products: tuple[Products, ...] = ()

    @property
    def rows(self) -> int:
        """The number of entries."""
        return int(self.constant.size)

    @property
    def is_constant(self) -> bool:
        """Whether no column matters."""
        return not self.products and self.linear.nnz == 0

    @property
    def is_affine(self) -> bool:
        """Whether there are no products."""
        return not self.products


def fixed(values: Array, width: int) -> Form:
    """A tensor without columns."""
    flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    return Form(flat, sp.csr_array((flat.size, width)))


def selection(offset: int, count: int, width: int) -> Form:
    """The columns ``offset .. offset + count``."""
    rows = np.arange(count)
    matrix = sp.csr_array((np.ones(count), (rows, rows + offset)), shape=(count, width))
    return Form(np.zeros(count), matrix)


def apply_linear(matrix: Sparse, form: Form) -> Form:
    """``matrix`` times the tensor."""
    products = tuple(Products(_clean(matrix @ p.outer), p.left, p.right) for p in form.products)
    return Form(matrix @ form.constant, _clean(matrix @ form.linear), products)


def plus(a: Form, b: Form) -> Form:
    """The sum of two tensors of equal size."""
    products = _together([*a.products, *b.products])
    return Form(a.constant + b.constant, _clean(a.linear + b.linear), tuple(products))


def _together(products: list[Products]) -> list[Products]:
    """With one for equal factors: a chain of sums that read the one before twice doubles them with
    every step.
    """
    found: dict[tuple[int, int], Products] = {}
    for p in products:
        factors = id(p.left), id(p.right)
        other = found.get(factors)
        both = (
            p if other is None else Products(sp.csr_array(other.outer + p.outer), p.left, p.right)
        )
        found[factors] = both
    return list(found.values())


def _joined(products: list[Products]) -> list[Products]:
    """One for all where there are many."""
    if len(products) < MANY:
        return products
    outer = sp.csr_array(sp.hstack([p.outer for p in products], format="csr"))
    left = sp.csr_array(sp.vstack([p.left for p in products], format="csr"))
    right = sp.csr_array(sp.vstack([p.right for p in products], format="csr"))
    return [Products(outer, left, right)]


def total(forms: list[Form]) -> Form:
    """The sum of tensors of equal size, in one step however many there are."""
    if len(forms) < MANY:
        found = forms[0]
        for form in forms[1:]:
            found = plus(found, form)
        return found
    rows = forms[0].rows
    adding = sp.csr_array(sp.hstack([sp.eye_array(rows, format="csr")] * len(forms), format="csr"))
    linear = adding @ sp.csr_array(sp.vstack([f.linear for f in forms], format="csr"))
    constant = np.sum([f.constant for f in forms], axis=0)
    made = _joined(_together([p for f in forms for p in f.products]))
    return Form(constant, _clean(linear), tuple(made))


def spread(form: Form, count: int) -> Form:
    """A scalar repeated ``count`` times."""
    if form.rows == count:
        return form
    return apply_linear(sp.csr_array(np.ones((count, 1))), form)


def times(outer: Sparse, a: Form, b: Form) -> Form:
    """``outer (a * b)`` for affine a and b of equal size."""
    constant = outer @ (a.constant * b.constant)
    linear = outer @ (_scale_rows(b.constant, a.linear) + _scale_rows(a.constant, b.linear))
    products: tuple[Products, ...] = ()
    if a.linear.nnz and b.linear.nnz:
        products = (Products(sp.csr_array(outer), a.linear, b.linear),)
    return Form(constant, _clean(linear), products)


def take(form: Form, positions: Array) -> Form:
    """Entries by position, with repetition."""
    count = positions.size
    matrix = sp.csr_array((np.ones(count), (np.arange(count), positions)), shape=(count, form.rows))
    return apply_linear(matrix, form)


def stack(forms: list[Form]) -> Form:
    """One tensor after another."""
    if len(forms) == 1:
        return forms[0]
    total = sum(f.rows for f in forms)
    products: list[Products] = []
    start = 0
    for form in forms:
        place = sp.csr_array(
            (np.ones(form.rows), (np.arange(start, start + form.rows), np.arange(form.rows))),
            shape=(total, form.rows),
        )
        products += [
            Products(sp.csr_array(place @ p.outer), p.left, p.right) for p in form.products
        ]
        start += form.rows
    linear = sp.csr_array(sp.vstack([f.linear for f in forms], format="csr"))
    return Form(np.concatenate([f.constant for f in forms]), linear, tuple(_joined(products)))


def hessians(form: Form, only: int | None = None) -> dict[int, Sparse]:
    """Row -> symmetric Q with ``v' Q v / 2`` its quadratic part; rows without one are absent.

    Raises
    ------
    Oversized
        Where a Q has more entries than fit into memory (the square of a sum of a million columns),
        or there are too many of them.
    """
    found: dict[int, Sparse] = {}
    width = form.linear.shape[1]
    curved = {int(r) for p in form.products for r in np.unique(p.outer.tocoo().row)}
    if only is None and START * len(curved) * width > machine_memory() / COPIES:
        what = f"{len(curved):,} matrices, one a row, over {width:,} variables"
        raise Oversized(what, START * len(curved) * width)
    for p in form.products:
        outer = sp.csr_array(p.outer)
        for row in np.flatnonzero(np.diff(outer.indptr)):
            if only is not None and row != only:
                continue
            check()
            span = slice(outer.indptr[row], outer.indptr[row + 1])
            places, weights = outer.indices[span], outer.data[span]
            half = _crossed(p.left[places], weights, p.right[places])
            whole = sp.csr_array(half + half.T)
            found[int(row)] = whole if int(row) not in found else found[int(row)] + whole
    cleaned = {row: _clean(q) for row, q in found.items()}
    return {row: q for row, q in cleaned.items() if q.nnz}


def _crossed(left: Sparse, weights: Array, right: Sparse) -> Sparse:
    """``left' diag(weights) right``; rows of a data matrix are multiplied as dense ones."""
    used = [np.unique(m.indices) for m in (left, right)]
    made = int(np.diff(left.indptr).astype(np.int64) @ np.diff(right.indptr).astype(np.int64))
    pairs = min(made, used[0].size * used[1].size)
    if ENTRY * pairs > machine_memory():
        raise Oversized(f"{pairs:,} products of two variables", ENTRY * pairs)
    area = left.shape[0] * max(1, max(u.size for u in used))
    if min(left.nnz, right.nnz) < max(DENSE * area, 1_000):
        return sp.csr_array(left.T @ _scale_rows(weights, right))
    a, b = left[:, used[0]].toarray(), right[:, used[1]].toarray()
    block = a.T @ (weights[:, None] * b)
    rows, places = np.repeat(used[0], used[1].size), np.tile(used[1], used[0].size)
    shape = (left.shape[1], right.shape[1])
    return sp.csr_array((block.reshape(-1), (rows, places)), shape=shape)


def _scale_rows(weights: Array, matrix: Sparse) -> Sparse:
    return sp.csr_array(sp.diags_array(np.asarray(weights, dtype=np.float64)) @ matrix)


def _clean(matrix: Sparse) -> Sparse:
    """Without stored zeros."""
    matrix = sp.csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix
