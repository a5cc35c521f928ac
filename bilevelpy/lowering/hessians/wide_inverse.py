"""Inverses of f_yy by the samples, where there are fewer of them than of features.

With one data matrix A (samples by features), C classes and a diagonal beside it,
``H = D + sum_n G_n (x) a_n a_n'``, and with ``G_n = S_n S_n`` and ``B`` the rows ``S_n (x) a_n'``::

    H^-1 = D^-1 - D^-1 B' M^-1 B D^-1,   M = I + B D^-1 B'

(M. A. Woodbury, "Inverting modified matrices", Princeton, 1950). M has as many rows as there are
samples times classes. The answer is exact where nothing else is in H and D is positive; a variable
without a penalty gets a small one, which conjugate gradients correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dpotrs

from bilevelpy.lowering.hessians.curvature import FLOPS, OVERHEAD, STREAM

if TYPE_CHECKING:
    from torch import Tensor

    from bilevelpy.lowering.hessians.assembly import Block

Array = np.ndarray[Any, np.dtype[np.float64]]

# Rows of M up to which it is factorised, and how many times as many features as samples there
# must be.
MOST, WIDER = 1500, 2
# The least penalty, as a fraction of what the data have there.
LEAST = 1e-6
# Products that a solve with a fresh inverse takes anyway.
FRESH = 2
# Diagonals that differ by less than this, relatively, from a multiple of one another are one.
SAME = 1e-10


def is_wide(samples: int, width: int, classes: int) -> bool:
    """Whether the form pays for a predictor."""
    return samples * classes <= MOST and WIDER * samples <= width


class WideInverse:
    """Makes the inverse at a point and keeps it until the products that its age has cost are worth
    a new one.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        parts = [b.coefficient for b in blocks]
        self._index = np.concatenate([b.index[0].numpy() for b in blocks])  # (Q, C)
        self._A = _joined(parts)
        # A D^-1 A' of the last diagonal, by class: multiples of it are multiples of this.
        self._gram: tuple[Array, Array] | None = None
        self._kept: _Factor | None = None
        self._rent = 0.0
        self._price = 0.0

    def at(self, G: Tensor, rest: Array, data: Array) -> _Factor | None:
        """The inverse, for a diagonal ``rest`` of what else is in f_yy and the diagonal ``data`` of
        the predictor's part; None where there is none.
        """
        if self._kept is not None:
            self._rent += max(0, self._kept.calls - FRESH)
            self._kept.calls = 0
            if self._rent < self._price and not self._is_cheap(rest):
                return self._kept
        D = np.maximum(rest, LEAST * data)
        if not float(D.min(initial=np.inf)) > 0.0 or not np.isfinite(D).all():
            return None
        self._kept = self._factorised(_root(G[0].numpy()), D)
        self._rent = 0.0
        return self._kept

    def _is_cheap(self, rest: Array) -> bool:
        """Whether a new inverse costs no pass over the data with all pairs of samples."""
        return self._gram is not None and _multiple(rest[self._index], self._gram[0]) is not None

    def _factorised(self, S: Array, D: Array) -> _Factor | None:
        r, C = S.shape[:2]
        K = self._products(D[self._index])
        if C == 1:
            s = S[:, 0, 0]
            M = K[0] * s[:, None] * s
        else:
            M = np.einsum("nce,enm,mfe->ncmf", S, K, S, optimize=True).reshape(r * C, r * C)
        M[np.diag_indices(r * C)] += 1.0
        L, failed = dpotrf(M, lower=1, overwrite_a=1)
        if failed:
            return None
        return _Factor(self._A, self._index, S, 1.0 / D, L)

    def _products(self, D: Array) -> Array:
        """``A D_c^-1 A'`` for each class c; notes what all costs in iterations of conjugate
        gradients.
        """
        A, C = self._A, D.shape[1]
        r = A.shape[0]
        known = self._gram
        factor = None if known is None else _multiple(D, known[0])
        if known is not None and factor is not None:
            return known[1] / factor
        found = np.empty((C, r, r))
        for c in range(C):
            if c and np.array_equal(D[:, c], D[:, 0]):
                found[c] = found[0]
                continue
            if isinstance(A, np.ndarray):
                half = dsyrk(1.0, (A / np.sqrt(D[:, c])).T, trans=1)
                found[c] = half + np.triu(half, 1).T
            else:
                found[c] = ((A / D[:, c]) @ A.T).toarray()
        self._gram = (D, found)
        entries = float(A.size if isinstance(A, np.ndarray) else A.nnz)
        own = ((r * C) ** 3 / 3 + C * entries * r) / FLOPS
        # An iteration is a product with f_yy and one with this inverse, each two with A.
        product = 8.0 * entries * max(1.0 / STREAM, C / FLOPS) + (r * C) ** 2 / STREAM
        self._price = own / (2.0 * OVERHEAD + product)
        return found


class _Factor:
    """The inverse at one point, which counts how often it is asked."""

    __slots__ = ("A", "D", "L", "S", "calls", "index")

    def __init__(self, A: Any, index: Array, S: Array, D: Array, L: Array) -> None:
        self.A, self.index, self.S, self.D, self.L = A, index, S, D, L
        self.calls = 0

    def solve(self, v: Array) -> Array:
        """``H^-1 v``."""
        self.calls += 1
        S, C = self.S, self.S.shape[1]
        out = self.D * v
        z = self.A @ out[self.index]  # (r, C)
        z = S[:, :, 0] * z if C == 1 else np.einsum("nce,ne->nc", S, z)
        z = dpotrs(self.L, z.reshape(-1), lower=1)[0].reshape(-1, C)
        z = S[:, :, 0] * z if C == 1 else np.einsum("nce,nc->ne", S, z)
        out[self.index] -= self.D[self.index] * (self.A.T @ z)
        return out


def _root(G: Array) -> Array:
    """The symmetric square roots of blocks (r, C, C), negative parts left out."""
    if G.shape[-1] == 1:
        return np.sqrt(np.maximum(G, 0.0))
    values, vectors = np.linalg.eigh(G)
    scaled = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    root: Array = scaled @ vectors.transpose(0, 2, 1)
    return root


def _joined(parts: Sequence[Any]) -> Any:
    """The linear terms side by side; dense where one of them is."""
    if any(hasattr(p, "numpy") for p in parts):
        dense = [p[0].numpy() if hasattr(p, "numpy") else p.toarray() for p in parts]
        return dense[0] if len(dense) == 1 else np.concatenate(dense, axis=1)
    if len(parts) == 1:
        return parts[0]
    import scipy.sparse as sp

    return sp.hstack(parts, format="csr")


def _multiple(D: Array, other: Array) -> float | None:
    """The number by which ``other`` is to be multiplied to be D."""
    factor = float(D.flat[0] / other.flat[0])
    near = np.abs(D - factor * other).max() <= SAME * factor * float(other.max())
    return factor if near and factor > 0.0 else None
