"""Which entries of a second derivative can differ from zero, and what they are where it is made of
data.

``f_yy v`` is linear in v, so every node on the way from v to it is a sparse matrix over the entries
of v; these matrices are followed from v upwards. A pattern takes zeros of data for zeros, and
nothing of the point.
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
from bilevelpy.system.deadline import check

Array = np.ndarray[Any, np.dtype[Any]]
Labels = tuple[int, ...]

# Entries that one matrix may have, per entry of v, or if v is short: what has more gains nothing by
# its zeros.
WIDEST, FEW = 200, 200_000


class TooDense(Exception):
    """A matrix has more entries than is worth following, or a node has no rule."""


def linear_map(
    builder: Builder,
    data: Data,
    roots: Sequence[Expr],
    along: Sequence[ir.VarRef],
    *,
    values: bool,
) -> sp.csr_array | None:
    """The matrix of linear ``roots`` by the directions ``along``, entries in the order of both;
    None where it has many entries.

    Without ``values`` its pattern alone. With them all that is multiplied with the directions has
    to be data; None where something is not.
    """
    sizes = [prod(data.sizes[a] for a in v.axes) for v in along]
    starts = dict(zip(along, _starts(sizes), strict=True))
    follow = _Follow(builder, data, starts, sum(sizes), values)
    try:
        rows = [follow.of(root) for root in roots]
    except TooDense:
        return None
    return follow.tidy(sp.vstack(rows, format="csr")) if rows else None


def _starts(sizes: Sequence[int]) -> list[int]:
    return [int(k) for k in np.concatenate([[0], np.cumsum(sizes)[:-1]])]


class _Follow:
    """Matrices of nodes, or their patterns: rows are their entries (C order), columns those of
    v.
    """

    def __init__(
        self,
        builder: Builder,
        data: Data,
        starts: dict[ir.VarRef, int],
        width: int,
        values: bool,
    ) -> None:
        self.builder, self.data, self.starts, self.width = builder, data, starts, width
        self.values = values
        self.limit = max(WIDEST * width, FEW)
        self.run = Interpreter(data)
        self._known: dict[Expr, sp.csr_array | None] = {}

    def of(self, root: Expr) -> sp.csr_array:
        """The matrix of a root."""
        for node in postorder(root):
            if node not in self._known:
                check()
                self._known[node] = self._meaning(node)
        found = self._known[root]
        return self.zero(root) if found is None else found

    def shape(self, node: Expr) -> tuple[int, ...]:
        """Sizes of a node's axes."""
        return tuple(self.data.sizes[a] for a in node.axes)

    def tidy(self, found: Any) -> sp.csr_array:
        """Entries once each, in order; of patterns all are 1."""
        found = sp.csr_array(found)
        found.sum_duplicates()
        if not self.values:
            found.data = np.ones(found.nnz)
        return found

    def zero(self, node: Expr) -> sp.csr_array:
        """The matrix of a node that does not depend on v."""
        return sp.csr_array((self.length(node), self.width))

    def length(self, node: Expr) -> int:
        """The number of entries of a node."""
        length = prod(self.shape(node))
        if length > self.limit:
            raise TooDense
        return length

    def _meaning(self, node: Expr) -> sp.csr_array | None:
        """The matrix of a node; None where it does not depend on v."""
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

    def value(self, node: Expr) -> Any:
        """The value of a node of data: an array of its shape, or a sparse matrix."""
        self.run.run([node])
        found = self.run.known(node)
        return found if sp.issparse(found) else np.broadcast_to(found, self.shape(node))

    def _variable(self, node: ir.VarRef) -> sp.csr_array | None:
        start = self.starts.get(node)
        if start is None:
            return None
        length = self.length(node)
        columns = np.arange(start, start + length)
        ones = np.ones(length)
        return sp.csr_array((ones, (np.arange(length), columns)), shape=(length, self.width))

    def moved(
        self,
        part: sp.csr_array,
        rows: Array,
        columns: Array,
        length: int,
        weights: Array | None = None,
    ) -> sp.csr_array:
        """Row ``rows[k]`` of the result takes in row ``columns[k]`` of a matrix, ``weights[k]``
        times.
        """
        counts = np.diff(part.indptr)
        if int(counts[columns].sum()) > self.limit:
            raise TooDense
        if weights is None or not self.values:
            weights = np.ones(rows.size)
        take = sp.csr_array((weights, (rows, columns)), shape=(length, part.shape[0]))
        return self.tidy(take @ part)


def _apply(follow: _Follow, node: ir.Apply, inner: list[sp.csr_array | None]) -> sp.csr_array:
    chosen = node.function == "select" and inner[0] is None and not follow.values
    if node.function not in ("add", "neg") and not chosen:
        raise TooDense
    length = follow.length(node)
    total = follow.zero(node)
    for operand, part in zip(node.operands, inner, strict=True):
        if part is None:
            continue
        if operand.rank < node.rank:  # a number, repeated
            rows = np.arange(length)
            part = follow.moved(part, rows, np.zeros_like(rows), length)
        total = total - part if node.function == "neg" else total + part
    return follow.tidy(total)


def _einsum(follow: _Follow, node: ir.Einsum, inner: list[sp.csr_array | None]) -> sp.csr_array:
    moving = [k for k, p in enumerate(inner) if p is not None]
    if len(moving) != 1:
        raise TooDense
    (k,) = moving
    part = inner[k]
    assert part is not None
    own = node.subscripts[k]
    sizes: dict[int, int] = {}
    for o, subscript in zip(node.operands, node.subscripts, strict=True):
        sizes |= dict(zip(subscript, follow.shape(o), strict=True))
    others = [
        (o, s)
        for j, (o, s) in enumerate(zip(node.operands, node.subscripts, strict=True))
        if j != k
    ]
    fixed = [(o, s) for o, s in others if follow.builder.is_data(o)]
    if follow.values and len(fixed) < len(others):
        raise TooDense
    index, count, weights = _entries(follow, fixed, (*node.output, *own), sizes)
    rows = _flat(index, node.output, sizes, count)
    columns = _flat(index, own, sizes, count)
    return follow.moved(part, rows, columns, follow.length(node), weights)


def _entries(
    follow: _Follow,
    fixed: Sequence[tuple[Expr, Labels]],
    wanted: Labels,
    sizes: dict[int, int],
) -> tuple[dict[int, Array], int, Array | None]:
    """The places where no factor of data is zero: values of all labels, their number, and the
    product of the factors there.
    """
    index: dict[int, Array] = {}
    count = 1
    # The factor with most labels says where there is anything; the others only thin it out.
    widest = max(fixed, key=lambda f: len(set(f[1])), default=None)
    if widest is not None and len(set(widest[1])) > 1:
        node, labels = widest
        if len(set(labels)) < len(labels):
            raise TooDense
        value = follow.value(node)
        if sp.issparse(value):
            found = value.tocoo()
            kept = np.asarray(found.data) != 0
            places = [np.asarray(found.row)[kept], np.asarray(found.col)[kept]]
        else:
            # Positions take more than the array itself.
            if np.count_nonzero(value) > follow.limit:
                raise TooDense
            places = list(np.nonzero(value))
        count = int(places[0].size)
        if count > follow.limit:
            raise TooDense
        index = dict(zip(labels, places, strict=True))
    for label in (*wanted, *(s for _, labels in fixed for s in labels)):
        if label in index:
            continue
        size = sizes[label]
        if count * size > follow.limit:
            raise TooDense
        index = {s: np.repeat(v, size) for s, v in index.items()}
        index[label] = np.tile(np.arange(size), count)
        count *= size
    if not follow.values:
        return index, count, None
    weights = np.ones(count)
    for node, labels in fixed:
        value = follow.value(node)
        at = tuple(index[s] for s in labels)
        picked = value[at] if labels else value
        weights = weights * np.asarray(picked, dtype=np.float64).reshape(-1)
    return index, count, weights


def _flat(index: dict[int, Array], labels: Labels, sizes: dict[int, int], count: int) -> Array:
    """Positions of entries in an array with these labels."""
    if not labels:
        return np.zeros(count, dtype=np.int64)
    return np.ravel_multi_index([index[s] for s in labels], [sizes[s] for s in labels])


def _align(follow: _Follow, node: ir.Align, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    assert part is not None
    length = follow.length(node)
    places = _places(length, follow.shape(node))
    own = [places[node.source.index(d)] for d in range(node.operand.rank)]
    columns = np.ravel_multi_index(own, follow.shape(node.operand)) if own else 0 * places[0]
    return follow.moved(part, np.arange(length), columns, length)


def _places(count: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """The subscripts of so many entries, axis by axis; a number has no axes."""
    return np.unravel_index(np.arange(count), shape) if shape else ()


def _reduce(follow: _Follow, node: ir.Reduce, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    if node.function != "sum" or part is None:
        raise TooDense
    count = part.shape[0]
    places = _places(count, follow.shape(node.operand))
    kept = [p for d, p in enumerate(places) if d not in node.dims]
    rows = np.ravel_multi_index(kept, follow.shape(node)) if kept else np.zeros(count, np.int64)
    return follow.moved(part, rows, np.arange(count), follow.length(node))


def _gather(follow: _Follow, node: ir.Gather, inner: list[sp.csr_array | None]) -> sp.csr_array:
    part = inner[0]
    if part is None or any(p is not None for p in inner[1:]):
        raise TooDense
    length = follow.length(node)
    shape = follow.shape(node.operand)
    kept = [d for d, i in enumerate(node.index) if i is None]
    lead = node.rank - len(kept)
    places = _places(length, follow.shape(node))
    own: list[Array] = []
    for d, i in enumerate(node.index):
        if i is None:
            own.append(places[lead + kept.index(d)])
        else:
            follow.run.run([i])
            table = np.asarray(follow.run.positions(i, shape[d], i))
            own.append(table[tuple(places[:lead])] if lead else np.full(length, table))
    columns = np.ravel_multi_index(own, shape)
    return follow.moved(part, np.arange(length), columns, length)


def _scatter(follow: _Follow, node: ir.ScatterSum, inner: list[sp.csr_array | None]) -> Any:
    part = inner[0]
    if part is None or any(p is not None for p in inner[1:]):
        raise TooDense
    sizes = follow.shape(node)
    count = part.shape[0]
    places = _places(count, follow.shape(node.operand))
    to = []
    for d, i in enumerate(node.index):
        follow.run.run([i])
        to.append(np.asarray(follow.run.positions(i, sizes[d], i))[places[0]])
    rows = np.ravel_multi_index([*to, *places[1:]], sizes) if sizes else np.zeros(count, np.int64)
    return follow.moved(part, rows, np.arange(count), follow.length(node))


def _concat(follow: _Follow, node: ir.Concat, inner: list[sp.csr_array | None]) -> sp.csr_array:
    parts = [follow.zero(o) if p is None else p for o, p in zip(node.operands, inner, strict=True)]
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _diag(follow: _Follow, node: ir.Diag, inner: list[sp.csr_array | None]) -> sp.csr_array:
    (part,) = inner
    assert part is not None
    side = follow.shape(node)[-1]
    columns = np.arange(part.shape[0])
    rows = columns * side + columns % side
    return follow.moved(part, rows, columns, follow.length(node))


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
