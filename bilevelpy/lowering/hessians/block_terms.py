"""Hessians of lower levels in independent blocks from their terms: one small matrix a block.

The second derivative of f along a direction is a sum of terms (:mod:`terms`). Where the variables
fall into blocks, each term has its entries within them: the matrices (B, q, q) are put together by
a few products of factors, of which those that no variable moves are computed once. Fits of many
outputs with a penalty for each feature take O(m) at another point, where unit vectors took q passes
over the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bilevelpy.lowering.hessians.assembled import BLOCKS, Array, AssembledHessian
from bilevelpy.lowering.hessians.curvature import FLOPS, OVERHEAD, STREAM
from bilevelpy.lowering.hessians.expansion import entries
from bilevelpy.lowering.hessians.terms import Block
from bilevelpy.lowering.programs.memory import widest
from bilevelpy.lowering.programs.slots import sparse_node

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr
    from bilevelpy.lowering.programs.compiled import Programs


# So many times as many entries as f reads, or the blocks have, may be on the way: still less work
# than a product for each variable of a block.
WIDER = 8


class BlockHessian(AssembledHessian):
    """The blocks of f_yy, (B, q, q), as the sums of their terms; ``targets`` are the places of each
    term's coefficients among their entries.
    """

    def __init__(
        self,
        oracle: Programs,
        blocks: list[Block],
        roots: tuple[Expr, ...],
        size: tuple[int, int],
        targets: list[Array],
    ) -> None:
        super().__init__(oracle, blocks, roots)
        self._size, self._targets = size, targets
        count, q = size
        moving = sum(widest(oracle.bound, (roots[k],))[0] for k in self._moving)
        width = max(widest(oracle.bound, (oracle.f_expr,))[0], entries(oracle))
        made = (moving + 2.0 * count * q**2) / STREAM + count * q**3 / 3 / FLOPS
        # Products of factors that move are about as much work as a product with the data by each
        # of the variables of a block, at the speed of matrix products.
        if any(not blocks[k].is_diagonal for k in self._moving):
            made += 2.0 * q * width / FLOPS
        self.work = OVERHEAD + 4.0 * width / STREAM, OVERHEAD * (1 + len(self._moving)) + made

    def _shape(self) -> tuple[int, ...]:
        count, q = self._size
        return count, q, q

    def _put(self, H: Array, k: int, value: Array) -> None:
        H.reshape(-1)[self._targets[k]] += value.reshape(-1)


def block_hessian(
    oracle: Programs, index: torch.Tensor, blocks: list[Block]
) -> BlockHessian | None:
    """The blocks at the positions ``index`` (B, q); None where there are many terms, one has
    entries between blocks, data are sparse or elsewhere, or an array on the way is larger than
    several times the data and the blocks.
    """
    if oracle.device.type != "cpu" or oracle.dtype is not torch.float64:
        return None
    if not 0 < len(blocks) <= BLOCKS:
        return None
    if any(sparse_node(node, oracle.tensors.sparse) for b in blocks for node, _ in b.factors):
        return None
    count, q = index.shape
    roots = tuple(block.product(oracle.bound.program.builder) for block in blocks)
    own = max(widest(oracle.bound, (oracle.f_expr,))[0], entries(oracle))
    sizes, places = oracle.bound.data.sizes, oracle.lower.positions()
    if widest(oracle.bound, roots)[0] > WIDER * max(own, count * q * q):
        return None
    owner, place = np.empty(oracle.m, dtype=np.int64), np.empty(oracle.m, dtype=np.int64)
    owner[index.numpy()] = np.arange(count)[:, None]
    place[index.numpy()] = np.arange(q)
    targets = []
    for block in blocks:
        at, to = block.entries(places, [sizes[block.axis_of[s]] for s in block.output])
        if not np.array_equal(owner[at], owner[to]):
            return None
        targets.append(((owner[at] * q + place[at]) * q + place[to]).reshape(-1))
    return BlockHessian(oracle, blocks, roots, (count, q), targets)
