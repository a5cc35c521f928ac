"""Programs cut in two: what does not move from call to call, and the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.substitute import rebuild
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

# Makes a function of the given inputs from expressions.
Make = Callable[[tuple[Expr, ...], tuple[ir.VarRef, ...]], Callable[..., Any]]


def split(
    builder: Builder, roots: tuple[Expr, ...], along: frozenset[ir.VarRef]
) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """The largest nodes that read variables but none of ``along``, and the roots with such factors
    of a product joined into one.
    """
    done: dict[Expr, Expr] = {}
    moving: set[Expr] = set(along)
    for node in postorder(roots):
        new = rebuild(builder, node, tuple(done[c] for c in node.children))
        if any(c in moving for c in new.children):
            if isinstance(new, ir.Einsum) and not new.contracts:
                new = _joined(builder, new, moving)
            moving.add(new)
        done[node] = new
    roots = tuple(done[r] for r in roots)
    kept: dict[Expr, None] = {}
    for node in postorder(roots):
        if node in moving or node in roots:
            parts = node.children if node in moving else (node,)
            for part in parts:
                if part not in moving and not builder.is_data(part):
                    kept.setdefault(part)
    return tuple(kept), roots


def _joined(builder: Builder, node: ir.Einsum, moving: set[Expr]) -> Expr:
    """A product whose fixed factors over the same labels are one factor."""
    groups: dict[tuple[int, ...], list[tuple[Expr, tuple[int, ...]]]] = {}
    rest: list[tuple[Expr, tuple[int, ...]]] = []
    for operand, labels in zip(node.operands, node.subscripts, strict=True):
        if operand in moving or len(set(labels)) < len(labels):
            rest.append((operand, labels))
        else:
            groups.setdefault(tuple(sorted(labels)), []).append((operand, labels))
    scalars = groups.get(())
    wider = [labels for labels in groups if labels]
    if scalars and wider:
        groups[min(wider, key=len)] += groups.pop(())
    if all(len(members) == 1 for members in groups.values()):
        return node
    axis_of = node.axis_of
    for labels, members in groups.items():
        axes = {s: axis_of[s] for s in labels}
        rest.append((builder.product(members, labels, axes), labels))
    return builder.einsum(rest, node.output, node.span)


def several(
    builder: Builder, make: Make, roots: tuple[Expr, ...], inputs: tuple[ir.VarRef, ...]
) -> Callable[..., list[Any]]:
    """A function that returns a list, each entry in memory of its own."""
    function = make(roots, inputs)
    shared = [k for k, root in enumerate(roots) if builder.is_data(root) or not _is_fresh(root)]
    single = len(roots) == 1

    def call(*values: Any) -> list[Any]:
        found = [function(*values)] if single else list(function(*values))
        for k in shared:
            found[k] = copied(found[k])
        return found

    return call


def copied(value: Any) -> Any:
    """A tensor or array in memory of its own."""
    return value.clone() if hasattr(value, "clone") else np.array(value)


def _is_fresh(node: Expr) -> bool:
    """Whether evaluating a node makes a new tensor: data, variables and their views are shared."""
    if isinstance(node, ir.Einsum):
        return len(node.operands) > 1
    return isinstance(node, ir.Apply | ir.Reduce | ir.MapLast | ir.ScatterSum | ir.Concat)
