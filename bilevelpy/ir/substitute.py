"""Replacing nodes of an expression by others of the same axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder


def substitute(builder: Builder, root: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """``root`` with every node that is a key replaced by its value; the rest keeps its form.

    Parameters
    ----------
    builder
        The builder that made ``root``.
    replacements
        Node to node; both of a pair have the same axes.
    """
    done: dict[Expr, Expr] = {}
    for node in postorder(root):
        if node in replacements:
            if replacements[node].axes != node.axes:
                raise ValueError(f"substitute: axes {replacements[node].axes} for {node.axes}")
            done[node] = replacements[node]
            continue
        done[node] = rebuild(builder, node, tuple(done[c] for c in node.children))
    return done[root]


def rebuild(builder: Builder, node: Expr, children: tuple[Expr, ...]) -> Expr:
    """The node with other operands of the same axes; itself where they are its own."""
    if all(new is old for new, old in zip(children, node.children, strict=True)):
        return node
    return _REBUILD[type(node)](builder, node, children)


def _einsum(b: Builder, n: ir.Einsum, c: tuple[Expr, ...]) -> Expr:
    return b.einsum(list(zip(c, n.subscripts, strict=True)), n.output, n.span)


def _gather(b: Builder, n: ir.Gather, c: tuple[Expr, ...]) -> Expr:
    given = iter(c[1:])
    return b.gather(c[0], [None if i is None else next(given) for i in n.index], n.span)


_REBUILD: dict[type[Expr], Callable[[Builder, Any, tuple[Expr, ...]], Expr]] = {
    ir.Locate: lambda b, n, c: b.locate(n.axis, c, n.by_number, n.span),
    ir.Apply: lambda b, n, c: b.raw_apply(n.function, c, n.span),
    ir.Einsum: _einsum,
    ir.Align: lambda b, n, c: b.align(c[0], n.source, n.axes, n.span),
    ir.Reduce: lambda b, n, c: b.raw_reduce(n.function, c[0], n.dims, n.span),
    ir.MapLast: lambda b, n, c: b.map_last(n.function, c[0], n.span),
    ir.Matrix: lambda b, n, c: b.matrix(n.function, c[0], n.span),
    ir.Gather: _gather,
    ir.ScatterSum: lambda b, n, c: b.scatter_sum(c[0], c[1:], n.axes[: len(c) - 1], n.span),
    ir.Concat: lambda b, n, c: b.concat(c, n.axes[0], n.span),
    ir.Diag: lambda b, n, c: b.diag(c[0], n.span),
    ir.ExternCall: lambda b, n, c: b.extern(n.name, c, n.axes, n.span),
}
