"""Forms of tensor nodes: exact coefficients of polynomials of degree two."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir import expr as ir
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.expand.moves import source_positions, target_positions
from bilevelpy.reductions.expand.products import entries_of
from bilevelpy.reductions.expand.trees import apply_trees
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
    total,
)

if TYPE_CHECKING:
    from bilevelpy.reductions.expand.expander import Expander


def _reference(run: Expander, node: ir.VarRef | ir.DualRef) -> Form:
    name = node.name if isinstance(node, ir.VarRef) else node.constraint
    return selection(run.offsets[node.level, name], run.size(node), run.width)


def _move(run: Expander, node: ir.Align | ir.Gather) -> Form | None:
    inner = run.part(node.operand)
    positions = source_positions(run, node)
    return None if inner is None or positions is None else take(inner, positions)


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


def _apply(run: Expander, node: ir.Apply) -> Form | None:
    count = run.size(node)
    if node.function == "select":
        return _select(run, node, count)
    inner = run.parts(node.operands)
    if inner is None:
        return None
    if node.function == "add":
        return total([spread(form, count) for form in inner])
    if node.function == "neg":
        return apply_linear(-sp.eye_array(count, format="csr"), inner[0])
    if node.function == "square" and inner[0].is_affine:
        return times(sp.eye_array(count, format="csr"), inner[0], inner[0])
    if all(f.is_constant for f in inner):
        trees = apply_trees(run, node)
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
    entries, moving = entries_of(run, node)
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


FORMS: dict[type[ir.Expr], Callable[[Expander, Any], Form | None]] = {
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
