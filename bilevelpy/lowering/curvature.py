"""Hessians of functions of affine predictors: products and assembly without differentiating through
the data.

With predictors ``z_k = J_k y + const`` (:mod:`bilevelpy.analysis.predictors`) the lower Hessian is
``sum_k J_k' G_k J_k``. Each ``G_k`` is block-diagonal over samples with blocks as large as the
number of classes; it costs one second derivative per class in the space of the predictors. A
product then takes two products with the data, the dense Hessian one matrix product per pair of
classes: what Gauss-Newton code written by hand would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.lowering.differentiate import gradient, gradients

if TYPE_CHECKING:
    from bilevelpy.analysis.predictors import Predictor

# Entries of the stacked right-hand side of one assembly product (32 MB), or one pair's where that
# is more.
_STACK = 4_000_000
# Seconds of a call on small data, entries a second of a product with a vector, and operations a
# second of matrix products: orders of magnitude of one core, for comparing kinds of work.
OVERHEAD, STREAM, FLOPS = 5e-5, 2e9, 2e10


@dataclass(frozen=True, slots=True)
class _Block:
    """A linear term made concrete: ``coefficient`` (B, N, Q) dense, or a sparse (N, Q);
    ``index`` (B, Q, C) positions in y.
    """

    coefficient: Any
    index: Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """How a predictor's tensor is brought to (B, N, C)."""

    permutation: tuple[int, ...]
    batch: int
    samples: int
    classes: int


class Curvature:
    """The structured Hessian of one bound objective.

    Parameters
    ----------
    predictors
        From :func:`~bilevelpy.analysis.predictors.find_predictors`.
    sizes
        The tensor shape of each predictor, in the order of ``predictors``.
    coefficients
        For each predictor, the coefficient of each of its terms: a tensor, or a sparse matrix.
    positions
        (level, name) of a variable to the tensor of its entries' positions in y, in the variable's
        shape.
    m
        Length of y.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        sizes: Sequence[tuple[int, ...]],
        coefficients: Sequence[Sequence[Any]],
        positions: Mapping[tuple[str, str], Tensor],
        m: int,
    ) -> None:
        self.m = m
        # Least squares has the same blocks everywhere: its part of the Hessian is computed once.
        self._kept: dict[int, tuple[Tensor, np.ndarray]] = {}
        self._kept_twice: set[int] = set()
        self._squares: dict[int, list[Any]] = {}
        self._ways: dict[int, _Diagonal | _Stack | None] = {}
        self.shapes: list[Shape] = []
        self._blocks: list[list[_Block]] = []
        for predictor, size, tensors in zip(predictors, sizes, coefficients, strict=True):
            order = (*predictor.batch, *predictor.samples, *predictor.classes)
            batch = prod(size[d] for d in predictor.batch)
            samples = prod(size[d] for d in predictor.samples)
            classes = prod(size[d] for d in predictor.classes)
            self.shapes.append(Shape(order, batch, samples, classes))
            blocks = []
            for term, tensor in zip(predictor.terms, tensors, strict=True):
                index = positions[term.variable.level, term.variable.name].permute(term.order)
                index = index.reshape(batch, -1, classes)
                if isinstance(tensor, Tensor):
                    tensor = tensor.reshape(batch, samples, index.shape[1])
                blocks.append(_Block(tensor, index))
            self._blocks.append(blocks)

    @property
    def passes(self) -> int:
        """Second-derivative passes in the space of the predictors that one point costs."""
        return sum(shape.classes for shape in self.shapes)

    def work(self, constant: Sequence[bool], *, factor: bool = True) -> tuple[float, float]:
        """Rough seconds of a gradient and of a dense Hessian, with its ``factor`` unless said
        otherwise, by their sizes.

        Parts that are ``constant``, or were found equal at two points, are kept.
        """
        gradient, hessian = OVERHEAD, OVERHEAD * (1 + 0.2 * self.passes)
        if factor:
            hessian += self.m**3 / 3 / FLOPS
        for k, (blocks, shape) in enumerate(zip(self._blocks, self.shapes, strict=True)):
            entries = sum(_entries(block.coefficient) for block in blocks)
            gradient += 4.0 * entries * shape.classes / STREAM
            if k not in self._kept_twice and not (constant[k] and k in self._kept):
                columns = sum(block.coefficient.shape[2] for block in blocks)
                pairs = shape.classes * (shape.classes + 1) / 2
                hessian += 2.0 * entries * columns * pairs / FLOPS
        return gradient, hessian

    def weights(self, value: Tensor, predictors: Sequence[Tensor]) -> list[Tensor]:
        """The blocks ``G_k`` of shape (B, N, C, C) at a point.

        ``value`` is f as a tensor with its graph, ``predictors`` are the tensors ``z_k`` in that
        graph.
        """
        first = gradient(value, predictors, create=True)
        result = []
        for slope, z, shape in zip(first, predictors, self.shapes, strict=True):
            blocks = z.new_zeros((shape.batch, shape.samples, shape.classes, shape.classes))
            inverse = [shape.permutation.index(d) for d in range(z.dim())]
            full = [z.shape[d] for d in shape.permutation]
            for c in range(shape.classes):
                direction = z.new_zeros((shape.batch, shape.samples, shape.classes))
                direction[:, :, c] = 1.0
                (second,) = gradients([slope], [z], [direction.reshape(full).permute(inverse)])
                if second is not None:
                    moved = second.permute(shape.permutation)
                    blocks[:, :, :, c] = moved.reshape(shape.batch, shape.samples, shape.classes)
            result.append(blocks.detach())
        return result

    def dense(self, weights: Sequence[Tensor], constant: Sequence[bool] = ()) -> Tensor:
        """``f_yy`` as a symmetric (m, m) matrix.

        ``constant`` says of each predictor that its blocks are the same everywhere: least squares.
        Its part is computed once, and so is any part whose blocks have not changed.
        """
        H = np.zeros((self.m, self.m))
        for k, (blocks, G) in enumerate(zip(self._blocks, weights, strict=True)):
            if k not in self._ways:
                self._ways[k] = self._way(blocks, G)
            way = self._ways[k]
            if isinstance(way, _Diagonal):
                way.add(H, G)
                continue
            known = self._kept.get(k)
            if known is not None and (
                known[0] is G or (constant and constant[k]) or torch.equal(known[0], G)
            ):
                self._kept_twice.add(k)
                H += known[1]
                continue
            # Parts that are sure to move are added where they belong, others are kept beside.
            moves = bool(constant) and not constant[k]
            part = H if moves else np.zeros_like(H)
            if isinstance(way, _Stack):
                way.add(part, G)
            else:
                whole = torch.from_numpy(part)
                for a, left in enumerate(blocks):
                    for right in blocks[a:]:
                        _add_pair(whole, left, right, G, symmetric=left is right)
            if not moves:
                self._kept[k] = (G, part)
                H += part
        return torch.from_numpy(H)

    def restricted(self, weights: Sequence[Tensor], index: np.ndarray) -> Tensor | None:
        """Rows and columns ``index`` of ``f_yy`` without the rest; None where predictors have
        several classes or batches.
        """
        place = np.full(self.m, -1)
        place[index] = np.arange(index.size)
        H = np.zeros((index.size, index.size))
        for blocks, G in zip(self._blocks, weights, strict=True):
            g = G.numpy().reshape(-1)
            own = [place[b.index.numpy().reshape(-1)] for b in blocks]
            if G.shape[-1] == 1 and len(blocks) == 1 and blocks[0].coefficient.shape[1:] == (1, 1):
                kept = own[0] >= 0
                square = blocks[0].coefficient.numpy().reshape(-1) ** 2
                np.add.at(H, (own[0][kept], own[0][kept]), (square * g)[kept])
            elif G.shape[0] == 1 and G.shape[-1] == 1:
                columns = [
                    _columns(b.coefficient, o >= 0) for b, o in zip(blocks, own, strict=True)
                ]
                A = np.concatenate(columns, axis=1)
                where = np.concatenate([o[o >= 0] for o in own])
                np.add.at(H, np.ix_(where, where), A.T @ (g[:, None] * A))
            else:
                return None
        return torch.from_numpy(H)

    def _way(self, blocks: Sequence[_Block], G: Tensor) -> _Diagonal | _Stack | None:
        """How the part of a predictor is assembled; None: pair by pair."""
        if G.shape[-1] == 1 and all(block.coefficient.shape[1:] == (1, 1) for block in blocks):
            return _Diagonal.of(blocks, self.m)
        return _Stack.of(blocks) if G.shape[-1] == 1 else None

    def diagonal(self, weights: Sequence[Tensor]) -> Tensor:
        """The diagonal of ``f_yy``, without its matrix: one pass over the data."""
        out = np.zeros(self.m)
        for k, (blocks, G) in enumerate(zip(self._blocks, weights, strict=True)):
            self.add_diagonal(out, k, blocks, G)
        return torch.from_numpy(out)

    def add_diagonal(self, out: np.ndarray, k: int, blocks: Sequence[_Block], G: Tensor) -> None:
        """Add the part of one predictor to the diagonal."""
        own = G.diagonal(dim1=-2, dim2=-1)
        if k not in self._squares:
            self._squares[k] = [_square(block.coefficient) for block in blocks]
        for block, squares in zip(blocks, self._squares[k], strict=True):
            if isinstance(squares, Tensor):
                part = torch.einsum("bnq,bnc->bqc", squares, own).numpy()
            else:
                part = squares.T @ own[0].numpy()
            np.add.at(out, block.index.numpy().reshape(-1), part.reshape(-1))

    @property
    def is_sparse(self) -> bool:
        """Whether a coefficient is sparse: there is a diagonal then, and no dense matrix."""
        return any(not isinstance(b.coefficient, Tensor) for bs in self._blocks for b in bs)

    def blocks(self, k: int) -> Sequence[_Block]:
        """The linear terms of predictor k."""
        return self._blocks[k]


def _entries(coefficient: Any) -> int:
    return int(coefficient.numel() if isinstance(coefficient, Tensor) else coefficient.nnz)


def _columns(coefficient: Any, kept: np.ndarray) -> np.ndarray:
    """Some columns of a linear term of one batch, dense."""
    if isinstance(coefficient, Tensor):
        return np.asarray(coefficient[0].numpy()[:, kept])
    return np.asarray(coefficient[:, kept].toarray())


def _square(coefficient: Any) -> Any:
    return coefficient.square() if isinstance(coefficient, Tensor) else coefficient.power(2)


@dataclass(frozen=True, slots=True)
class _Diagonal:
    """A predictor that is elementwise in its variables: ``places`` of H's entries in memory, with
    the ``products`` of coefficients that the weights are multiplied by (None: all are 1).
    """

    places: slice | np.ndarray
    products: np.ndarray | None
    repeats: int

    @classmethod
    def of(cls, blocks: Sequence[_Block], m: int) -> _Diagonal:
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
class _Stack:
    """All blocks of a predictor of one class side by side: ``columns`` (N, Q) of the positions
    ``where``.
    """

    columns: np.ndarray
    where: slice | np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[_Block]) -> _Stack | None:
        """Blocks joined where that costs little: one product then does all pairs."""
        first = blocks[0]
        if first.coefficient.shape[0] != 1 or first.index.shape[2] != 1:
            return None
        if len(blocks) > 1 and sum(b.coefficient.numel() for b in blocks) > _STACK:
            return None
        index = np.concatenate([b.index.reshape(-1).numpy() for b in blocks])
        if len(np.unique(index)) < index.size:
            return None
        low = int(index[0]) if index.size else 0
        ordered = bool((index == np.arange(low, low + index.size)).all())
        parts = [b.coefficient[0].numpy() for b in blocks]
        columns = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return cls(columns, slice(low, low + index.size) if ordered else index)

    def add(self, H: np.ndarray, G: Tensor) -> None:
        """Add ``A' diag(G) A``; where no weight is negative as ``Z' Z``, half the work."""
        weights, A = G.numpy().reshape(-1, 1), self.columns
        rows, columns = A.shape
        height = max(1, _STACK // max(columns, 1))
        root = np.sqrt(weights) if weights.size and weights.min() >= 0 else None
        total: Any = 0.0
        for low in range(0, rows, height):
            part = A[low : low + height]
            if root is not None:
                scaled = root[low : low + height] * part
                total = total + scaled.T @ scaled
            else:
                total = total + part.T @ (weights[low : low + height] * part)
        where = self.where
        if isinstance(where, slice):
            H[where, where] += total
        else:
            H[np.ix_(where, where)] += total


def _add_pair(H: Tensor, left: _Block, right: _Block, G: Tensor, *, symmetric: bool) -> None:
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
