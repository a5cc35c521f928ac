"""Second derivatives of ``F - u'f_y`` in both levels: what the curvature of the reduced objective
is made of.

With the adjoint u kept where it is, ``Phi(x) = F(x, y(x))`` has the second derivative::

    Phi'' = [I  R'] L'' [I; R],     L = F - u'f_y,     R = dy/dx = -f_yy^-1 f_yx

since the terms with d2y/dx2 are ``L_y`` times it, and ``L_y = F_y - f_yy u = 0`` (differentiating
``dPhi/dx = L_x(x, y(x); u(x))`` gives the same). Third derivatives of f come in through L alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.ir import expr as ir
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.hessians.coloring import Columns
from bilevelpy.lowering.hessians.joint_quadratic import second_product
from bilevelpy.lowering.hessians.penalties import growth
from bilevelpy.lowering.hessians.single_penalties import SinglePenalties
from bilevelpy.lowering.hessians.sparsity import linear_map
from bilevelpy.lowering.hessians.structured import StructuredCurvature
from bilevelpy.lowering.programs.constraints import standard_bodies
from bilevelpy.lowering.programs.derive import COMPARISONS, derivatives
from bilevelpy.lowering.programs.memory import widest
from bilevelpy.lowering.programs.straight import Product, inner

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr, VarRef
    from bilevelpy.lowering.programs.compiled import Programs

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]
# Products with f_yx up to which it is asked whether x are penalties: those of such columns are few.
PRODUCTS = 30
# Entries of a matrix that are written in the time of one of the data in a product with it.
PASS = 4
# Raises where the time is up.
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Derived:
    """``f_yx s``; ``L''(s, 0)`` with ``L_yy`` by its predictors, or ``L''(s, t)`` without. Columns
    of either by as few products as their zeros allow.
    """

    mixed: Product
    product: Product
    lower: StructuredCurvature | None
    mixed_columns: Columns
    columns: Columns


class SecondOrder:
    """The second derivatives at a point, column by column; ``check`` is called between columns."""

    def __init__(
        self,
        oracle: Programs,
        made: _Derived,
        at: tuple[Vec, Vec, Vec],
        check: Check,
        weights: Sequence[Any] = (),
    ) -> None:
        x, y, u = at
        self._oracle, self._made, self._check = oracle, made, check
        self._x, self._y = x, y
        self._inputs = [*oracle.parts(x, y), *oracle.along(u), *weights]

    def f_yx(self) -> Array:
        """(m, n)."""
        o = self._oracle
        across = self._made.mixed.at(self._inputs[: len(o.program_variables)])
        columns = self._made.mixed_columns

        def product(seed: Vec) -> Array:
            self._check()
            found: Array = o.joined(o.lower, across(o.along_x(seed)), self._y).numpy()
            return found

        o.counts.jvp += len(columns)
        return columns.of(product)

    def reduced(self, R: Array) -> Array:
        """``[I R'] L'' [I; R]``, (n, n), for ``R = dy/dx`` (m, n); symmetric up to rounding."""
        o, lower, columns = self._oracle, self._made.lower, self._made.columns
        product, count = self._made.product.at(self._inputs), len(o.xs)

        def both(parts: list[Any]) -> Array:
            self._check()
            by_x, by_y = o.joined(o.upper, parts[:count], self._x), parts[count:]
            return np.concatenate([by_x.numpy(), o.joined(o.lower, by_y, self._y).numpy()])

        if lower is not None:
            found = columns.of(lambda seed: both(product(o.along_x(seed))))
            o.counts.hvp += len(columns)
            o.counts.grad_f += 1
            by_x, by_y = found[: o.n], found[o.n :]
            inner = by_y.T @ R
            total: Array = by_x + inner + inner.T
            return total + R.T @ (lower.dense(self._inputs).numpy() @ R)
        responses = iter(torch.from_numpy(np.ascontiguousarray(R.T)))
        found = columns.of(lambda unit: both(product(o.parts(unit, next(responses)))))
        o.counts.hvp += o.n
        total = found[: o.n] + R.T @ found[o.n :]
        return total


class ReducedCurvature:
    """The second derivatives at any point, derived when they are first asked for; with ``rows``
    those of ``F + w'G - u'f_y``, for multipliers w of the rows G of the upper level. These belong
    to one piece of many: where second derivatives of F and G jump, they are those of one side.
    """

    def __init__(self, oracle: Programs, *, rows: bool = False) -> None:
        self.oracle, self.rows = oracle, rows

    @cached_property
    def passes(self) -> float:
        """What the second derivatives at a point cost beside f_yy, in passes over the data."""
        made = self._derived
        if made is None:
            return math.inf
        rest = 0.0 if made.lower is None else made.lower.passes
        return len(made.mixed_columns) + 2.0 * len(made.columns) + rest

    def at(
        self, x: Vec, y: Vec, u: Vec, check: Check, weights: Vec | None = None
    ) -> SecondOrder | None:
        """Those at a point; None where a function of F has no rule, or, without rows, they jump."""
        made = self._derived
        if made is None:
            return None
        parts = self._weights(weights) if self.rows and weights is not None else ()
        return SecondOrder(self.oracle, made, (x, y, u), check, parts)

    @cached_property
    def penalty_rates(self) -> Array | None:
        """How fast the penalties grow whose strengths are upper variables: 0 linearly, else
        exponentially, NaN for other variables; None where there is none.
        """
        made, o = self._derived, self.oracle
        if made is None or o.n * o.m == 0 or len(made.mixed_columns) > PRODUCTS:
            return None

        def mixed(x: Vec, y: Vec) -> Array:
            with np.errstate(over="ignore", invalid="ignore"):
                return SecondOrder(o, made, (x, y, y), lambda: None).f_yx().reshape(-1)

        rates = growth(mixed, np.tile(np.arange(o.n), o.m), o.x0, o.m)
        return None if np.isnan(rates).all() else rates

    @cached_property
    def single_penalties(self) -> SinglePenalties | None:
        """The penalties where all upper variables are such, and each lower one has at most one; by
        no column of f_yx, for numbers of variables that are too large for these.
        """
        o = self.oracle
        mixed = second_product(o, o.f_expr, o.xs, o.ys)
        hessian = getattr(o, "predicted", None)
        if mixed is None or hessian is None or o.n * o.m == 0:
            return None
        return SinglePenalties.of(o, mixed, hessian)

    @cached_property
    def _derived(self) -> _Derived | None:
        return _derived(self.oracle, self.rows)

    def _weights(self, weights: Vec) -> list[Any]:
        """The multipliers in the shapes of the constraints."""
        o = self.oracle
        sizes, parts = o.bound.data.sizes, []
        for r in o.G.rows:
            shape = tuple(sizes[a] for a in r.constraint.axes)
            part = weights[r.start : r.stop].reshape(shape)
            parts.append(part.numpy() if o.arrays else part)
        return parts


def reduced_curvature(oracle: Programs, *, rows: bool = False) -> ReducedCurvature | None:
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
    return ReducedCurvature(oracle, rows=rows)


def _derived(oracle: Programs, rows: bool) -> _Derived | None:
    builder = oracle.bound.program.builder
    xs, ys, z = oracle.xs, oracle.ys, (*oracle.xs, *oracle.ys)
    slopes = derivatives(builder, oracle.f_expr, ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    if slopes is None or mixed is None:
        return None
    us = tuple(builder.var("adjoint", f"{v.level}.{v.name}", v.axes) for v in ys)
    along_u = builder.add([inner(builder, g, u) for g, u in zip(slopes, us, strict=True)])
    L = builder.sub(oracle.F_expr, along_u)
    if rows:
        priced = []
        for r in oracle.G.rows:
            c = r.constraint
            weight = builder.var("multiplier", f"{c.name}.{r.part}", c.axes)
            priced.append(inner(builder, standard_bodies(builder, c)[r.part][0], weight))
            us = (*us, weight)
        L = builder.add([L, *priced])
    lower = StructuredCurvature.of(oracle, L, us)
    if lower is not None and _is_dear(oracle, lower):
        lower = None
    product = second_product(oracle, L, z if lower is None else xs, z, us)
    if product is None:
        return None
    if not rows and _jumps([*product.roots, *(lower.roots if lower else ())], z):
        return None
    size = oracle.n + oracle.m
    # Along both levels the directions have the columns of R in them, which are full.
    columns = Columns((size, oracle.n), None) if lower is None else _columns(oracle, product, size)
    return _Derived(mixed, product, lower, _columns(oracle, mixed, oracle.m), columns)


def _is_dear(oracle: Programs, lower: StructuredCurvature) -> bool:
    """Whether the matrix ``L_yy`` is more work than products with it, one for each upper variable:
    that of many followers is mostly zeros.
    """
    by_products = PASS * oracle.n * widest(oracle.bound, (oracle.f_expr,))[0]
    return lower.passes >= oracle.n or oracle.m**2 > by_products


def _columns(oracle: Programs, product: Product, rows: int) -> Columns:
    """The columns of a product along the upper variables."""
    program = oracle.bound.program
    pattern = linear_map(
        program.builder, oracle.bound.data, product.roots, product.along, values=False
    )
    return Columns((rows, oracle.n), pattern)


def _jumps(roots: Sequence[Expr], variables: Sequence[VarRef]) -> bool:
    """Whether some node compares a value that depends on variables."""
    return any(
        isinstance(node, ir.Apply)
        and node.function in COMPARISONS
        and any(v in variables for v in postorder(node))
        for root in roots
        for node in postorder(root)
    )
