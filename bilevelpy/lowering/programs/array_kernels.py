"""NumPy's counterparts of the functions that compiled graphs call.

Exponentials and what is made of them are faster in torch, by factors of 2 to 3, once arrays are
long: they go there and back without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit

from bilevelpy.lowering.programs import kernels
from bilevelpy.lowering.programs.linear_map import SparseMap, data_product, sparse_product

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Any]


def _longer(entries: int, long: Function, short: Function) -> Function:
    """A function by torch where an array has so many entries, else by NumPy."""

    def call(x: Any, *rest: Any) -> Any:
        # Views and read-only arrays have no tensor over the same memory.
        if x.size < entries or not (x.flags.c_contiguous and x.flags.writeable):
            return short(x, *rest)
        return long(torch.from_numpy(x), *rest).numpy()

    return call


_exp = _longer(1000, torch.exp, np.exp)


# Lengths up to which sums along one side of a matrix are products with ones.
ONES = np.ones(1 << 16)


def _sum(x: Any, dims: Any = None) -> Any:
    if x.ndim == 2 and dims is not None and x.dtype == float:
        axis = dims if isinstance(dims, int) else dims[0] if len(dims) == 1 else 2
        # NumPy's own sums of narrow matrices take five times as long as BLAS.
        if axis in (1, -1) and x.shape[1] <= len(ONES):
            return x.dot(ONES[: x.shape[1]])
        if axis in (0, -2) and x.shape[0] <= len(ONES):
            return ONES[: x.shape[0]].dot(x)
    return np.add.reduce(x, axis=dims) if x.ndim else x


def _softplus(x: Any) -> Any:
    return -log_expit(-x)


def _sum_of_squares(x: Any) -> Any:
    flat = x.reshape(-1)
    return flat.dot(flat)


def _unsqueeze(x: Any, dim: int) -> Any:
    # As `np.expand_dims`, in a tenth of its time.
    whole = slice(None)
    return x[(whole,) * dim + (None,) if dim >= 0 else (..., None) + (whole,) * (-1 - dim)]


def _select(x: Any, dim: int, index: int) -> Any:
    return x.take(index, dim)


def _index_select(x: Any, dim: int, index: Array) -> Any:
    return x.take(index, dim)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return np.where(condition if np.asarray(condition).dtype == bool else condition != 0, yes, no)


def _take(x: Any, dims: tuple[int, ...], *index: Any) -> Any:
    if len(dims) > 1 or dims[0] != 0:
        x = x.transpose(*dims, *(d for d in range(x.ndim) if d not in dims))
    return x[index]


def _scatter_sum(x: Any, index: Array, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    if x.ndim == 1:
        return np.bincount(index, weights=x, minlength=count).reshape(shape)
    out = np.zeros((count, *x.shape[1:]))
    np.add.at(out, index, x)
    return out.reshape(*shape, *x.shape[1:])


def _spread(x: Any, *shape: int) -> Any:
    return np.broadcast_to(x, shape)


# Entries of a matrix that lie within this range need no shift of their own in each row.
RANGE = 50.0


def _exponentials(x: Any) -> tuple[Any, Any, Any]:
    """``exp(x - top)`` and its sums over the last axis. ``top`` is one number where that loses no
    more than 50 units of rounding, else the largest of each row.
    """
    top: Any = np.maximum.reduce(x, axis=None)
    if not top - np.minimum.reduce(x, axis=None) <= RANGE:  # nor where something is not finite
        top = np.maximum.reduce(x, axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
    found = _exp(x - top)
    return found, _sum(found, (found.ndim - 1,)), top


def _logsumexp(x: Any, dims: tuple[int, ...]) -> Any:
    if x.size and len(dims) == 1 and dims[0] in (-1, x.ndim - 1):
        _, total, top = _exponentials(x)
        return np.log(total) + (top if np.ndim(top) == 0 else top[..., 0])
    top = np.maximum.reduce(x, axis=dims, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.add.reduce(np.exp(x - top), axis=dims))
    return total + top.reshape(total.shape)


def _softmax(x: Any) -> Any:
    if not x.size:
        return x
    found, total, _ = _exponentials(x)
    return found / total[..., None]


def softmax_pair(x: Any) -> tuple[Any, Any]:
    """Softmax and log-sum-exp of the rows of a matrix, by one exponential."""
    if x.ndim != 2 or not x.size:
        return _softmax(x), _logsumexp(x, (1,))
    found, total, top = _exponentials(x)
    logs = np.log(total)
    return found / total[:, None], logs + (top if np.ndim(top) == 0 else top[:, 0])


def _logsoftmax(x: Any) -> Any:
    return x - _logsumexp(x, (-1,))[..., None]


def _norm2(x: Any, dims: Sequence[int]) -> Any:
    return np.sqrt(np.add.reduce(x * x, axis=tuple(dims)))


def _clip(r: Any, d: Any) -> Any:
    c = np.minimum(np.maximum(r, -d), d)
    return c * (r - 0.5 * c)


def _entr(x: Any) -> Any:
    return np.where(x < 0, math.nan, -x * np.log(np.maximum(x, kernels.TINY)))


def _diag(x: Any) -> Any:
    return x[..., :, None] * np.eye(x.shape[-1])


def _product(matrix: Any, v: Any, transpose: bool) -> Any:
    return (v.T @ matrix).T if transpose else matrix @ v


def _sparse(operator: SparseMap, v: Any, transpose: bool) -> Any:
    return (operator.transposed if transpose else operator).csr @ v


_ATOMS = kernels.ELEMENTWISE
# Texts whose value does not depend on the order of their operands.
COMMUTATIVE = ("{0} * {1}", "{0} + {1}")
# Functions, or the text of an expression of the arguments.
COUNTERPARTS: dict[Any, Function | str] = {
    torch.mul: "{0} * {1}",
    torch.add: "{0} + {1}",
    torch.sub: "{0} - {1}",
    torch.rsub: "{1} - {0}",
    torch.dot: "{0}.dot({1})",
    torch.mv: "{0}.dot({1})",
    torch.mm: "{0}.dot({1})",
    torch.matmul: np.matmul,
    torch.t: "{0}.T",
    torch.permute: "{0}.transpose({1})",
    torch.movedim: np.moveaxis,
    torch.unsqueeze: _unsqueeze,
    torch.squeeze: "{0}.squeeze({1})",
    torch.select: _select,
    torch.index_select: _index_select,
    torch.diagonal: np.diagonal,
    torch.einsum: np.einsum,
    torch.sum: _sum,
    torch.amax: np.amax,
    torch.amin: np.amin,
    torch.logsumexp: _logsumexp,
    torch.cat: np.concatenate,
    torch.diag_embed: _diag,
    torch.neg: "-{0}",
    torch.reciprocal: "1.0 / {0}",
    torch.sqrt: np.sqrt,
    torch.exp: _exp,
    torch.expm1: np.expm1,
    torch.log: np.log,
    torch.log1p: np.log1p,
    torch.abs: np.abs,
    torch.relu: lambda x: np.maximum(x, 0.0),
    torch.sigmoid: _longer(600, torch.sigmoid, expit),
    torch.tanh: np.tanh,
    torch.sin: np.sin,
    torch.cos: np.cos,
    torch.tan: np.tan,
    torch.atan: np.arctan,
    torch.sinh: np.sinh,
    torch.cosh: np.cosh,
    kernels.add: lambda *operands: sum(operands[1:], operands[0]),
    kernels.softplus: _longer(400, kernels.softplus, _softplus),
    kernels.square: "{0} * {0}",
    kernels.sum_of_squares: _sum_of_squares,
    kernels.power: np.power,
    kernels.maximum: np.maximum,
    kernels.minimum: np.minimum,
    kernels.huber: _clip,
    kernels.entr: _entr,
    kernels.select: _where,
    kernels.norm2: _norm2,
    kernels.softmax: _softmax,
    kernels.logsoftmax: _logsoftmax,
    kernels.take: _take,
    kernels.scatter_sum: _scatter_sum,
    kernels.spread: _spread,
    data_product: _product,
    sparse_product: _sparse,
    _ATOMS["lt"]: "1.0 * ({0} < {1})",
    _ATOMS["le"]: "1.0 * ({0} <= {1})",
    _ATOMS["gt"]: "1.0 * ({0} > {1})",
    _ATOMS["ge"]: "1.0 * ({0} >= {1})",
    _ATOMS["eq"]: "1.0 * ({0} == {1})",
    _ATOMS["ne"]: "1.0 * ({0} != {1})",
}
