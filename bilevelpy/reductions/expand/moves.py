"""Where entries of a tensor go: positions behind nodes that move, sum or spread them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.reductions.expand.expander import Expander

Array = np.ndarray[Any, np.dtype[Any]]


def source_positions(run: Expander, node: ir.Expr) -> Array | None:
    """For nodes that only move entries: the operand's position behind every entry."""
    shape = run.interpreter.shape(node)
    if isinstance(node, ir.Align):
        inner = run.interpreter.shape(node.operand)
        grid = np.indices(shape, sparse=True)
        position: Any = np.zeros((1,) * len(shape), dtype=np.int64)
        for d, s in enumerate(node.source):
            if s is not None:
                position = position + grid[d] * int(np.prod(inner[s + 1 :], dtype=np.int64))
        return np.broadcast_to(position, shape).reshape(-1)
    if isinstance(node, ir.Gather):
        sizes = run.interpreter.shape(node.operand)
        given = [d for d, i in enumerate(node.index) if i is not None]
        kept = [d for d, i in enumerate(node.index) if i is None]
        index = tuple(
            run.positions(i, sizes[d], i) for d, i in enumerate(node.index) if i is not None
        )
        table = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(sizes)
        return np.asarray(np.transpose(table, (*given, *kept))[index]).reshape(-1)
    return None


def target_positions(run: Expander, node: ir.Expr) -> Array:
    """For sums and diagonals: the entry of the node that each entry of the operand goes to."""
    if isinstance(node, ir.Reduce):
        shape = run.interpreter.shape(node.operand)
        kept = [d for d in range(len(shape)) if d not in node.dims]
        sizes = [shape[d] for d in kept]
        grid = np.indices(shape, sparse=True)
        position: Any = np.zeros((1,) * len(shape), dtype=np.int64)
        for k, d in enumerate(kept):
            position = position + grid[d] * int(np.prod(sizes[k + 1 :], dtype=np.int64))
        return np.broadcast_to(position, shape).reshape(-1)
    if isinstance(node, ir.ScatterSum):
        shape = run.interpreter.shape(node)
        count = len(node.index)
        index = [run.positions(i, shape[d], i) for d, i in enumerate(node.index)]
        front = np.ravel_multi_index(index, shape[:count]) if count else np.zeros(0, dtype=np.int64)
        rest = int(np.prod(shape[count:], dtype=np.int64))
        return np.asarray(front[:, None] * rest + np.arange(rest)[None, :]).reshape(-1)
    assert isinstance(node, ir.Diag)
    shape = run.interpreter.shape(node.operand)
    last = shape[-1]
    entry = np.arange(int(np.prod(shape, dtype=np.int64)))
    return np.asarray((entry // last) * last * last + (entry % last) * (last + 1))
