"""A quadratic objective by its expansion at y = 0: value and gradient without the data."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse.linalg import cg

from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, MATRICES, REDUCTIONS
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.substitute import substitute
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.splitting import several

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.quadratic import QuadraticHessian
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]

# The expanded square must give value and gradient of the original to this accuracy, relative to
# the value of the part of data and to the parts of the gradient: cancellation would otherwise
# hide the residual.
FAITHFUL = 1e-10


def expanded(oracle: Programs, hessian: QuadraticHessian) -> Expanded | None:
    """f by its expansion at y = 0, where that saves work and is accurate."""
    form = Expanded(oracle, hessian)
    return form if form.is_faithful() else None


class Expanded:
    """``f = c(x) + b(x)'y + y'Hy / 2`` and its gradient, without the data."""

    def __init__(self, oracle: Programs, hessian: QuadraticHessian) -> None:
        self._oracle, self._hessian = oracle, hessian
        builder = oracle.bound.program.builder
        zero: dict[Expr, Expr] = {v: builder.fill(0.0, v.axes) for v in oracle.ys}
        first = derivatives(builder, oracle.f_expr, oracle.ys)
        assert first is not None  # the Hessian was derived from it
        roots = tuple(substitute(builder, r, zero) for r in (oracle.f_expr, *first))
        self._is_data = all(builder.is_data(r) for r in roots)
        self._at_zero = several(builder, oracle.program, roots, oracle.program_variables)
        self._held: tuple[torch.Tensor, float, Array, Array | None] | None = None

    @np.errstate(over="ignore", invalid="ignore")  # of points far off, whose value tells
    def value_gradient(self, x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor]:
        """f and df/dy."""
        c, slope, d = self.at(x)
        z = y.numpy()
        Hy = self.Q.dot(z)
        if d is not None:
            Hy += d * z
        value = c + float(z.dot(slope)) + 0.5 * float(z.dot(Hy))
        Hy += slope
        return value, torch.from_numpy(Hy)

    @property
    def Q(self) -> Array:
        """The part of H that is made of data."""
        return self._hessian.Q

    def program(self, x: torch.Tensor) -> tuple[float, Array, Array, Array | None]:
        """c, b, Q and d at x."""
        c, slope, d = self.at(x)
        return c, slope, self.Q, d

    def at(self, x: torch.Tensor) -> tuple[float, Array, Array | None]:
        """c, b and d (None: 0) at x, with ``H = Q + diag d``; computed once for it."""
        held = self._held
        if held is None or not torch.equal(held[0], x):
            oracle, y = self._oracle, self._oracle.y0
            if held is not None and self._is_data:
                value, flat = held[1:3]
            else:
                c, *b = self._at_zero(*oracle.parts(x, y))
                value, flat = float(c), oracle.joined(oracle.lower, b, y).numpy()
            held = self._held = (x.clone(), value, flat, self._hessian.moving_diagonal(x, y))
        return held[1:]

    def is_faithful(self) -> bool:
        """Whether it agrees with the original where that is small: at the response of the start,
        and where the part of data has its minimum, with nothing else to hide its value.
        """
        oracle, x = self._oracle, self._oracle.x0
        zero = torch.zeros_like(oracle.y0)
        _, slope = self.value_gradient(x, zero)
        if not float(slope.norm()) > 0.0:
            return True
        return all(
            self._agrees(x, matrix, slope)
            for matrix in (self._hessian.dense(x, zero).numpy(), self._hessian.Q)
        )

    def _agrees(self, x: torch.Tensor, matrix: Array, slope: torch.Tensor) -> bool:
        """Whether value and gradient agree close to the minimiser that a matrix gives."""
        oracle = self._oracle
        with np.errstate(all="ignore"):  # a matrix of zeros has no minimiser
            y = torch.from_numpy(cg(matrix, -slope.numpy(), rtol=1e-8, maxiter=50)[0])
        if not bool(torch.isfinite(y).all()):
            return False
        value, gradient = self.value_gradient(x, y)
        program = oracle.straight(oracle.f_expr).gradient(value=True, by_x=False, by_y=True)
        assert program is not None  # the Hessian was derived from it
        exact, *parts = program(*oracle.parts(x, y))
        d, z = self._hessian.moving_diagonal(x, y), y.numpy()
        own = float(exact) - (0.5 * float((d * z).dot(z)) if d is not None else 0.0)
        difference = gradient - oracle.joined(oracle.lower, parts, y)
        return bool(
            abs(value - float(exact)) <= FAITHFUL * abs(own)
            and float(difference.norm()) <= FAITHFUL * float(slope.norm())
        )


def has_kinks(objective: Expr, ys: frozenset[Expr]) -> bool:
    """Whether functions with kinks (or jumps of the second derivative) of ``ys`` are in it; which
    of two functions a condition on data selects is none.
    """
    moving: set[Expr] = set()
    for node in postorder(objective):
        if node not in ys and not any(c in moving for c in node.children):
            continue
        moving.add(node)
        tables = {ir.Apply: ELEMENTWISE, ir.Reduce: REDUCTIONS, ir.Matrix: MATRICES}
        table = tables.get(type(node))
        name = getattr(node, "function", "")
        if table is not None and name != "select" and not table[name].smooth:
            return True
    return False


def pays(oracle: Programs) -> bool:
    """Whether one product with the matrix is less work than a pass over the data of f."""
    return 2 * entries(oracle) > oracle.m**2


def entries(oracle: Programs) -> int:
    """Numbers of data that a value of f reads."""
    sizes = oracle.bound.data.sizes
    return sum(
        prod(sizes[a] for a in node.axes)
        for node in postorder(oracle.f_expr)
        if isinstance(node, ir.ParamRef)
    )
