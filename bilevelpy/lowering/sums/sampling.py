"""Objectives as sums over the elements of a data axis, rewritten for some of the elements.

A term ``sum over a of h_a`` becomes the same expression over a shorter axis: params that carry the
axis are replaced by the rows that a batch holds, variables that carry it are gathered. Whatever
stands around the sum has to be linear in it, so that batches that partition the axis add up to the
term exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.types import Axes, Axis, AxisKind
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.sums.row_rules import (
    FREE,
    LINEAR,
    RULES,
    NotASum,
    State,
    picks_own_rows,
)

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

# Marks the params that exist for sampling only: no name of a model holds it.
MARK = "@"


@dataclass(frozen=True, slots=True)
class Rows:
    """A param that holds the rows of a batch: those of ``source`` (a node over data) along
    ``dim``.
    """

    name: str
    source: Expr
    dim: int


@dataclass(slots=True)
class Sampled:
    """A sum over ``axis`` as an expression over the shorter axis ``batch``.

    ``rows`` are the params that a batch fills, ``constants`` those that are computed once from all
    the data, ``index`` is the name of the param that holds the positions of the batch.
    """

    axis: Axis
    batch: Axis
    index: str
    value: Expr
    rows: dict[str, Rows] = field(default_factory=dict)
    constants: dict[str, Expr] = field(default_factory=dict)

    def is_dynamic(self, node: Expr) -> bool:
        """Whether a data expression depends on the batch."""
        return any(
            self.batch in inner.axes
            or (isinstance(inner, ir.Size) and inner.axis is self.batch)
            or (isinstance(inner, ir.ParamRef) and (inner.name in self.rows))
            for inner in postorder(node)
        )


def batch_axis(axis: Axis) -> Axis:
    """The axis of the rows of a batch."""
    return Axis(f"{axis.name}{MARK}batch", AxisKind.DIM)


def terms(builder: Builder, objective: Expr) -> list[Expr]:
    """The terms of a scalar objective, numbers and scalar data multiplied into sums."""
    found: list[Expr] = []
    stack: list[tuple[Expr, tuple[Expr, ...]]] = [(objective, ())]
    while stack:
        node, factors = stack.pop()
        if isinstance(node, ir.Apply) and node.function == "add":
            stack.extend((o, factors) for o in reversed(node.operands))
        elif isinstance(node, ir.Apply) and node.function == "neg":
            stack.append((node.operands[0], (builder.const(-1.0), *factors)))
        elif isinstance(node, ir.Einsum) and not node.rank and not node.contracts:
            sums = [o for o in node.operands if isinstance(o, ir.Apply) and o.function == "add"]
            if len(sums) == 1:
                rest = tuple(o for o in node.operands if o is not sums[0])
                stack.append((sums[0], (*rest, *factors)))
            else:
                found.append(builder.mul(*factors, node) if factors else node)
        else:
            found.append(builder.mul(*factors, node) if factors else node)
    return found


def sample_terms(
    builder: Builder, objective: Expr, axes: Sequence[Axis]
) -> tuple[list[Expr], dict[Axis, list[Expr]]]:
    """The terms that are no sums over one of ``axes``, and those that are by the first axis that
    they sum.
    """
    free: list[Expr] = []
    sums: dict[Axis, list[Expr]] = {}
    for term in terms(builder, objective):
        for axis in axes:
            if is_sum(builder, term, axis):
                sums.setdefault(axis, []).append(term)
                break
        else:
            free.append(term)
    return free, sums


def is_sum(builder: Builder, term: Expr, axis: Axis) -> bool:
    """Whether a term that is no data is a sum over ``axis``."""
    if builder.is_data(term):
        return False
    rewriter = _Rewriter(builder, axis, batch_axis(axis))
    try:
        return rewriter.rewrite(term) == LINEAR
    except NotASum:
        return False


def sample(builder: Builder, terms: Sequence[Expr], axis: Axis, batch: Axis) -> Sampled:
    """The sum of ``terms``, each a sum over ``axis``, over the rows of a batch."""
    rewriter = _Rewriter(builder, axis, batch)
    for term in terms:
        if rewriter.rewrite(term) != LINEAR:
            raise NotASum
    value = builder.add([rewriter.new[term] for term in terms])
    return Sampled(axis, batch, rewriter.index.name, value, rewriter.rows, rewriter.constants)


class _Rewriter:
    """Rewrites expressions from one axis to the axis of a batch, with what became of each node."""

    def __init__(self, builder: Builder, axis: Axis, batch: Axis) -> None:
        self.builder = builder
        self.axis = axis
        self.batch = batch
        self.index = builder.param(f"{axis.name}{MARK}rows", (batch,))
        self.new: dict[Expr, Expr] = {}
        self.states: dict[Expr, State] = {}
        self.rows: dict[str, Rows] = {}
        self.constants: dict[str, Expr] = {}

    def rewrite(self, root: Expr) -> State:
        """The state of ``root``; its replacement is in ``new``."""
        for node in postorder(root):
            if node not in self.states:
                self.states[node], self.new[node] = self._node(node)
        return self.states[root]

    def axes(self, axes: Axes) -> Axes:
        """The same axes with the shorter one in the place of the axis."""
        return tuple(self.batch if a is self.axis else a for a in axes)

    def _node(self, node: Expr) -> tuple[State, Expr]:
        if node.axes.count(self.axis) > 1:
            raise NotASum
        if self.builder.is_data(node):
            return self._data(node)
        states = [self.states[c] for c in node.children]
        if isinstance(node, ir.VarRef):
            if self.axis not in node.axes:
                return FREE, node
            return self._picked(node, node.axes.index(self.axis))
        if all(s == FREE for s in states) and self.axis not in node.axes:
            return FREE, self._rebuilt(node)
        return self._state(node, states), self._rebuilt(node)

    def _state(self, node: Expr, states: Sequence[State]) -> State:
        """How a node carries the axis, by what its operands do."""
        repeats = isinstance(node, ir.Align) and states[0] == FREE
        rule = RULES.get(type(node))
        if rule is None:
            raise NotASum
        # A broadcast of a free operand along the axis carries it as well.
        state = node.axes.index(self.axis) if repeats else rule(node, states)
        carried = node.axes.index(self.axis) if self.axis in node.axes else None
        if carried != (state if isinstance(state, int) else None):
            raise NotASum
        return state

    def _rebuilt(self, node: Expr) -> Expr:
        children = tuple(self.new[c] for c in node.children)
        same = all(n is c for n, c in zip(children, node.children, strict=True))
        if same and self.axis not in node.axes:
            return node
        return _BUILD[type(node)](self, node, children)

    # --- data -------------------------------------------------------------------------------------

    def _data(self, node: Expr) -> tuple[State, Expr]:
        """Data without the axis is a constant; with it, its rows are taken as far inside as they
        are independent of one another.
        """
        if self.axis not in node.axes:
            return FREE, self._constant(node)
        dim = node.axes.index(self.axis)
        if isinstance(node, ir.ParamRef):
            return self._row_param(node.name, node, dim)
        if not node.children:
            if isinstance(node, ir.Fill):
                return dim, self.builder.fill(node.value, self.axes(node.axes))
            return self._picked(node, dim)
        try:
            return self._state(node, [self.states[c] for c in node.children]), self._rebuilt(node)
        except NotASum:  # rows depend on each other: computed as a whole
            name = f"value{MARK}{self.builder.digest(node)}"
            return self._row_param(name, node, dim)

    def _constant(self, node: Expr) -> Expr:
        """A node that no batch changes; what costs a pass over data is computed once."""
        if not node.children or not any(
            isinstance(n, ir.ParamRef) and n.rank for n in postorder(node)
        ):
            return node
        name = f"constant{MARK}{self.builder.digest(node)}"
        self.constants[name] = node
        return self.builder.param(name, node.axes)

    def _row_param(self, name: str, source: Expr, dim: int) -> tuple[State, Expr]:
        held = f"{name}{MARK}{self.axis.name}"
        self.rows[held] = Rows(held, source, dim)
        return dim, self.builder.param(held, self.axes(source.axes))

    def _picked(self, node: Expr, dim: int) -> tuple[State, Expr]:
        """The entries of a node at the positions of the batch."""
        index = [self.index if d == dim else None for d in range(node.rank)]
        picked = self.builder.gather(node, index)
        order = tuple(0 if d == dim else (d + 1 if d < dim else d) for d in range(node.rank))
        return dim, self.builder.align(picked, order, self.axes(node.axes))


# --- the same node over the shorter axis ----------------------------------------------------------


def _new_einsum(r: _Rewriter, n: ir.Einsum, c: tuple[Expr, ...]) -> Expr:
    return r.builder.einsum(list(zip(c, n.subscripts, strict=True)), n.output, n.span)


def _new_gather(r: _Rewriter, n: ir.Gather, c: tuple[Expr, ...]) -> Expr:
    given = iter(c[1:])
    index = [None if i is None else next(given) for i in n.index]
    carried = r.states[n.operand]
    if picks_own_rows(n, carried):
        assert isinstance(carried, int)
        index[carried] = r.builder.position(r.batch)
    return r.builder.gather(c[0], index, n.span)


Build = Callable[[_Rewriter, Any, tuple[Expr, ...]], Expr]
_BUILD: Mapping[type[Expr], Build] = {
    ir.Locate: lambda r, n, c: r.builder.locate(n.axis, c, n.by_number, n.span),
    ir.Apply: lambda r, n, c: r.builder.raw_apply(n.function, c, n.span),
    ir.Einsum: _new_einsum,
    ir.Align: lambda r, n, c: r.builder.align(c[0], n.source, r.axes(n.axes), n.span),
    ir.Reduce: lambda r, n, c: r.builder.raw_reduce(n.function, c[0], n.dims, n.span),
    ir.MapLast: lambda r, n, c: r.builder.map_last(n.function, c[0], n.span),
    ir.Matrix: lambda r, n, c: r.builder.matrix(n.function, c[0], n.span),
    ir.Gather: _new_gather,
    ir.ScatterSum: lambda r, n, c: r.builder.scatter_sum(
        c[0], c[1:], r.axes(n.axes[: len(c) - 1]), n.span
    ),
    ir.Concat: lambda r, n, c: r.builder.concat(c, n.axes[0], n.span),
    ir.Diag: lambda r, n, c: r.builder.diag(c[0], n.span),
    ir.ExternCall: lambda r, n, c: r.builder.extern(n.name, c, r.axes(n.axes), n.span),
}
