"""The part of one predictor in a dense Hessian: elementwise, stacked, or pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

# Entries of the stacked right-hand side of one assembly product (32 MB), or one pair's where that
# is more; those that stay in the cache between their making and their use.
_STACK, _NEAR = 4_000_000, 100_000
# Multiplications a second of sparse matrix products, and of dense ones: one core, measured.
SPARSE, DENSE = 2e8, 2e10


@dataclass(frozen=True, slots=True)
class Block:
    """A linear term made concrete: ``coefficient`` (B, N, Q) dense, or a sparse (N, Q);
    ``index`` (B, Q, C) positions in y.
    """

    coefficient: Any
    index: Tensor


@dataclass(frozen=True, slots=True)
class Diagonal:
    """A predictor that is elementwise in its variables: ``places`` of H's entries in memory, with
    the ``products`` of coefficients that the weights are multiplied by (None: all are 1).
    """

    places: slice | np.ndarray
    products: np.ndarray | None
    repeats: int

    @classmethod
    def of(cls, blocks: Sequence[Block], m: int) -> Diagonal:
        """From blocks of one coefficient per entry."""
        places, products, repeats = [], [], 0
        for a, left in enumerate(blocks):
            for b, right in enumerate(blocks[a:], a):
                rows, columns = left.index.reshape(-1), right.index.reshape(-1)
                product = (left.coefficient * right.coefficient).reshape(-1).numpy()
                for r, c in ((rows, columns), (columns, rows))[: 1 if a == b else 2]:
                    places.append((r * m + c).numpy())
                    products.append(product)
                    repeats += 1
        where, factor = np.concatenate(places), np.concatenate(products)
        run: slice | np.ndarray = where
        if where.size and (np.diff(where) == m + 1).all():
            run = slice(int(where[0]), int(where[-1]) + 1, m + 1)
        return cls(run, None if (factor == 1.0).all() else factor, repeats)

    def add(self, H: np.ndarray, G: Tensor) -> None:
        """Add the part to H."""
        weights = G.numpy().reshape(-1)
        if self.repeats > 1:
            weights = np.tile(weights, self.repeats)
        if self.products is not None:
            weights = weights * self.products
        flat = H.reshape(-1)
        if isinstance(self.places, slice):
            flat[self.places] += weights
        else:
            np.add.at(flat, self.places, weights)


@dataclass(frozen=True, slots=True)
class Stack:
    """All blocks of a predictor side by side: ``columns`` (N, Q), each with C classes at the
    positions ``where`` (C Q, variable by variable within a class). Where these fill a ``window`` of
    y, ``order`` sorts them (None: they are).
    """

    columns: np.ndarray
    where: np.ndarray
    window: slice | None
    order: np.ndarray | None

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Stack | None:
        """Blocks joined where that costs little: one product then does all pairs."""
        first = blocks[0]
        if first.coefficient.shape[0] != 1:
            return None
        if len(blocks) > 1 and sum(b.coefficient.numel() for b in blocks) > _STACK:
            return None
        where = np.concatenate([b.index[0].numpy() for b in blocks]).T.reshape(-1)
        order = np.argsort(where)
        ranked = where[order]
        if (ranked[1:] == ranked[:-1]).any():
            return None
        if first.index.shape[2] > 1 and where.size**2 > 4 * _STACK:
            return None
        low, high = (int(ranked[0]), int(ranked[-1]) + 1) if where.size else (0, 0)
        window = slice(low, high) if high - low == where.size else None
        ordered = bool((where == ranked).all())
        parts = [b.coefficient[0].numpy() for b in blocks]
        columns = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return cls(columns, where, window, None if ordered else order)

    def add(self, H: np.ndarray, G: Tensor) -> None:
        """Add ``A' G A``."""
        weights, order = G[0].numpy(), self.order
        total = self._plain(weights[:, 0]) if G.shape[-1] == 1 else self._classes(weights)
        if self.window is None:
            H[np.ix_(self.where, self.where)] += total
            return
        if order is not None:
            total = total.take(order, axis=0)
            total = total.take(order, axis=1)
        H[self.window, self.window] += total

    def _plain(self, weights: np.ndarray) -> Any:
        """One class; where no weight (N, 1) is negative as ``Z' Z``, half the work."""
        root = np.sqrt(weights) if weights.size and weights.min() >= 0 else None
        total: Any = 0.0
        for rows in self._chunks(1):
            part = self.columns[rows]
            if root is not None:
                scaled = root[rows] * part
                total = total + scaled.T @ scaled
            else:
                total = total + part.T @ (weights[rows] * part)
        return total

    def _classes(self, weights: np.ndarray) -> np.ndarray:
        """Blocks (N, C, C), which are symmetric: a product for each class with those from it on."""
        count, width = weights.shape[1], self.columns.shape[1]
        out = np.empty((count, width, count, width))
        for c in range(count):
            total: Any = 0.0
            for rows in self._chunks(count - c):
                part = self.columns[rows]
                weighted = weights[rows, c, c:, None] * part[:, None, :]
                total = total + part.T @ weighted.reshape(len(part), -1)
            out[c, :, c:] = np.reshape(total, (width, count - c, width))
            for d in range(c + 1, count):
                out[d, :, c] = out[c, :, d].T
        return out.reshape(count * width, -1)

    def _chunks(self, copies: int) -> list[slice]:
        """Rows at a time, for so many weighted copies of the columns: what stays in the cache, but
        not so few that adding up the products costs as much as they do.
        """
        rows, columns = self.columns.shape
        width = max(columns * copies, 1)
        height = max(1, min(max(_NEAR // width, 2 * columns), _STACK // width))
        return [slice(low, low + height) for low in range(0, rows, height)]


@dataclass(frozen=True, slots=True)
class SparseStack:
    """The same for one batch with sparse blocks: ``columns`` (N, Q) as rows, its transpose, and the
    positions ``where`` (Q, C). ``apart``: no variable is in two blocks; ``full``: the rows have so
    many entries that dense products take less.
    """

    columns: sp.csr_array
    transposed: sp.csr_array
    where: np.ndarray
    apart: bool
    full: bool

    @classmethod
    def of(cls, blocks: Sequence[Block], samples: int) -> SparseStack:
        """Blocks side by side; dense ones, such as an intercept, have few columns."""
        parts = []
        for block in blocks:
            part = block.coefficient
            if isinstance(part, Tensor):
                part = part[0].numpy()
                part = np.broadcast_to(part, (samples, part.shape[1]))
            parts.append(sp.csr_array(part))
        A = sp.csr_array(parts[0] if len(parts) == 1 else sp.hstack(parts, format="csr"))
        where = np.concatenate([block.index[0].numpy() for block in blocks])
        apart = len(np.unique(where)) == where.size
        full = gram_work(A) >= 2.0 * A.shape[0] * A.shape[1] ** 2 / DENSE
        return cls(A, sp.csr_array(A.T), where, apart, full)

    def add(self, H: np.ndarray, G: Tensor) -> None:
        """Add ``A' G A``; blocks that share a variable add up."""
        weights, classes = G[0].numpy(), G.shape[-1]
        for c in range(classes):
            for d in range(c, classes):
                total = self._product(weights[:, c, d])
                self._put(H, c, d, total)
                if d > c:
                    self._put(H, d, c, total.T)

    def _put(self, H: np.ndarray, c: int, d: int, part: np.ndarray) -> None:
        at = np.ix_(self.where[:, c], self.where[:, d])
        if self.apart:
            H[at] += part
        else:
            np.add.at(H, at, part)

    def _product(self, weights: np.ndarray) -> np.ndarray:
        """``A' diag(weights) A``: by its entries, or where rows are full a few rows at a time."""
        A = self.columns
        if not self.full:
            data = A.data * np.repeat(weights, np.diff(A.indptr))
            scaled = sp.csr_array((data, A.indices, A.indptr), shape=A.shape)
            return np.asarray((self.transposed @ scaled).toarray())
        total = np.zeros((A.shape[1], A.shape[1]))
        height = max(1, _STACK // max(A.shape[1], 1))
        for low in range(0, A.shape[0], height):
            part = A[low : low + height].toarray()
            total += part.T @ (weights[low : low + height, None] * part)
        return total


def gram_work(A: sp.csr_array) -> float:
    """Seconds of a sparse product ``A' A``, which meets every pair of entries of a row."""
    return float(np.square(np.diff(A.indptr), dtype=np.float64).sum()) / SPARSE


def add_pair(H: Tensor, left: Block, right: Block, G: Tensor, *, symmetric: bool) -> None:
    """Add ``left' G right`` (and its transpose) to H, for all pairs of classes: a few pairs per
    product, and a few samples where one pair is large.
    """
    batch, samples, q = right.coefficient.shape
    classes = G.shape[-1]
    pairs = [(c, d) for c in range(classes) for d in range(c if symmetric else 0, classes)]
    width = max(1, _STACK // max(right.coefficient.numel(), 1))
    height = max(1, _STACK // max(batch * q, 1)) if width == 1 else samples
    for start in range(0, len(pairs), width):
        part = pairs[start : start + width]
        rows = [c for c, _ in part]
        columns = [d for _, d in part]
        products = H.new_zeros((batch, left.coefficient.shape[2], len(part) * q))
        for low in range(0, samples, height):
            chunk = slice(low, low + height)
            # (B, N, P, Q): the right factor weighted for each pair.
            weighted = G[:, chunk, rows, columns].unsqueeze(-1)
            weighted = weighted * right.coefficient[:, chunk].unsqueeze(2)
            flat = weighted.reshape(batch, -1, len(part) * q)
            products += left.coefficient[:, chunk].transpose(1, 2) @ flat
        products = products.reshape(batch, -1, len(part), q)
        at = left.index[:, :, rows].unsqueeze(3)
        to = right.index[:, :, columns].transpose(1, 2).unsqueeze(1)
        H[at, to] += products
        mirrored = [k for k, (c, d) in enumerate(part) if c != d or not symmetric]
        if mirrored:
            H[to[:, :, mirrored], at[:, :, mirrored]] += products[:, :, mirrored]
