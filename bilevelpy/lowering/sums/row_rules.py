"""How the operations of the IR carry the rows of a batch.

A node is free of them, holds one for each element along a dimension, or is a sum over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr

# The same for every batch; a sum over its rows. Else the dimension along which they are held.
FREE, LINEAR = "free", "linear"

State = int | str


class NotASum(Exception):
    """An expression is no sum over the axis."""


def _one(states: Sequence[State]) -> State:
    """The state that all operands but the free ones share."""
    held = {s for s in states if s != FREE}
    if len(held) != 1:
        raise NotASum
    return held.pop()


def _apply(node: ir.Apply, states: Sequence[State]) -> State:
    state = _one(states)
    if state == LINEAR and (node.function not in ("add", "neg") or FREE in states):
        raise NotASum
    return state


def _einsum(node: ir.Einsum, states: Sequence[State]) -> State:
    labels = {
        subscript[s] if isinstance(s, int) else s
        for s, subscript in zip(states, node.subscripts, strict=True)
        if s != FREE
    }
    if len(labels) != 1 or list(states).count(LINEAR) > 1:
        raise NotASum
    label = labels.pop()
    if label == LINEAR or label not in node.output:
        return LINEAR
    return node.output.index(int(label))


def _align(node: ir.Align, states: Sequence[State]) -> State:
    state = states[0]
    return node.source.index(state) if isinstance(state, int) else state


def _reduce(node: ir.Reduce, states: Sequence[State]) -> State:
    state = states[0]
    if not isinstance(state, int):
        if node.function != "sum":
            raise NotASum
        return state
    if state in node.dims:
        if node.function != "sum":
            raise NotASum
        return LINEAR
    return state - sum(d < state for d in node.dims)


def _map_last(node: ir.MapLast, states: Sequence[State]) -> State:
    return _before(states[0], node.rank - 1)


def _matrix(node: ir.Matrix, states: Sequence[State]) -> State:
    return _before(states[0], node.rank)


def _diag(node: ir.Diag, states: Sequence[State]) -> State:
    return LINEAR if states[0] == LINEAR else _before(states[0], node.rank - 2)


def _before(state: State, end: int) -> State:
    """A dimension that a function of the last axes leaves alone."""
    if not isinstance(state, int) or state >= end:
        raise NotASum
    return state


def picks_own_rows(node: ir.Gather, operand: State) -> bool:
    """Whether every row is picked from itself, as in ``Z[i, label[i]]``: the operand carries the
    axis, and the index there is the position in it.
    """
    if not isinstance(operand, int):
        return False
    index = node.index[operand]
    return isinstance(index, ir.Position) and index.axis is node.operand.axes[operand]


def _gather(node: ir.Gather, states: Sequence[State]) -> State:
    operand, index = states[0], states[1:]
    rank = next(i.rank for i in node.index if i is not None)
    if any(s != FREE for s in index):
        if picks_own_rows(node, operand) and set(index) == {0}:
            return 0
        if operand != FREE or len(set(index)) != 1 or not isinstance(index[0], int):
            raise NotASum
        return index[0]
    if not isinstance(operand, int):
        return operand
    if node.index[operand] is not None:
        raise NotASum
    return rank + sum(i is None for i in node.index[:operand])


def _scatter(node: ir.ScatterSum, states: Sequence[State]) -> State:
    operand, index = states[0], states[1:]
    if all(s == FREE for s in index):
        if isinstance(operand, int) and operand > 0:
            return len(index) + operand - 1
        if operand == LINEAR:
            return LINEAR
        raise NotASum
    if operand not in (0, FREE) or any(s != 0 for s in index):
        raise NotASum
    return LINEAR


def _concat(node: ir.Concat, states: Sequence[State]) -> State:
    if len(set(states)) != 1 or states[0] == 0:
        raise NotASum
    return states[0]


def _extern(node: ir.ExternCall, states: Sequence[State]) -> State:
    if _one(states) != 0:  # a call for each row: the iterators come first
        raise NotASum
    return 0


Rule = Callable[[Any, Sequence[State]], State]
RULES: Mapping[type[Expr], Rule] = {
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _align,
    ir.Reduce: _reduce,
    ir.MapLast: _map_last,
    ir.Matrix: _matrix,
    ir.Diag: _diag,
    ir.Gather: _gather,
    ir.ScatterSum: _scatter,
    ir.Concat: _concat,
    ir.ExternCall: _extern,
    ir.Locate: lambda n, s: _one(s),
}
