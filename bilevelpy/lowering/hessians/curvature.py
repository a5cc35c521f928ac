"""Hessians of functions of affine predictors: products and assembly without differentiating through
the data.

With predictors ``z_k = J_k y + const`` (``analysis.forms.predictors``) the lower Hessian is
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
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevelpy.lowering.hessians.assembly import (
    DENSE,
    Block,
    Diagonal,
    SparseStack,
    Stack,
    add_pair,
    gram_work,
)
from bilevelpy.lowering.programs.differentiate import gradient, gradients

if TYPE_CHECKING:
    from bilevelpy.analysis.forms.predictors import Predictor

# Seconds of a call on small data, entries a second of a product with a vector, and operations a
# second of matrix products: orders of magnitude of one core, for comparing kinds of work.
OVERHEAD, STREAM, FLOPS = 5e-5, 4e9, DENSE
# Products with a sparse matrix take so much longer for an entry than those with a dense one.
SCATTERED = 4.0
# Calls that a second-derivative pass takes, measured with 12 of them on 50 variables.
PASS = 0.6


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
        From :func:`~bilevelpy.analysis.forms.predictors.find_predictors`.
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
        self._ways: dict[int, Diagonal | Stack | SparseStack | None] = {}
        self.shapes: list[Shape] = []
        self._blocks: list[list[Block]] = []
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
                blocks.append(Block(tensor, index))
            self._blocks.append(blocks)
        # Of predictors with sparse data, the seconds of their products with themselves.
        self._sparse = {
            k: sum(gram_work(A) for A in (b.coefficient for b in blocks) if sp.issparse(A))
            for k, blocks in enumerate(self._blocks)
            if any(sp.issparse(b.coefficient) for b in blocks)
        }

    @property
    def passes(self) -> int:
        """Second-derivative passes in the space of the predictors that one point costs."""
        return sum(shape.classes for shape in self.shapes)

    def work(self, constant: Sequence[bool], *, factor: bool = True) -> tuple[float, float]:
        """Rough seconds of a gradient and of a dense Hessian, with its ``factor`` unless said
        otherwise, by their sizes.

        Parts that are ``constant``, or were found equal at two points, are kept.
        """
        gradient, hessian = OVERHEAD, OVERHEAD * (1 + PASS * self.passes)
        if factor:
            hessian += self.m**3 / 3 / FLOPS
        for k, (blocks, shape) in enumerate(zip(self._blocks, self.shapes, strict=True)):
            entries = sum(_entries(block.coefficient) for block in blocks)
            # All classes take the data once, as fast as it is read or as products are computed.
            gradient += 4.0 * entries * max(1.0 / STREAM, shape.classes / FLOPS)
            if k not in self._kept_twice and not (constant[k] and k in self._kept):
                columns = sum(block.index.shape[1] for block in blocks)
                pairs = shape.classes * (shape.classes + 1) / 2
                if k in self._sparse:
                    whole = 2.0 * shape.samples * columns**2 / FLOPS
                    hessian += pairs * min(whole, self._sparse[k])
                else:
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
            if isinstance(way, Diagonal):
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
            if isinstance(way, Stack | SparseStack):
                way.add(part, G)
            else:
                whole = torch.from_numpy(part)
                for a, left in enumerate(blocks):
                    for right in blocks[a:]:
                        add_pair(whole, left, right, G, symmetric=left is right)
            if not moves:
                self._kept[k] = (G, part)
                H += part
        return torch.from_numpy(H)

    def elementwise(self) -> list[int]:
        """The predictors whose part of the matrix, once assembled, takes one number per entry."""
        return [k for k, way in self._ways.items() if isinstance(way, Diagonal)]

    def moved(self, H: Tensor, k: int, change: Tensor) -> None:
        """Add what a ``change`` of the weights of an elementwise predictor makes of H, in place."""
        way = self._ways[k]
        assert isinstance(way, Diagonal)
        way.add(H.numpy(), change)

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

    def _way(self, blocks: Sequence[Block], G: Tensor) -> Diagonal | Stack | SparseStack | None:
        """How the part of a predictor is assembled; None: pair by pair."""
        if any(sp.issparse(block.coefficient) for block in blocks):
            return SparseStack.of(blocks, G.shape[1])
        if G.shape[-1] == 1 and all(block.coefficient.shape[1:] == (1, 1) for block in blocks):
            return Diagonal.of(blocks, self.m)
        return Stack.of(blocks)

    def diagonal(self, weights: Sequence[Tensor]) -> Tensor:
        """The diagonal of ``f_yy``, without its matrix: one pass over the data."""
        out = np.zeros(self.m)
        for k, (blocks, G) in enumerate(zip(self._blocks, weights, strict=True)):
            self.add_diagonal(out, k, blocks, G)
        return torch.from_numpy(out)

    def add_diagonal(self, out: np.ndarray, k: int, blocks: Sequence[Block], G: Tensor) -> None:
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
        """Whether a coefficient is sparse."""
        return bool(self._sparse)

    def blocks(self, k: int) -> Sequence[Block]:
        """The linear terms of predictor k."""
        return self._blocks[k]


def _entries(coefficient: Any) -> float:
    """Entries that a product takes, as many as a dense matrix would have for its time."""
    if isinstance(coefficient, Tensor):
        return float(coefficient.numel())
    return SCATTERED * float(coefficient.nnz)


def _columns(coefficient: Any, kept: np.ndarray) -> np.ndarray:
    """Some columns of a linear term of one batch, dense."""
    if isinstance(coefficient, Tensor):
        return np.asarray(coefficient[0].numpy()[:, kept])
    return np.asarray(coefficient[:, kept].toarray())


def _square(coefficient: Any) -> Any:
    return coefficient.square() if isinstance(coefficient, Tensor) else coefficient.power(2)
