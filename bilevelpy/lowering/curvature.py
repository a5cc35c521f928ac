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
from typing import TYPE_CHECKING

import torch

from bilevelpy.lowering.differentiate import gradient, gradients

if TYPE_CHECKING:
    from torch import Tensor

    from bilevelpy.analysis.predictors import Predictor

# Entries of the stacked right-hand side of one assembly product (32 MB), or one pair's where that
# is more.
_STACK = 4_000_000
# Seconds of a call on small data, entries a second of a product with a vector, and operations a
# second of matrix products: orders of magnitude of one core, for comparing kinds of work.
OVERHEAD, STREAM, FLOPS = 1.5e-4, 2e9, 2e10


@dataclass(frozen=True, slots=True)
class _Block:
    """A linear term made concrete: ``coefficient`` (B, N, Q) dense, ``index`` (B, Q, C) positions
    in y.
    """

    coefficient: Tensor
    index: Tensor


@dataclass(frozen=True, slots=True)
class _Shape:
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
        For each predictor, the dense coefficient tensor of each of its terms.
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
        coefficients: Sequence[Sequence[Tensor]],
        positions: Mapping[tuple[str, str], Tensor],
        m: int,
    ) -> None:
        self.m = m
        # Least squares has the same blocks everywhere: its part of the Hessian is computed once.
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._kept_twice: set[int] = set()
        self._shapes: list[_Shape] = []
        self._blocks: list[list[_Block]] = []
        for predictor, size, tensors in zip(predictors, sizes, coefficients, strict=True):
            order = (*predictor.batch, *predictor.samples, *predictor.classes)
            batch = prod(size[d] for d in predictor.batch)
            samples = prod(size[d] for d in predictor.samples)
            classes = prod(size[d] for d in predictor.classes)
            self._shapes.append(_Shape(order, batch, samples, classes))
            blocks = []
            for term, tensor in zip(predictor.terms, tensors, strict=True):
                index = positions[term.variable.level, term.variable.name].permute(term.order)
                index = index.reshape(batch, -1, classes)
                blocks.append(_Block(tensor.reshape(batch, samples, index.shape[1]), index))
            self._blocks.append(blocks)

    @property
    def passes(self) -> int:
        """Second-derivative passes in the space of the predictors that one point costs."""
        return sum(shape.classes for shape in self._shapes)

    @property
    def work(self) -> tuple[float, float]:
        """Rough seconds of a gradient and of a dense Hessian with its factor, by their sizes.

        Blocks that were found equal at two points are least squares: they will be kept.
        """
        gradient, hessian = OVERHEAD, OVERHEAD * (2 + self.passes) + self.m**3 / 3 / FLOPS
        for k, (blocks, shape) in enumerate(zip(self._blocks, self._shapes, strict=True)):
            entries = sum(block.coefficient.numel() for block in blocks)
            gradient += 4.0 * entries * shape.classes / STREAM
            if k not in self._kept_twice:
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
        for slope, z, shape in zip(first, predictors, self._shapes, strict=True):
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

    def multiply(self, weights: Sequence[Tensor], v: Tensor) -> Tensor:
        """``f_yy v``."""
        out = torch.zeros_like(v)
        for blocks, G in zip(self._blocks, weights, strict=True):
            moved = blocks[0].coefficient @ v[blocks[0].index]
            for block in blocks[1:]:
                moved = moved + block.coefficient @ v[block.index]
            # One class: the block is a number per sample.
            pushed = (
                G[..., 0] * moved if G.shape[-1] == 1 else (G @ moved.unsqueeze(-1)).squeeze(-1)
            )
            for block in blocks:
                back = block.coefficient.transpose(1, 2) @ pushed
                out.index_add_(0, block.index.reshape(-1), back.reshape(-1))
        return out

    def dense(self, weights: Sequence[Tensor]) -> Tensor:
        """``f_yy`` as a symmetric (m, m) matrix."""
        H = weights[0].new_zeros((self.m, self.m))
        for k, (blocks, G) in enumerate(zip(self._blocks, weights, strict=True)):
            if _is_diagonal(blocks, G):
                for a, left in enumerate(blocks):
                    for right in blocks[a:]:
                        _add_diagonal(H, left, right, G)
                continue
            if k in self._kept and torch.equal(self._kept[k][0], G):
                self._kept_twice.add(k)
            else:
                part = torch.zeros_like(H)
                for a, left in enumerate(blocks):
                    for right in blocks[a:]:
                        _add_pair(part, left, right, G, symmetric=left is right)
                self._kept[k] = (G, part)
            H += self._kept[k][1]
        return H


def _is_diagonal(blocks: Sequence[_Block], G: Tensor) -> bool:
    """Whether a predictor is elementwise in its variables."""
    return G.shape[-1] == 1 and all(block.coefficient.shape[1:] == (1, 1) for block in blocks)


def _add_diagonal(H: Tensor, left: _Block, right: _Block, G: Tensor) -> None:
    """Add ``left' G right`` (and its transpose) of an elementwise predictor."""
    values = (left.coefficient * G[..., 0] * right.coefficient).reshape(-1)
    H[left.index.reshape(-1), right.index.reshape(-1)] += values
    if left is not right:
        H[right.index.reshape(-1), left.index.reshape(-1)] += values


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
