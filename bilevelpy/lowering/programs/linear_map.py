"""Data matrices as linear maps: products with gradients and Hessian-vector products, never
densified by themselves.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevelpy.errors import BackendError

# A sparse param used entry by entry is made dense up to this many entries (40 MB).
DENSE_LIMIT = 5_000_000


class SparseMap:
    """A sparse matrix and, once asked for, its transpose; ``name`` is what messages call it."""

    __slots__ = ("_elsewhere", "_transposed", "csr", "dtype", "name")

    def __init__(self, csr: Any, name: str, dtype: torch.dtype = torch.float64) -> None:
        self.csr = csr
        self.name = name
        self.dtype = dtype
        self._transposed: SparseMap | None = None
        self._elsewhere: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.csr.shape
        return int(rows), int(columns)

    @property
    def transposed(self) -> SparseMap:
        """The transpose, stored row by row too, since its products are as frequent."""
        if self._transposed is None:
            self._transposed = SparseMap(sp.csr_array(self.csr.T), self.name, self.dtype)
            self._transposed._transposed = self
        return self._transposed

    def multiply(self, v: Tensor) -> Tensor:
        """The product with a plain vector or matrix, on the device where that lies."""
        if v.device.type != "cpu":
            return self._on(v.device) @ v.detach()
        return torch.from_numpy(np.asarray(self.csr @ v.detach().numpy())).to(self.dtype)

    def _on(self, device: torch.device) -> Tensor:
        """The matrix on another device, where it stays."""
        if self._elsewhere is None:
            parts = (self.csr.indptr, self.csr.indices, self.csr.data)
            rows, columns, entries = (torch.from_numpy(part).to(device) for part in parts)
            with warnings.catch_warnings():
                # torch says of the whole layout that it is in beta.
                warnings.simplefilter("ignore", UserWarning)
                self._elsewhere = torch.sparse_csr_tensor(
                    rows, columns, entries.to(self.dtype), self.shape, device=device
                )
        return self._elsewhere

    def dense(self) -> Tensor:
        """The matrix in full, for uses entry by entry."""
        rows, columns = self.shape
        if rows * columns > DENSE_LIMIT:
            raise BackendError(
                f"param {self.name!r} is sparse and is used entry by entry, which would need a "
                f"dense {rows} x {columns} array: write its use as a product with a vector or "
                "matrix, or bind it dense"
            )
        return torch.from_numpy(self.csr.toarray()).to(self.dtype)

    def map(self, function: Any) -> SparseMap:
        """The stored entries through a function that keeps 0."""
        return self._like(function(torch.from_numpy(self.csr.data)).numpy())

    def scale(self, rows: Any, columns: Any, factor: float = 1.0) -> SparseMap:
        """``factor * diag(rows) A diag(columns)`` for arrays of rows and columns."""
        data = self.csr.data * factor
        if rows is not None:
            data = data * np.repeat(rows, np.diff(self.csr.indptr))
        if columns is not None:
            data = data * columns[self.csr.indices]
        return self._like(data)

    def take(self, dim: int, index: Any) -> SparseMap:
        """The rows or columns at ``index``; they come first in the result."""
        source = self.csr if dim == 0 else self.transposed.csr
        return SparseMap(sp.csr_array(source[index]), self.name, self.dtype)

    def _like(self, data: Any) -> SparseMap:
        matrix = sp.csr_array((data, self.csr.indices, self.csr.indptr), shape=self.csr.shape)
        return SparseMap(matrix, self.name, self.dtype)


class DenseMap:
    """A dense data matrix (or its transpose, ``flip``) as a linear map for few columns.

    ``A' v`` is computed as ``(v' A)'``, which reads A row by row: two to four times as fast. With
    one thread NumPy's BLAS is twice as fast as the one of torch on some processors; with more, the
    waiting threads of two libraries would fight for the cores.
    """

    __slots__ = ("flip", "matrix")

    def __init__(self, matrix: Tensor, flip: bool) -> None:
        self.matrix = matrix
        self.flip = flip

    @property
    def transposed(self) -> DenseMap:
        """The transpose: the same memory."""
        return DenseMap(self.matrix, not self.flip)

    def multiply(self, v: Tensor) -> Tensor:
        """The product with a plain matrix."""
        w = v.detach()
        if torch.get_num_threads() > 1:
            return torch.mm(w.t(), self.matrix).t() if self.flip else torch.mm(self.matrix, w)
        A, columns = self.matrix.numpy(), w.numpy()
        return torch.from_numpy((columns.T @ A).T if self.flip else A @ columns)


# A data matrix of fewer entries is multiplied by torch: the detour takes some 10 microseconds.
DETOUR = 100_000
# As is one that meets more columns: then all libraries are good at it.
COLUMNS = 64


def data_product(matrix: Tensor, v: Tensor, transpose: bool) -> Tensor:
    """``A v`` or ``A' v``, ``A`` a matrix of data and ``v`` a matrix; differentiable in ``v``."""
    few = v.shape[1] <= COLUMNS and matrix.numel() >= DETOUR
    if few and matrix.device.type == "cpu" and not matrix.requires_grad:
        return _Product.apply(v, DenseMap(matrix, transpose))  # type: ignore[no-any-return]
    return torch.mm(matrix.t() if transpose else matrix, v)


class _Product(torch.autograd.Function):
    """A linear map of its operand: the derivative is the transposed map, so every order is at
    hand.
    """

    @staticmethod
    def forward(v: Tensor, operator: SparseMap | DenseMap) -> Tensor:
        return operator.multiply(v)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, SparseMap | DenseMap], output: Tensor
    ) -> None:
        ctx.operator = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Product.apply(grads[0], ctx.operator.transposed), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, None], v: Tensor, operator: SparseMap
    ) -> tuple[Tensor, int]:
        # A batch of vectors is a matrix with the batch as columns; a batch of matrices is one wide
        # matrix.
        moved = torch.movedim(v, in_dims[0] or 0, -1)
        flat = _Product.apply(moved.reshape(moved.shape[0], -1), operator)
        return flat.reshape(flat.shape[0], *moved.shape[1:]), moved.dim() - 1


def sparse_product(operator: SparseMap, v: Tensor, transpose: bool) -> Tensor:
    """``A v`` or ``A' v`` for a vector or matrix ``v``, differentiable in ``v``."""
    return _Product.apply(v, operator.transposed if transpose else operator)  # type: ignore[no-any-return]
