"""From tensor nodes to coefficients of columns: forms of degree two where possible, else trees.

The walk is exact: linear operations are sparse matrices read off the bound data, products are kept
apart, and only what is neither becomes a tree for every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.walk import postorder
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.elementwise import ENTRIES
from bilevelpy.reductions.polynomial import (
    Form,
    apply_linear,
    fixed,
    plus,
    selection,
    spread,
    stack,
    take,
    times,
)
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]
Key = tuple[str, str]

# Entries of a product that are looked at one by one; the memory is some 100 bytes each.
ENTRY_LIMIT = 20_000_000
# Nodes of all scalar trees together.
TREE_LIMIT = 200_000


class Expander:
    """Coefficients of the expressions of one bound program, each shared node once.

    Parameters
    ----------
    offsets
        (level, variable) and (level, constraint) of a shadow price -> its first column.
    width
        The number of columns.
    """

    def __init__(self, bound: BoundProgram, offsets: Mapping[Key, int], width: int) -> None:
        self.bound = bound
        self.offsets = offsets
        self.width = width
        self.interpreter = Interpreter(bound.data, externs=bound.program.externs)
        self._is_data = bound.program.builder.is_data
        self._forms: dict[ir.Expr, Form | None] = {}
        self._trees: dict[ir.Expr, list[sc.Scalar]] = {}
        self._spent = 0

    def size(self, node: ir.Expr) -> int:
        """The number of entries of a tensor."""
        return int(np.prod(self.interpreter.shape(node), dtype=np.int64))

    def form(self, root: ir.Expr) -> Form | None:
        """Its coefficients, or None where it is no polynomial of degree two."""
        self._walk(root)
        return self._forms[root]

    def trees(self, root: ir.Expr) -> list[sc.Scalar]:
        """A scalar tree for every entry, row by row."""
        self._walk(root)
        for node in self._moving(root):
            if self._forms[node] is None and node not in self._trees:
                self._trees[node] = _TREES[type(node)](self, node)
        return self.operand(root)

    def operand(self, node: ir.Expr, count: int | None = None) -> list[sc.Scalar]:
        """Trees of an operand, a scalar repeated ``count`` times."""
        if self._is_data(node):
            found: list[sc.Scalar] = [sc.Num(float(v)) for v in self._values(node).reshape(-1)]
        elif node in self._trees:
            found = self._trees[node]
        else:
            form = self._forms[node]
            assert form is not None  # otherwise the walk has made its trees before
            found = [form_tree(form, k) for k in range(form.rows)]
            self.spend(node, form.rows + form.linear.nnz)
            self._trees[node] = found
        return found * count if count is not None and len(found) == 1 and count != 1 else found

    def spend(self, node: ir.Expr, count: int) -> None:
        """Count nodes of scalar trees; a model that needs too many is refused."""
        self._spent += count
        if self._spent > TREE_LIMIT:
            raise refuse(
                self.bound.program,
                "BLV0706",
                _place(node),
                "has to be written entry by entry",
                hint="formats that keep tensors (json, latex) take the model as it is",
                count=f"{self._spent:,}",
                limit=f"{TREE_LIMIT:,}",
            )

    def _moving(self, root: ir.Expr) -> list[ir.Expr]:
        return [n for n in postorder(root) if not self._is_data(n)]

    def _walk(self, root: ir.Expr) -> None:
        if root in self._forms:
            return
        if self._is_data(root):
            self._forms[root] = fixed(self._values(root), self.width)
            return
        for node in self._moving(root):
            if node not in self._forms:
                made = _FORMS.get(type(node))
                self._forms[node] = None if made is None else made(self, node)

    def _values(self, node: ir.Expr) -> Array:
        return np.asarray(self.interpreter.value(node))

    def known(self, node: ir.Expr) -> Any:
        """The value of a data node, sparse where it is."""
        self.interpreter.run([node])
        return self.interpreter.known(node)

    def part(self, node: ir.Expr) -> Form | None:
        """The form of an operand."""
        if self._is_data(node) and node not in self._forms:
            self._forms[node] = fixed(self._values(node), self.width)
        return self._forms[node]

    def parts(self, nodes: tuple[ir.Expr, ...]) -> list[Form] | None:
        """The forms of all operands, or None."""
        found = [self.part(n) for n in nodes]
        return None if any(f is None for f in found) else [f for f in found if f is not None]

    def constant_of(self, node: ir.Expr) -> Array | None:
        """The values of a node that no column moves, else None."""
        if self._is_data(node):
            return self._values(node)
        form = self._forms[node]
        if form is None or not form.is_constant:
            return None
        return form.constant.reshape(self.interpreter.shape(node))

    def positions(self, node: ir.Expr, size: int, user: ir.Expr) -> Array:
        """Values of an index expression."""
        self.interpreter.run([node])
        return self.interpreter.positions(node, size, user)


def form_tree(form: Form, row: int) -> sc.Scalar:
    """One entry of a form as a tree; products as they were made."""
    terms: list[sc.Scalar] = list(_linear_terms(form.linear, row))
    for p in form.products:
        span = slice(p.outer.indptr[row], p.outer.indptr[row + 1])
        for place, weight in zip(p.outer.indices[span], p.outer.data[span], strict=True):
            left = sc.add(*_linear_terms(p.left, place))
            right = sc.add(*_linear_terms(p.right, place))
            factors = [sc.power(left, sc.Num(2.0))] if left == right else [left, right]
            terms.append(sc.mul(sc.Num(float(weight)), *factors))
    return sc.add(*terms, sc.Num(float(form.constant[row])))


def _linear_terms(matrix: Any, row: int) -> list[sc.Scalar]:
    span = slice(matrix.indptr[row], matrix.indptr[row + 1])
    pairs = zip(matrix.indices[span], matrix.data[span], strict=True)
    return [sc.mul(sc.Num(float(c)), sc.Col(int(j))) for j, c in pairs]


def _place(node: ir.Expr) -> Any:
    stack_ = [node]
    while stack_:
        top = stack_.pop()
        if top.span is not None:
            return top.span
        stack_.extend(reversed(top.children))
    return None


# --- linear operations ----------------------------------------------------------------------------


def _reference(run: Expander, node: ir.VarRef | ir.DualRef) -> Form:
    name = node.name if isinstance(node, ir.VarRef) else node.constraint
    return selection(run.offsets[node.level, name], run.size(node), run.width)


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


def _move(run: Expander, node: ir.Align | ir.Gather) -> Form | None:
    inner = run.part(node.operand)
    positions = source_positions(run, node)
    return None if inner is None or positions is None else take(inner, positions)


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


def _scatter(run: Expander, node: ir.Reduce | ir.ScatterSum | ir.Diag) -> Form | None:
    if isinstance(node, ir.Reduce) and node.function != "sum":
        return None
    inner = run.part(node.operand)
    if inner is None:
        return None
    target = target_positions(run, node)
    shape = (run.size(node), inner.rows)
    matrix = sp.csr_array((np.ones(inner.rows), (target, np.arange(inner.rows))), shape=shape)
    return apply_linear(matrix, inner)


def _concat(run: Expander, node: ir.Concat) -> Form | None:
    inner = run.parts(node.operands)
    return None if inner is None else stack(inner)


# --- elementwise functions and products -----------------------------------------------------------


def _apply(run: Expander, node: ir.Apply) -> Form | None:
    count = run.size(node)
    if node.function == "select":
        return _select(run, node, count)
    inner = run.parts(node.operands)
    if inner is None:
        return None
    if node.function == "add":
        total = spread(inner[0], count)
        for form in inner[1:]:
            total = plus(total, spread(form, count))
        return total
    if node.function == "neg":
        return apply_linear(-sp.eye_array(count, format="csr"), inner[0])
    if node.function == "square" and inner[0].is_affine:
        return times(sp.eye_array(count, format="csr"), inner[0], inner[0])
    if all(f.is_constant for f in inner):
        trees = _apply_trees(run, node)
        numbers = [t.value for t in trees if isinstance(t, sc.Num)]
        return fixed(np.array(numbers), run.width) if len(numbers) == count else None
    return None


def _select(run: Expander, node: ir.Apply, count: int) -> Form | None:
    condition = run.constant_of(node.operands[0])
    inner = run.parts(node.operands[1:])
    if condition is None or inner is None:
        return None
    chosen = np.broadcast_to(condition.astype(bool).reshape(-1), (count,)).astype(np.float64)
    yes = apply_linear(sp.csr_array(sp.diags_array(chosen)), spread(inner[0], count))
    no = apply_linear(sp.csr_array(sp.diags_array(1.0 - chosen)), spread(inner[1], count))
    return plus(yes, no)


class _Entries:
    """The terms of a product: for each, its value and where its labels stand."""

    def __init__(self, run: Expander, node: ir.Einsum) -> None:
        self.run, self.node = run, node
        self.sizes: dict[int, int] = {}
        for operand, labels in zip(node.operands, node.subscripts, strict=True):
            self.sizes.update(zip(labels, run.interpreter.shape(operand), strict=True))
        self.values: Array = np.ones(1)
        self.place: dict[int, Array] = {}

    def multiply(self, value: Any, labels: tuple[int, ...]) -> None:
        """Multiply by data; terms that become zero are dropped."""
        if is_sparse(value) and not self.place:
            coo = value.tocoo()
            keep = coo.row == coo.col if labels[0] == labels[1] else np.ones(coo.nnz, dtype=bool)
            self.values = self.values[0] * coo.data[keep]
            self.place = {labels[0]: coo.row[keep].astype(np.int64)}
            self.place[labels[1]] = coo.col[keep].astype(np.int64)
            return
        dense = np.asarray(value.toarray() if is_sparse(value) else value, dtype=np.float64)
        self.extend(labels)
        index = tuple(self.place[s] for s in labels)
        self.values = self.values * (dense[index] if labels else float(dense))
        keep = self.values != 0.0
        if not keep.all():
            self.values = self.values[keep]
            self.place = {s: p[keep] for s, p in self.place.items()}

    def extend(self, labels: tuple[int, ...]) -> None:
        """Let every term run over labels that it does not have yet."""
        for label in dict.fromkeys(labels):
            if label in self.place:
                continue
            old, size = self.values.size, self.sizes[label]
            if old * size > ENTRY_LIMIT:
                raise refuse(
                    self.run.bound.program,
                    "BLV0706",
                    _place(self.node),
                    "this product",
                    hint="formats that keep tensors (json, latex) take the model as it is",
                    count=f"{old * size:,}",
                    limit=f"{ENTRY_LIMIT:,}",
                )
            self.values = np.repeat(self.values, size)
            self.place = {s: np.repeat(p, size) for s, p in self.place.items()}
            self.place[label] = np.tile(np.arange(size), old)

    def position(self, labels: tuple[int, ...]) -> Array:
        """Where each term stands in a tensor with these labels, row by row."""
        position = np.zeros(self.values.size, dtype=np.int64)
        for label in labels:
            position = position * self.sizes[label] + self.place[label]
        return position


def _entries(run: Expander, node: ir.Einsum) -> tuple[_Entries, list[int]]:
    """The terms of a product and the operands that columns move."""
    entries = _Entries(run, node)
    moving: list[int] = []
    given: list[tuple[Any, tuple[int, ...]]] = []
    for k, (operand, labels) in enumerate(zip(node.operands, node.subscripts, strict=True)):
        if run.bound.program.builder.is_data(operand):
            given.append((run.known(operand), labels))
            continue
        constant = run.constant_of(operand)
        if constant is None:
            moving.append(k)
        else:
            given.append((constant, labels))
    for value, labels in sorted(given, key=lambda g: not is_sparse(g[0])):
        entries.multiply(value, labels)
    for k in moving:
        entries.extend(node.subscripts[k])
    entries.extend(node.output)
    return entries, moving


def _einsum(run: Expander, node: ir.Einsum) -> Form | None:
    forms = [None if run.bound.program.builder.is_data(o) else run.part(o) for o in node.operands]
    structural = [
        k for k, o in enumerate(node.operands) if not run.bound.program.builder.is_data(o)
    ]
    if any(forms[k] is None for k in structural):
        return None
    live = [f for f in forms if f is not None and not f.is_constant]
    if len(live) > 2 or (len(live) == 2 and not all(f.is_affine for f in live)):
        return None
    entries, moving = _entries(run, node)
    count, terms = run.size(node), entries.values.size
    target = entries.position(node.output)
    if not moving:
        return fixed(np.bincount(target, entries.values, minlength=count), run.width)
    first = entries.position(node.subscripts[moving[0]])
    if len(moving) == 1:
        matrix = sp.csr_array((entries.values, (target, first)), shape=(count, live[0].rows))
        return apply_linear(matrix, live[0])
    second = entries.position(node.subscripts[moving[1]])
    outer = sp.csr_array((entries.values, (target, np.arange(terms))), shape=(count, terms))
    return times(outer, take(live[0], first), take(live[1], second))


_FORMS: dict[type[ir.Expr], Callable[[Expander, Any], Form | None]] = {
    ir.VarRef: _reference,
    ir.DualRef: _reference,
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _move,
    ir.Gather: _move,
    ir.Reduce: _scatter,
    ir.ScatterSum: _scatter,
    ir.Diag: _scatter,
    ir.Concat: _concat,
}


# --- scalar trees ---------------------------------------------------------------------------------


def _unsupported(run: Expander, node: ir.Expr) -> list[sc.Scalar]:
    what = {
        ir.ExternCall: "an extern function has no formula",
        ir.Matrix: "a function of a whole matrix has no scalar formula",
    }
    label = what.get(type(node), "has no scalar formula")
    raise refuse(run.bound.program, "BLV0707", _place(node), label, what=_what(node))


def _what(node: ir.Expr) -> str:
    if isinstance(node, ir.ExternCall):
        return f"`{node.name}`"
    function = getattr(node, "function", type(node).__name__.lower())
    return f"`{function}`"


def _apply_trees(run: Expander, node: ir.Apply) -> list[sc.Scalar]:
    count = run.size(node)
    if node.function == "select":
        condition = run.constant_of(node.operands[0])
        if condition is None:
            return _unsupported(run, node)
        yes, no = (run.operand(o, count) for o in node.operands[1:])
        chosen = np.broadcast_to(condition.reshape(-1), (count,))
        return [a if c else b for c, a, b in zip(chosen, yes, no, strict=True)]
    rule = ENTRIES.get(node.function)
    if rule is None:
        return _unsupported(run, node)
    operands = [run.operand(o, count) for o in node.operands]
    run.spend(node, count * len(operands))
    return [rule(*entry) for entry in zip(*operands, strict=True)]


def _einsum_trees(run: Expander, node: ir.Einsum) -> list[sc.Scalar]:
    entries, moving = _entries(run, node)
    run.spend(node, entries.values.size * (1 + len(moving)))
    target = entries.position(node.output)
    factors = [
        (run.operand(node.operands[k]), entries.position(node.subscripts[k])) for k in moving
    ]
    terms: list[list[sc.Scalar]] = [[] for _ in range(run.size(node))]
    for e, value in enumerate(entries.values):
        parts = [trees[places[e]] for trees, places in factors]
        terms[target[e]].append(sc.mul(sc.Num(float(value)), *parts))
    return [sc.add(*t) for t in terms]


def _move_trees(run: Expander, node: ir.Align | ir.Gather) -> list[sc.Scalar]:
    inner = run.operand(node.operand)
    positions = source_positions(run, node)
    assert positions is not None
    return [inner[p] for p in positions]


def _scatter_trees(run: Expander, node: ir.Reduce | ir.ScatterSum | ir.Diag) -> list[sc.Scalar]:
    inner = run.operand(node.operand)
    groups: list[list[sc.Scalar]] = [[] for _ in range(run.size(node))]
    for target, tree in zip(target_positions(run, node), inner, strict=True):
        groups[target].append(tree)
    run.spend(node, len(inner))
    function = node.function if isinstance(node, ir.Reduce) else "sum"
    return [_reduced(function, g) for g in groups]


def _reduced(function: str, group: list[sc.Scalar]) -> sc.Scalar:
    if function == "sum":
        return sc.add(*group)
    if function == "prod":
        return sc.mul(*group)
    if function == "logsumexp":
        return sc.call("log", sc.add(*(sc.call("exp", t) for t in group)))
    if function == "norm2":
        return sc.call("sqrt", sc.add(*(sc.power(t, sc.Num(2.0)) for t in group)))
    total = group[0]
    for tree in group[1:]:
        total = sc.call(function, total, tree)
    return total


def _map_trees(run: Expander, node: ir.MapLast) -> list[sc.Scalar]:
    inner = run.operand(node.operand)
    last = run.interpreter.shape(node)[-1]
    found: list[sc.Scalar] = []
    for start in range(0, len(inner), last):
        row = inner[start : start + last]
        powers = [sc.call("exp", t) for t in row]
        total = sc.add(*powers)
        run.spend(node, last * last)
        if node.function == "softmax":
            found += [sc.div(p, total) for p in powers]
        else:
            minus = sc.mul(sc.Num(-1.0), sc.call("log", total))
            found += [sc.add(t, minus) for t in row]
    return found


def _concat_trees(run: Expander, node: ir.Concat) -> list[sc.Scalar]:
    return [t for o in node.operands for t in run.operand(o)]


_TREES: dict[type[ir.Expr], Callable[[Expander, Any], list[sc.Scalar]]] = {
    ir.Apply: _apply_trees,
    ir.Einsum: _einsum_trees,
    ir.Align: _move_trees,
    ir.Gather: _move_trees,
    ir.Reduce: _scatter_trees,
    ir.ScatterSum: _scatter_trees,
    ir.Diag: _scatter_trees,
    ir.MapLast: _map_trees,
    ir.Concat: _concat_trees,
    ir.Matrix: _unsupported,
    ir.ExternCall: _unsupported,
}
