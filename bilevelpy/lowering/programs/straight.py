"""Derivatives of an objective as straight programs: no tape, no graph of the automatic
differentiation.

A product with the Hessian splits into what depends on the point alone, computed once there, and
what depends on the direction, computed for each: for a loss of a linear predictor the first is one
weight per sample, the second two products with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.substitute import substitute
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.hoisting import hoisted
from bilevelpy.lowering.programs.splitting import Make, several, split

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

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
            self._gradients[key] = None if roots is None else self._program(roots, by_x)
        return self._gradients[key]

    def value(self) -> Callable[..., list[Any]]:
        """``(xs, ys) -> [the objective]``."""
        return self._program((self.objective,), False)

    def _program(self, roots: tuple[Expr, ...], by_x: bool) -> Callable[..., list[Any]]:
        """The roots as a function of xs and ys. Where x does not move from call to call, what
        reads it alone is kept.
        """
        if by_x:
            return several(self.builder, self.make, roots, (*self.xs, *self.ys))
        return hoisted(self.builder, self.make, roots, self.xs, self.ys)

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
        return Product(self.builder, self.make, second, lambda r: self._program(r, by_x), along)


class Product:
    """Expressions linear in some directions: ``at(point)`` computes what does not depend on
    them.
    """

    def __init__(
        self,
        builder: Builder,
        make: Make,
        roots: tuple[Expr, ...],
        point: Callable[[tuple[Expr, ...]], Callable[..., list[Any]]],
        along: tuple[ir.VarRef, ...],
    ) -> None:
        self.roots, self.along = roots, along
        kept, rest = split(builder, roots, frozenset(along))
        held = tuple(builder.var("at", str(k), node.axes) for k, node in enumerate(kept))
        replaced = tuple(substitute(builder, r, dict(zip(kept, held, strict=True))) for r in rest)
        self._at = point(kept) if kept else None
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
