"""Scalar trees of tensor nodes: what is no polynomial of degree two, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import place
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.expand.elementwise import ENTRIES
from bilevelpy.reductions.expand.moves import source_positions, target_positions
from bilevelpy.reductions.expand.products import entries_of
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.reductions.expand.expander import Expander


def _unsupported(run: Expander, node: ir.Expr) -> list[sc.Scalar]:
    what = {
        ir.ExternCall: "an extern function has no formula",
        ir.Matrix: "a singular value has no scalar formula",
    }
    label = what.get(type(node), "has no scalar formula")
    raise refuse(run.bound.program, "BLV0707", place(node), label, what=_what(node))


def _what(node: ir.Expr) -> str:
    if isinstance(node, ir.ExternCall):
        return f"`{node.name}`"
    function = getattr(node, "function", type(node).__name__.lower())
    return f"`{function}`"


def apply_trees(run: Expander, node: ir.Apply) -> list[sc.Scalar]:
    """An elementwise function."""
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
    entries, moving = entries_of(run, node)
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


def _matrix_trees(run: Expander, node: ir.Matrix) -> list[sc.Scalar]:
    """``logdet``: the logarithms of the pivots of an elimination, which are positive exactly where
    a symmetric matrix is positive definite; each is written once.
    """
    if node.function != "logdet":
        return _unsupported(run, node)
    inner = run.operand(node.operand)
    side = run.interpreter.shape(node.operand)[-1]
    run.spend(node, len(inner) * side)
    return [
        sc.add(*(sc.call("log", d) for d in _pivots(inner[first : first + side * side], side)))
        for first in range(0, len(inner), side * side)
    ]


def _pivots(entries: list[sc.Scalar], side: int) -> list[sc.Scalar]:
    a = [entries[row * side : (row + 1) * side] for row in range(side)]
    for k in range(side):
        for i in range(k + 1, side):
            ratio = sc.div(a[i][k], a[k][k])
            if ratio == sc.ZERO:
                continue
            for j in range(k + 1, side):
                a[i][j] = sc.add(a[i][j], sc.mul(sc.Num(-1.0), ratio, a[k][j]))
    return [a[k][k] for k in range(side)]


def _concat_trees(run: Expander, node: ir.Concat) -> list[sc.Scalar]:
    return [t for o in node.operands for t in run.operand(o)]


TREES: dict[type[ir.Expr], Callable[[Expander, Any], list[sc.Scalar]]] = {
    ir.Apply: apply_trees,
    ir.Einsum: _einsum_trees,
    ir.Align: _move_trees,
    ir.Gather: _move_trees,
    ir.Reduce: _scatter_trees,
    ir.ScatterSum: _scatter_trees,
    ir.Diag: _scatter_trees,
    ir.MapLast: _map_trees,
    ir.Concat: _concat_trees,
    ir.Matrix: _matrix_trees,
    ir.ExternCall: _unsupported,
}
