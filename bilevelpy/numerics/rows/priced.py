"""Functions of the upper level that read shadow prices, as functions of both levels.

At a response the multipliers l of the lower rows are those of the stationarity of f over the
variables F that no bound holds: with the tight rows A,

    l(x, y) = - (A_F')^+ f_y,F(x, y)        dl = - (A_F')^+ (L_yx dx + f_yy dy)_F,  L = f + l'c

which is a function of both levels, smooth as long as the same rows are tight and independent. A
function ``F(x, y, p)`` of prices ``p = T l`` is ``F(x, y, T l(x, y))`` then, with the derivatives

    dF/dx = F_x - L_xy v,   dF/dy = F_y - f_yy v,   v = A_F^+ T'F_p        (0 outside of F)

and hypergradients, rows of the leader and certificates are what they are without prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.ir.expr import DualRef, Expr, VarRef
from bilevelpy.ir.objectives import upper_objective
from bilevelpy.ir.substitute import substitute
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.constraints import ConstraintFunction
from bilevelpy.lowering.programs.differentiate import gradient
from bilevelpy.lowering.programs.layout import Layout, Piece
from bilevelpy.numerics.rows.fitted_adjoint import FittedAdjoint, Priced
from bilevelpy.numerics.rows.shadow_prices import price_signs

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Constraint, Program

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


def reads_prices(program: Program) -> bool:
    """Whether the leader reads the shadow price of a row."""
    return bool(_read(program))


def _read(program: Program) -> dict[DualRef, None]:
    """The prices that the leader reads."""
    roots = [program.upper.objective, *(t for c in program.upper.constraints for t in c.terms)]
    return {n: None for n in postorder(roots) if isinstance(n, DualRef)}


class PricedOracle(TorchOracle):
    """The oracle of a program whose leader reads prices of rows that are affine in y."""

    def __init__(self, bound: BoundProgram) -> None:
        program = bound.program
        builder, upper = program.builder, program.upper
        read = list(_read(program))
        # The same price may be written at several places.
        keys = dict.fromkeys((n.level, n.constraint, n.axes) for n in read)
        variables = {k: builder.var("price", f"{k[0]}.{k[1]}", k[2]) for k in keys}
        known: dict[Expr, Expr] = {n: variables[n.level, n.constraint, n.axes] for n in read}

        kept = tuple(
            c
            for c in upper.constraints
            if not any(isinstance(n, DualRef) for n in postorder(c.terms))
        )

        def priced(c: Constraint) -> Constraint:
            if c in kept:
                return c
            return replace(c, terms=tuple(substitute(builder, t, known) for t in c.terms))

        rows = tuple(priced(c) for c in upper.constraints)
        nothing = replace(upper, objective=builder.const(0.0), constraints=kept)
        super().__init__(replace(bound, program=replace(program, upper=nothing)))
        whole = replace(
            program,
            upper=replace(
                upper, objective=substitute(builder, upper.objective, known), constraints=rows
            ),
        )
        self.F_expr, self.F_sign = upper_objective(whole)
        self.inputs: tuple[VarRef, ...] = (*self.program_variables, *variables.values())
        pieces, at = [], self.m
        sizes = bound.data.sizes
        self._terms: list[tuple[int, int, float]] = []
        signs = price_signs(self)
        for (level, name, axes), _ in variables.items():
            shape = tuple(sizes[a] for a in axes)
            count = int(np.prod(shape, dtype=int))
            anything = self.lower.pieces[0].variable
            pieces.append(Piece(anything, 0, at, at + count, shape))
            for part, sign in zip(self.g.rows, signs, strict=True):
                if (part.level, part.constraint.name) == (level, name):
                    self._terms += [(at - self.m + i, part.start + i, sign) for i in range(count)]
            at += count
        self.joint = Layout((*self.lower.pieces, *pieces), at)
        self.G = PricedRows(self, replace(bound, program=whole))
        self._fitted = FittedAdjoint(self, affine=True)
        self._last: tuple[Vec, Vec, Priced] | None = None

    # --- derivatives that hold no prices ---------------------------------------------------------

    @property
    def joint_quadratic(self) -> None:
        """Unknown: prices are no quadratic functions."""

    @property
    def second_order(self) -> None:
        """Unknown as well."""

    @property
    def priced_order(self) -> None:
        """Unknown as well."""

    # --- prices -----------------------------------------------------------------------------------

    @cached_property
    def _T(self) -> Array:
        T = np.zeros((self.joint.dim - self.m, self.g.size))
        for row, column, sign in self._terms:
            T[row, column] = sign
        return T

    def are_unique(self, x: Vec, y: Vec) -> bool:
        """Whether the prices at a response are."""
        return self._at(x, y).multipliers is not None

    def _at(self, x: Vec, y: Vec) -> Priced:
        """The multipliers at a point."""
        last = self._last
        if last is None or not (torch.equal(last[0], x) and torch.equal(last[1], y)):
            self._last = last = (x.clone(), y.clone(), self._fitted.priced(x, y))
        return last[2]

    def with_prices(self, x: Vec, y: Vec) -> Vec:
        """y with the prices behind it; NaN where they are not unique."""
        known = self._at(x, y).multipliers
        width = self.joint.dim - self.m
        if known is None:
            return torch.cat([y, torch.full((width,), math.nan, dtype=torch.float64)])
        return torch.cat([y, torch.from_numpy(self._T @ known.numpy())])

    def chained(self, x: Vec, y: Vec, by_x: Vec, by_joint: Vec) -> tuple[Vec, Vec]:
        """Derivatives (k, n) and (k, m) of functions of x, y and prices as functions of x and y."""
        fit, m = self._at(x, y), self.m
        by_y = by_joint[:, :m].clone()
        by_x = by_x.clone()
        q = by_joint[:, m:].numpy() @ self._T
        if not q.any():
            return by_x, by_y
        if fit.multipliers is None:
            reads = torch.from_numpy(q.any(axis=1))
            by_x[reads] = by_y[reads] = math.nan
            return by_x, by_y
        right = np.zeros((len(fit.A), len(q)))
        right[: len(fit.active)] = q[:, fit.active].T
        v = np.zeros((m, len(q)))
        v[fit.free] = np.linalg.lstsq(fit.A[:, fit.free], right, rcond=None)[0]
        cross, H = self.cross(x, y), self.hvp(x, y)
        twice = self.g.twice(x, y, fit.multipliers)
        for k, one in enumerate(torch.from_numpy(np.ascontiguousarray(v.T))):
            by_x[k] -= cross(one) + twice(one)
            by_y[k] -= H(one)
        return by_x, by_y

    # --- the upper objective ----------------------------------------------------------------------

    def _value(self, x: Vec, joint: Vec) -> tuple[Any, list[Any]]:
        leaves = [*self.upper.leaves(x), *self.joint.leaves(joint)]
        return self.function((self.F_expr,), self.inputs)(*leaves), leaves

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return float(self._value(x, self.with_prices(x, y))[0].detach())

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        joint = self.with_prices(x, y)
        value, leaves = self._value(x, joint)
        grads, count = gradient(value, leaves), len(self.upper.pieces)
        by_x, by_joint = self.upper.join(grads[:count], x), self.joint.join(grads[count:], joint)
        F_x, F_y = self.chained(x, y, by_x[None], by_joint[None])
        return value.item(), F_x[0], F_y[0]


class PricedRows(ConstraintFunction):
    """The rows of a leader who reads prices, as functions of both levels."""

    def __init__(self, oracle: PricedOracle, bound: BoundProgram) -> None:
        self.oracle = oracle

        def compiled(bodies: tuple[Expr, ...]) -> Callable[..., Any]:
            return oracle.function(bodies, oracle.inputs)

        super().__init__(bound, [bound.program.upper], (oracle.upper, oracle.joint), compiled)
        # Rows without prices are those of the oracle's own program; the text of the others reads
        # variables that are none of it.
        plain = oracle.G.affine
        known = {id(p.constraint): plain[p.start] for p in oracle.G.rows if p.stop > p.start}
        self.affine = np.zeros(self.size, dtype=bool)
        for part in self.rows:
            self.affine[part.start : part.stop] = known.get(id(part.constraint), False)

    def values(self, x: Vec, y: Vec) -> Vec:
        """The bodies at a point."""
        if not self.size:
            return x.new_zeros(0)
        return super().values(x, self.oracle.with_prices(x, y))

    def jacobian(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """``(c_x, c_y)``."""
        by_x, by_joint = self._jacobian(x, self.oracle.with_prices(x, y))
        return self.oracle.chained(x, y, by_x, by_joint)

    def vjp(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``u -> (c_x' u, c_y' u)``."""
        by_x, by_y = self.jacobian(x, y)
        return lambda u: (by_x.T @ u, by_y.T @ u)
