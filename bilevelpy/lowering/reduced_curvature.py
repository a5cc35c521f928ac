"""Second derivatives of ``F - u'f_y`` in both levels: what the curvature of the reduced objective
is made of.

With the adjoint u kept where it is, ``Phi(x) = F(x, y(x))`` has the second derivative::

    Phi'' = [I  R'] L'' [I; R],     L = F - u'f_y,     R = dy/dx = -f_yy^-1 f_yx

since the terms with d2y/dx2 are ``L_y`` times it, and ``L_y = F_y - f_yy u = 0`` (differentiating
``dPhi/dx = L_x(x, y(x); u(x))`` gives the same). Third derivatives of f come in through L alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.derive import COMPARISONS, derivatives
from bilevelpy.lowering.joint_quadratic import second_product
from bilevelpy.lowering.splitting import several
from bilevelpy.lowering.straight import Product, inner

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr, VarRef
    from bilevelpy.lowering.programs import Programs

Vec = torch.Tensor
# ``s -> f_yx s`` and ``(s, t) -> L''(s, t)`` in x and y.
Products = tuple[Callable[[Vec], Vec], Callable[[Vec, Vec], tuple[Vec, Vec]]]


class ReducedCurvature:
    """The products at any point, derived once."""

    def __init__(self, oracle: Programs, mixed: Product, joint: Product) -> None:
        self.oracle, self.mixed, self.joint = oracle, mixed, joint

    def at(self, x: Vec, y: Vec, u: Vec) -> Products:
        """``s -> f_yx s`` (length m) and ``(s, t) -> L''(s, t)`` (lengths n and m); each counts as
        a product of its kind.
        """
        o = self.oracle
        point = o.parts(x, y)
        across, both = self.mixed.at(point), self.joint.at([*point, *o.along(u)])
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
    """None where a function has no rule for its derivatives, or second derivatives that jump (Huber
    losses): what holds at a point then tells little of the points beside it.
    """
    builder = oracle.bound.program.builder
    xs, ys = oracle.xs, oracle.ys
    slopes = derivatives(builder, oracle.f_expr, ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    if slopes is None or mixed is None:
        return None
    us = tuple(builder.var("adjoint", f"{v.level}.{v.name}", v.axes) for v in ys)
    along_u = builder.add([inner(builder, g, u) for g, u in zip(slopes, us, strict=True)])
    L = builder.sub(oracle.F_expr, along_u)
    z = (*xs, *ys)
    first = derivatives(builder, L, z)
    if first is None:
        return None
    along = tuple(builder.var("along", f"{v.level}.{v.name}", v.axes) for v in z)
    slope = builder.add([inner(builder, g, v) for g, v in zip(first, along, strict=True)])
    second = derivatives(builder, slope, z)
    if second is None:
        return None
    # Of f the second derivatives are in the first ones of L.
    if any(_jumps(node, z) for root in (*first, *second) for node in postorder(root)):
        return None

    def point(kept: Sequence[Expr]) -> Callable[..., list[Any]]:
        return several(builder, oracle.program, tuple(kept), (*oracle.program_variables, *us))

    return ReducedCurvature(oracle, mixed, Product(builder, oracle.program, second, point, along))


def _jumps(node: Expr, variables: Sequence[VarRef]) -> bool:
    """Whether a node compares a value that depends on variables."""
    if not (isinstance(node, ir.Apply) and node.function in COMPARISONS):
        return False
    return any(v in variables for v in postorder(node))
