"""Second derivatives of ``F - u'f_y`` in both levels: what the curvature of the reduced objective
is made of.

With the adjoint u kept where it is, ``Phi(x) = F(x, y(x))`` has the second derivative::

    Phi'' = [I  R'] L'' [I; R],     L = F - u'f_y,     R = dy/dx = -f_yy^-1 f_yx

since the terms with d2y/dx2 are ``L_y`` times it, and ``L_y = F_y - f_yy u = 0`` (differentiating
``dPhi/dx = L_x(x, y(x); u(x))`` gives the same). Third derivatives of f come in through L alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.derive import COMPARISONS, derivatives
from bilevelpy.lowering.joint_quadratic import second_product
from bilevelpy.lowering.straight import Product, inner

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr, VarRef
    from bilevelpy.lowering.programs import Programs

Vec = torch.Tensor
# ``s -> f_yx s`` and ``(s, t) -> L''(s, t)`` in x and y.
Products = tuple[Callable[[Vec], Vec], Callable[[Vec, Vec], tuple[Vec, Vec]]]


class ReducedCurvature:
    """The products at any point, derived when they are first asked for."""

    def __init__(self, oracle: Programs) -> None:
        self.oracle = oracle
        self._made: tuple[Product, Product] | None = None
        self._tried = False

    def at(self, x: Vec, y: Vec, u: Vec) -> Products | None:
        """``s -> f_yx s`` (length m) and ``(s, t) -> L''(s, t)`` (lengths n and m); each counts as
        a product of its kind. None where a function of F has no rule, or the second derivative
        jumps.
        """
        if not self._tried:
            self._made, self._tried = _derived(self.oracle), True
        if self._made is None:
            return None
        o = self.oracle
        point = o.parts(x, y)
        across, both = self._made[0].at(point), self._made[1].at([*point, *o.along(u)])
        count = len(o.xs)

        def f_yx(s: Vec) -> Vec:
            o.counts.jvp += 1
            return o.joined(o.lower, across(o.along_x(s)), y)

        def second(s: Vec, t: Vec) -> tuple[Vec, Vec]:
            o.counts.hvp += 1
            parts = both(o.parts(s, t))
            return o.joined(o.upper, parts[:count], x), o.joined(o.lower, parts[count:], y)

        return f_yx, second


def reduced_curvature(oracle: Programs) -> ReducedCurvature | None:
    """None where f has no rules for its derivatives, or second ones that jump (Huber losses): what
    holds at a point then tells little of the points beside it.
    """
    z = (*oracle.xs, *oracle.ys)
    # The products that every run takes anyway.
    known = (
        oracle.lower_product(by_x=False, by_y=True),
        oracle.lower_product(by_x=True, by_y=False),
    )
    if any(p is None or _jumps(p.roots, z) for p in known):
        return None
    return ReducedCurvature(oracle)


def _derived(oracle: Programs) -> tuple[Product, Product] | None:
    builder = oracle.bound.program.builder
    xs, ys, z = oracle.xs, oracle.ys, (*oracle.xs, *oracle.ys)
    slopes = derivatives(builder, oracle.f_expr, ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    if slopes is None or mixed is None:
        return None
    us = tuple(builder.var("adjoint", f"{v.level}.{v.name}", v.axes) for v in ys)
    along_u = builder.add([inner(builder, g, u) for g, u in zip(slopes, us, strict=True)])
    joint = second_product(oracle, builder.sub(oracle.F_expr, along_u), z, z, us)
    return None if joint is None or _jumps(joint.roots, z) else (mixed, joint)


def _jumps(roots: Sequence[Expr], variables: Sequence[VarRef]) -> bool:
    """Whether some node compares a value that depends on variables."""
    return any(
        isinstance(node, ir.Apply)
        and node.function in COMPARISONS
        and any(v in variables for v in postorder(node))
        for root in roots
        for node in postorder(root)
    )
