"""Approximate inverses of f_yy for conjugate gradients, from the affine predictors of f.

With one data matrix A (samples by features) and C classes the Hessian is ``sum_n G_n (x) a_n a_n'``
plus a diagonal. Replacing every block G_n by their mean gives a Kronecker product, ``mean(G) (x)
A'A``, whose eigenvectors are products of those of two small matrices: it is inverted exactly, with
one eigendecomposition of ``A'A`` in a run (J. Martens and R. Grosse, "Optimizing neural networks
with Kronecker-factored approximate curvature", ICML 2015). Where the diagonal is far from a
multiple of the identity (a penalty per feature), and where A is sparse or wide, the diagonal of
f_yy serves; where there are few samples, the inverse by them
(:mod:`bilevelpy.lowering.hessians.wide_inverse`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.lowering.hessians.wide_inverse import WideInverse, is_wide

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.structured import StructuredHessian

Apply = Callable[[Tensor], Tensor]
Array = np.ndarray[Any, np.dtype[np.float64]]

# Diagonals that vary by more than this factor are scaled away, others are taken for a number.
SPREAD = 30.0
# Features up to which A'A is decomposed, if that costs no more than so many products with A.
WIDEST, PRODUCTS = 1500, 300.0
# Eigenvalues below this fraction of the largest count as this much.
LEAST = 1e-12


class Preconditioning:
    """Makes a preconditioner at a point; what depends on data alone is kept."""

    def __init__(self, hessian: StructuredHessian, m: int) -> None:
        self._hessian, self._m = hessian, m
        self._main = self._largest()
        self._wide = self._widest()
        self._known: tuple[Array, Array] | None = None
        self._index: Array | None = None

    def _largest(self) -> int | None:
        """The predictor whose data make the Kronecker form, if it pays there."""
        curvature = self._hessian.curvature
        best: tuple[int, int] | None = None
        for k, shape in enumerate(curvature.shapes):
            blocks = curvature.blocks(k)
            if shape.batch != 1 or shape.samples == 1:
                continue
            if any(not isinstance(b.coefficient, Tensor) for b in blocks):
                continue
            width = sum(int(b.index.shape[1]) for b in blocks)
            product = 4.0 * shape.samples * width * shape.classes
            if width <= WIDEST and 10.0 * width**3 <= PRODUCTS * product:
                size = shape.samples * width
                best = max(best, (size, k)) if best is not None else (size, k)
        return None if best is None else best[1]

    def _widest(self) -> tuple[int, WideInverse] | None:
        """The predictor with fewer samples than variables, the one with the most data."""
        curvature = self._hessian.curvature
        best: tuple[int, int] | None = None
        for k, shape in enumerate(curvature.shapes):
            if shape.batch != 1 or shape.samples == 1:
                continue
            width = sum(int(b.index.shape[1]) for b in curvature.blocks(k))
            if is_wide(shape.samples, width, shape.classes):
                size = shape.samples * width
                best = max(best, (size, k)) if best is not None else (size, k)
        return None if best is None else (best[1], WideInverse(curvature.blocks(best[1])))

    def at(self, x: Tensor, y: Tensor) -> Apply | None:
        """A preconditioner at a point; None where the identity is as good."""
        curvature, weights = self._hessian.curvature, self._hessian.at(x, y)
        if self._wide is not None:
            found = self._by_samples(*self._wide, weights)
            if found is not None:
                return found
        rest = np.zeros(self._m)
        for k, G in enumerate(weights):
            if k != self._main:
                curvature.add_diagonal(rest, k, curvature.blocks(k), G)
        if self._main is not None:
            found = self._kronecker(weights[self._main], rest)
            if found is not None:
                return found
            curvature.add_diagonal(
                rest, self._main, curvature.blocks(self._main), weights[self._main]
            )
        return jacobi(rest)

    def _by_samples(self, main: int, wide: WideInverse, weights: Sequence[Tensor]) -> Apply | None:
        """The inverse of what one predictor makes of f_yy, with the diagonal of the others."""
        curvature, rest, data = self._hessian.curvature, np.zeros(self._m), np.zeros(self._m)
        for k, G in enumerate(weights):
            curvature.add_diagonal(data if k == main else rest, k, curvature.blocks(k), G)
        found = wide.at(weights[main], rest, data)
        return None if found is None else lambda r: torch.from_numpy(found.solve(r.numpy()))

    def _kronecker(self, G: Tensor, rest: Array) -> Apply | None:
        """The inverse of ``mean(G) (x) A'A + r I``; None where the rest is no multiple of I."""
        assert self._main is not None
        if self._index is None:
            blocks = self._hessian.curvature.blocks(self._main)
            self._index = np.concatenate([b.index[0].numpy() for b in blocks])
        index, others = self._index, rest[self._index]
        outside = np.ones(self._m, dtype=bool)
        outside[index] = False
        low, high = float(others.min()), float(others.max())
        if low < 0 or high > SPREAD * low or bool((rest[outside] <= 0).any()):
            return None
        if self._known is None:
            blocks = self._hessian.curvature.blocks(self._main)
            parts = [b.coefficient[0].numpy() for b in blocks]
            A = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            self._known = np.linalg.eigh(A.T @ A)
        (values, vectors), mean = self._known, G[0].mean(0).numpy()
        low_values, rotation = np.linalg.eigh(0.5 * (mean + mean.T))
        top = np.maximum(values, 0.0)[:, None] * np.maximum(low_values, 0.0)
        scale = top + float(np.sqrt(low * high))
        scale = np.maximum(scale, LEAST * float(scale.max()))
        far = np.where(outside, 1.0 / np.where(outside, rest, 1.0), 0.0)

        def apply(r: Tensor) -> Tensor:
            array = r.numpy()
            turned = (vectors.T @ array[index] @ rotation) / scale
            out = far * array
            out[index] += vectors @ turned @ rotation.T
            return torch.from_numpy(out)

        return apply


def jacobi(diagonal: Array) -> Apply | None:
    """Division by the diagonal, where it varies enough to matter."""
    if not diagonal.size or not float(diagonal.min()) > 0.0:
        return None
    if float(diagonal.max()) <= SPREAD * float(diagonal.min()):
        return None
    inverse = torch.from_numpy(1.0 / diagonal)
    return lambda r: inverse * r
