"""Derivatives of an objective as straight programs: no tape, no graph of the automatic
differentiation.

A product with the Hessian splits into what depends on the point alone, computed once there, and
what depends on the direction, computed for each: for a loss of a linear predictor the first is one
weight per sample, the second two products with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.substitute import rebuild, substitute
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.derive import derivatives

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

# Makes a function of the given inputs from expressions.
Make = Callable[[tuple[Expr, ...], tuple[ir.VarRef, ...]], Callable[..., Any]]
# Values, or arrays.
Values = Sequence[Any]


class Straight:
    """Programs of one objective's derivatives by lower and upper variables.

    Parameters
    ----------
    builder, make
        Where expressions are made, and how they become functions of variables.
    objective
        A scalar expression.
    xs, ys
        Its upper and lower variables.
    """

    def __init__(
        self,
        builder: Builder,
        make: Make,
        objective: Expr,
        xs: tuple[ir.VarRef, ...],
        ys: tuple[ir.VarRef, ...],
    ) -> None:
        self.builder, self.make, self.objective = builder, make, objective
        self.xs, self.ys = xs, ys
        self._gradients: dict[tuple[bool, bool, bool], Callable[..., list[Any]] | None] = {}
        self._products: dict[tuple[bool, bool], Product | None] = {}

    def gradient(self, *, value: bool, by_x: bool, by_y: bool) -> Callable[..., list[Any]] | None:
        """``(xs, ys) -> [value], df/dx ..., df/dy ...`` as asked for; None where there is no
        rule.
        """
        key = (value, by_x, by_y)
        if key not in self._gradients:
            wanted = (*(self.xs if by_x else ()), *(self.ys if by_y else ()))
            found = derivatives(self.builder, self.objective, wanted)
            roots = None if found is None else (*((self.objective,) if value else ()), *found)
            self._gradients[key] = (
                None
                if roots is None
                else several(self.builder, self.make, roots, (*self.xs, *self.ys))
            )
        return self._gradients[key]

    def product(self, *, by_x: bool, by_y: bool) -> Product | None:
        """``v -> f_yy v ..., f_xy v ...`` as asked for; None where there is no rule."""
        key = (by_x, by_y)
        if key not in self._products:
            self._products[key] = self._product(by_x, by_y)
        return self._products[key]

    def _product(self, by_x: bool, by_y: bool) -> Product | None:
        first = derivatives(self.builder, self.objective, self.ys)
        if first is None:
            return None
        along = tuple(self.builder.var("along", f"{v.level}.{v.name}", v.axes) for v in self.ys)
        slope = self.builder.add(
            [inner(self.builder, g, v) for g, v in zip(first, along, strict=True)]
        )
        wanted = (*(self.ys if by_y else ()), *(self.xs if by_x else ()))
        second = derivatives(self.builder, slope, wanted)
        if second is None:
            return None
        return Product(self.builder, self.make, second, (*self.xs, *self.ys), along)


class Product:
    """Expressions linear in some directions: ``at(point)`` computes what does not depend on
    them.
    """

    def __init__(
        self,
        builder: Builder,
        make: Make,
        roots: tuple[Expr, ...],
        point: tuple[ir.VarRef, ...],
        along: tuple[ir.VarRef, ...],
    ) -> None:
        kept, rest = split(builder, roots, frozenset(along))
        held = tuple(builder.var("at", str(k), node.axes) for k, node in enumerate(kept))
        replaced = tuple(substitute(builder, r, dict(zip(kept, held, strict=True))) for r in rest)
        self._at = several(builder, make, kept, point) if kept else None
        self._product = several(builder, make, replaced, (*held, *along))

    @property
    def is_constant(self) -> bool:
        """Whether the product is the same at every point."""
        return self._at is None

    def at(self, point: Values) -> Callable[[Values], list[Any]]:
        """The product at a point, as a function of the directions."""
        product = self._product
        if self._at is None:
            return lambda along: product(*along)
        held = self._at(*point)
        return lambda along: product(*held, *along)


def inner(builder: Builder, a: Expr, b: Expr) -> Expr:
    """The sum of all entries of a product."""
    labels = tuple(range(a.rank))
    return builder.product([(a, labels), (b, labels)], (), dict(enumerate(a.axes)))


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
    axis_of = {
        s: a
        for o, labels in zip(node.operands, node.subscripts, strict=True)
        for s, a in zip(labels, o.axes, strict=True)
    }
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
