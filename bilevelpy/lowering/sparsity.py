"""Which entries of f_yy can differ from zero, read off the second derivative and the data.

``f_yy v`` is linear in v, so every node on the way from v to it is a sparse matrix over the entries
of v; the patterns of these matrices are followed from v upwards. Zeros of data count as zeros,
those of the point do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir import expr as ir
from bilevelpy.ir.build import Builder
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Data
from bilevelpy.ir.walk import postorder

Array = np.ndarray[Any, np.dtype[Any]]
Labels = tuple[int, ...]

# Entries that one pattern may have, per entry of v: what has more gains nothing by its zeros.
WIDEST = 200
# Functions that are linear in the operands named by position.
_LINEAR = {"add": None, "neg": None, "select": (1, 2)}


class TooDense(Exception):
    """A pattern has more entries than is worth following, or a node has no rule."""


def pattern(
    builder: Builder,
    data: Data,
    roots: Sequence[Expr],
    along: Sequence[ir.VarRef],
) -> sp.csr_array | None:
    """The pattern (m, m) of linear ``roots`` by the directions ``along``, entries in the order of
    both; None where it has many entries.
    """
    sizes = [prod(data.sizes[a] for a in v.axes) for v in along]
    follow = _Follow(builder, data, dict(zip(along, _starts(sizes), strict=True)), sum(sizes))
    try:
        rows = [follow.of(root) for root in roots]
    except TooDense:
        return None
    found = sp.csr_array(sp.vstack(rows, format="csr")) if rows else None
    return None if found is None else _ones(found)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [int(k) for k in np.concatenate([[0], np.cumsum(sizes)[:-1]])]


def _ones(matrix: Any) -> sp.csr_array:
    found = sp.csr_array(matrix)
    found.sum_duplicates()
    found.data = np.ones(found.nnz, dtype=np.float32)
    return found


class _Follow:
    """Patterns of nodes: rows are their entries (C order), columns those of v."""

    def __init__(
        self, builder: Builder, data: Data, starts: dict[ir.VarRef, int], width: int
    ) -> None:
        self.builder, self.data, self.starts, self.width = builder, data, starts, width
        self.limit = WIDEST * width
        self._run = Interpreter(data)
        self._known: dict[Expr, sp.csr_array | None] = {}

    def of(self, root: Expr) -> sp.csr_array:
        """The pattern of a root."""
        for node in postorder(root):
            if node not in self._known:
                self._known[node] = self._meaning(node)
        found = self._known[root]
        return self._zero(root) if found is None else found

    def shape(self, node: Expr) -> tuple[int, ...]:
        """Sizes of a node's axes."""
        return tuple(self.data.sizes[a] for a in node.axes)

    def _zero(self, node: Expr) -> sp.csr_array:
        return sp.csr_array((self._length(node), self.width), dtype=np.float32)

    def _length(self, node: Expr) -> int:
        length = prod(self.shape(node))
        if length > self.limit:
            raise TooDense
        return length

    def _meaning(self, node: Expr) -> sp.csr_array | None:
        """The pattern of a node; None where it does not depend on v."""
        if isinstance(node, ir.VarRef):
            return self._variable(node)
        inner = [self._known[c] for c in node.children]
        if all(p is None for p in inner):
            return None
        rule = _RULES.get(type(node))
        if rule is None:
            raise TooDense
        found = rule(self, node, inner)
        if found.nnz > self.limit:
            raise TooDense
        return found

    def _variable(self, node: ir.VarRef) -> sp.csr_array | None:
        start = self.starts.get(node)
        if start is None:
            return None
        length = self._length(node)
        columns = np.arange(start, start + length)
        ones = np.ones(length, dtype=np.float32)
        return sp.csr_array((ones, (np.arange(length), columns)), shape=(length, self.width))

    def moved(self, pattern: sp.csr_array, rows: Array, columns: Array, length: int) -> Any:
        """Row ``rows[k]`` of the result takes in row ``columns[k]`` of a pattern."""
        counts = np.diff(pattern.indptr)
        if int(counts[columns].sum()) > self.limit:
            raise TooDense
        ones = np.ones(rows.size, dtype=np.float32)
        take = sp.csr_array((ones, (rows, columns)), shape=(length, pattern.shape[0]))
        return _ones(take @ pattern)


def _apply(follow: _Follow, node: ir.Apply, inner: list[sp.csr_array | None]) -> sp.csr_array:
    if node.function not in _LINEAR:
        raise TooDense
    linear = _LINEAR[node.function]
    length = follow._length(node)
    total = follow._zero(node)
    for k, (operand, part) in enumerate(zip(node.operands, inner, strict=True)):
        if part is None:
            continue
        if linear is not None and k not in linear:
            raise TooDense
        if operand.rank < node.rank:  # a number, repeated
            rows = np.arange(length)
            part = follow.moved(part, rows, np.zeros_like(rows), length)
        total = total + part
    return _ones(total)


def _einsum(follow: _Follow, node: ir.Einsum, inner: list[sp.csr_array | None]) -> sp.csr_array:
    moving = [k for k, p in enumerate(inner) if p is not None]
    if len(moving) != 1:
        raise TooDense
    (k,) = moving
    part = inner[k]
    assert part is not None
    operand, own = node.operands[k], node.subscripts[k]
    sizes: dict[int, int] = {}
    for o, subscript in zip(node.operands, node.subscripts, strict=True):
        sizes |= dict(zip(subscript, follow.shape(o), strict=True))
    fixed = [
        (o, s)
        for j, (o, s) in enumerate(zip(node.operands, node.subscripts, strict=True))
        if j != k and s and follow.builder.is_data(o)
    ]
    entries = _entries(follow, fixed, own, node.output, sizes)
    rows = _flat(entries, node.output, sizes, entries[-1].size)
    columns = _flat(entries, own, sizes, entries[-1].size)
    assert len(follow.shape(operand)) == len(own)
    return sp.csr_array(follow.moved(part, rows, columns, follow._length(node)))


def _entries(
    follow: _Follow,
    fixed: Sequence[tuple[Expr, Labels]],
    own: Labels,
    output: Labels,
    sizes: dict[int, int],
) -> dict[int, Array]:
    """Values of all labels at the places where no factor of data is zero; key -1 counts them."""
    wanted = tuple(dict.fromkeys((*output, *own)))
    index: dict[int, Array] = {}
    count = 1
    # The factor with most labels says where there is anything; the others only thin it out.
    widest = max(fixed, key=lambda f: len(set(f[1])), default=None)
    if widest is not None and len(set(widest[1])) > 1:
        follow._run.run([widest[0]])
        value = follow._run.known(widest[0])
        if sp.issparse(value):
            found = value.tocoo()
            places = [np.asarray(found.row), np.asarray(found.col)]
            kept = np.asarray(found.data) != 0
            places = [p[kept] for p in places]
        else:
            places = list(np.nonzero(np.broadcast_to(value, follow.shape(widest[0]))))
        labels = widest[1]
        if places[0].size > follow.limit:
            raise TooDense
        if len(set(labels)) < len(labels):
            raise TooDense
        index = dict(zip(labels, places, strict=True))
        count = int(places[0].size)
    for label in wanted:
        if label in index:
            continue
        size = sizes[label]
        if count * size > follow.limit:
            raise TooDense
        index = {s: np.repeat(v, size) for s, v in index.items()}
        index[label] = np.tile(np.arange(size), count)
        count *= size
    index[-1] = np.arange(count)
    return index


def _flat(index: dict[int, Array], labels: Labels, sizes: dict[int, int], count: int) -> Array:
    """Positions of entries in an array with these labels."""
    if not labels:
        return np.zeros(count, dtype=np.int64)
    return np.ravel_multi_index([index[s] for s in labels], [sizes[s] for s in labels])


def _align(follow: _Follow, node: ir.Align, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    assert part is not None
    length = follow._length(node)
    places = np.unravel_index(np.arange(length), follow.shape(node))
    own = [places[node.source.index(d)] for d in range(node.operand.rank)]
    columns = np.ravel_multi_index(own, follow.shape(node.operand)) if own else 0 * places[0]
    return sp.csr_array(follow.moved(part, np.arange(length), columns, length))


def _reduce(follow: _Follow, node: ir.Reduce, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    if node.function != "sum" or part is None:
        raise TooDense
    count = part.shape[0]
    places = np.unravel_index(np.arange(count), follow.shape(node.operand))
    kept = [p for d, p in enumerate(places) if d not in node.dims]
    rows = np.ravel_multi_index(kept, follow.shape(node)) if kept else np.zeros(count, np.int64)
    return sp.csr_array(follow.moved(part, rows, np.arange(count), follow._length(node)))


def _gather(follow: _Follow, node: ir.Gather, inner: list[sp.csr_array | None]) -> sp.csr_array:
    part = inner[0]
    if part is None or any(p is not None for p in inner[1:]):
        raise TooDense
    length = follow._length(node)
    shape = follow.shape(node.operand)
    kept = [d for d, i in enumerate(node.index) if i is None]
    lead = node.rank - len(kept)
    places = np.unravel_index(np.arange(length), follow.shape(node))
    own: list[Array] = []
    for d, i in enumerate(node.index):
        if i is None:
            own.append(places[lead + kept.index(d)])
        else:
            follow._run.run([i])
            table = np.asarray(follow._run.positions(i, shape[d], i))
            own.append(table[tuple(places[:lead])] if lead else np.full(length, table))
    columns = np.ravel_multi_index(own, shape)
    return sp.csr_array(follow.moved(part, np.arange(length), columns, length))


def _scatter(follow: _Follow, node: ir.ScatterSum, inner: list[sp.csr_array | None]) -> Any:
    part = inner[0]
    if part is None or any(p is not None for p in inner[1:]):
        raise TooDense
    sizes = follow.shape(node)
    count = part.shape[0]
    places = np.unravel_index(np.arange(count), follow.shape(node.operand))
    to = []
    for d, i in enumerate(node.index):
        follow._run.run([i])
        to.append(np.asarray(follow._run.positions(i, sizes[d], i))[places[0]])
    rows = np.ravel_multi_index([*to, *places[1:]], sizes) if sizes else np.zeros(count, np.int64)
    return follow.moved(part, rows, np.arange(count), follow._length(node))


def _concat(follow: _Follow, node: ir.Concat, inner: list[sp.csr_array | None]) -> sp.csr_array:
    parts = [follow._zero(o) if p is None else p for o, p in zip(node.operands, inner, strict=True)]
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _diag(follow: _Follow, node: ir.Diag, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    assert part is not None
    side = follow.shape(node)[-1]
    columns = np.arange(part.shape[0])
    rows = columns * side + columns % side
    return sp.csr_array(follow.moved(part, rows, columns, follow._length(node)))


_RULES: dict[type[Expr], Callable[[_Follow, Any, list[sp.csr_array | None]], Any]] = {
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _align,
    ir.Reduce: _reduce,
    ir.Gather: _gather,
    ir.ScatterSum: _scatter,
    ir.Concat: _concat,
    ir.Diag: _diag,
}
