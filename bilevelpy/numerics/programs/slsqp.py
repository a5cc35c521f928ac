"""Sequential quadratic programming, by SciPy's SLSQP, on a program in columns."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import qr
from scipy.optimize import minimize

from bilevelpy.numerics.programs.function_slopes import FunctionSlopes

if TYPE_CHECKING:
    from bilevelpy.numerics.programs.smooth import Program

Array = np.ndarray[Any, np.dtype[Any]]

# Stands for a value outside the domain of a function, where SLSQP takes finite ones only.
UNDEFINED = 1e10
# What is left of an equation without its part along the others, if that is none.
DEPENDENT = 1e-10


def independent(matrix: Array) -> Array:
    """Rows of which none follows from the others: where flows are balanced at every node, one does,
    and SLSQP stops at once at a singular matrix.
    """
    rows = matrix / np.maximum(np.linalg.norm(matrix, axis=1), 1e-300)[:, None]
    R, order = qr(rows.T, mode="r", pivoting=True)
    sizes = np.abs(R.diagonal())
    count = int((sizes > DEPENDENT * sizes.max(initial=0.0)).sum())
    return np.asarray(np.sort(order[:count]))


class Slsqp:
    """One program as SciPy takes it: trees are differentiated by the chain rule, those with kinks
    by central differences.
    """

    def __init__(self, program: Program) -> None:
        self.p = program
        self.unit = 1.0
        self.objective = FunctionSlopes(program.objective, program.free)
        self.rows = FunctionSlopes(program.rows.functions, program.free)
        rows = program.rows
        self.equal = np.flatnonzero(rows.lower == rows.upper)
        if rows.functions.degree == 1 and self.equal.size:
            self.equal = self.equal[independent(self.rows.linear[self.equal])]
        self.up = np.flatnonzero(np.isfinite(rows.upper) & (rows.lower != rows.upper))
        self.down = np.flatnonzero(np.isfinite(rows.lower) & (rows.lower != rows.upper))

    def descend(self, start: Array) -> Array | None:
        """All columns at the end of a run from values of the free ones; None where it fails."""
        p = self.p
        first = np.clip(start, p.lower[p.free], p.upper[p.free])
        # SLSQP stops at changes below an absolute tolerance: those of the objective are its unit.
        self.unit = p.unit(p.full(first))
        constraints = [
            {"type": kind, "fun": partial(self._rows, chosen=chosen, side=side)}
            | self._slopes(chosen, side)
            for kind, chosen, side in (
                ("eq", self.equal, "equal"),
                ("ineq", self.up, "up"),
                ("ineq", self.down, "down"),
            )
            if chosen.size
        ]
        bounds = list(zip(p.lower[p.free], p.upper[p.free], strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = minimize(
                    self._value,
                    first,
                    method="SLSQP",
                    jac=self._gradient if self.objective.is_smooth else "3-point",
                    bounds=bounds,
                    constraints=constraints,
                    options={"maxiter": 300, "ftol": 1e-14},
                )
            except (ValueError, ArithmeticError):
                return None
        if not np.isfinite(found.x).all():
            return None
        return p.full(np.clip(found.x, p.lower[p.free], p.upper[p.free]))

    def _value(self, y: Array) -> float:
        try:
            value = float(self.objective.value(self.p.full(y))[0])
        except (ValueError, ArithmeticError, TypeError):
            return UNDEFINED
        return min(value / self.unit, UNDEFINED) if math.isfinite(value) else UNDEFINED

    def _gradient(self, y: Array) -> Array:
        """The derivative of the objective; 0 where that has no value, and no way on either."""
        try:
            return np.asarray(self.objective.jacobian(self.p.full(y))[0]) / self.unit
        except (ValueError, ArithmeticError):
            return np.zeros(y.size)

    def _slopes(self, chosen: Array, side: str) -> dict[str, Any]:
        """The derivative of rows; nothing where they have kinks, for differences then."""
        if not self.rows.is_smooth:
            return {}
        sign = -1.0 if side == "up" else 1.0
        if self.p.rows.functions.degree == 1:
            J = sign * self.rows.linear[chosen]
            return {"jac": lambda y: J}
        return {"jac": partial(self._jacobian, chosen=chosen, sign=sign)}

    def _jacobian(self, y: Array, chosen: Array, sign: float) -> Array:
        try:
            return np.asarray(sign * self.rows.jacobian(self.p.full(y))[chosen])
        except (ValueError, ArithmeticError):
            return np.zeros((chosen.size, y.size))

    def _rows(self, y: Array, chosen: Array, side: str) -> Array:
        try:
            value = self.rows.value(self.p.full(y))[chosen]
        except (ValueError, ArithmeticError):
            return np.full(chosen.size, -UNDEFINED)
        if side == "up":
            return np.asarray(self.p.rows.upper[chosen] - value)
        return np.asarray(value - self.p.rows.lower[chosen])
