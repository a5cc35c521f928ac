"""Sequential quadratic programming, by SciPy's SLSQP, on a program in columns."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import qr
from scipy.optimize import minimize

if TYPE_CHECKING:
    from bilevelpy.numerics.smooth_program import Program

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
        objective = program.objective
        self.linear = np.asarray(objective.linear[[0]].todense()).ravel()
        self.tree = objective.tree(0) if objective.trees else None
        self.is_smooth = self.tree is None or not self.tree.has_kinks(program.free.tolist())
        rows = program.rows
        self.equal = np.flatnonzero(rows.lower == rows.upper)
        if rows.functions.degree == 1 and self.equal.size:
            linear = rows.functions.linear[self.equal][:, program.free]
            self.equal = self.equal[independent(linear.toarray())]
        self.up = np.flatnonzero(np.isfinite(rows.upper) & (rows.lower != rows.upper))
        self.down = np.flatnonzero(np.isfinite(rows.lower) & (rows.lower != rows.upper))

    def descend(self, start: Array) -> Array | None:
        """All columns at the end of a run from values of the free ones; None where it fails."""
        p = self.p
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
                    lambda y: min(p.value(p.full(y)), UNDEFINED),
                    np.clip(start, p.lower[p.free], p.upper[p.free]),
                    method="SLSQP",
                    jac=self._gradient if self.is_smooth else "3-point",
                    bounds=bounds,
                    constraints=constraints,
                    options={"maxiter": 300, "ftol": 1e-14},
                )
            except (ValueError, ArithmeticError):
                return None
        if not np.isfinite(found.x).all():
            return None
        return p.full(np.clip(found.x, p.lower[p.free], p.upper[p.free]))

    def _gradient(self, y: Array) -> Array:
        """The derivative of the objective; 0 where that has no value, and no way on either."""
        v, quadratic = self.p.full(y), self.p.objective.quadratic
        total = self.linear + quadratic[0] @ v if 0 in quadratic else self.linear.copy()
        if self.tree is not None:
            try:
                total = total + self.tree.gradient(v)
            except (ValueError, ArithmeticError):
                return np.zeros(y.size)
        return np.asarray(total[self.p.free])

    def _slopes(self, chosen: Array, side: str) -> dict[str, Any]:
        """The derivative of linear rows; nothing where they are not, for differences then."""
        functions = self.p.rows.functions
        if functions.degree > 1:
            return {}
        A = functions.linear[chosen][:, self.p.free].toarray()
        J = -A if side == "up" else A
        return {"jac": lambda y: J}

    def _rows(self, y: Array, chosen: Array, side: str) -> Array:
        v = self.p.full(y)
        try:
            value = self.p.rows.functions.value(v)[chosen]
        except (ValueError, ArithmeticError):
            return np.full(chosen.size, -UNDEFINED)
        if side == "up":
            return np.asarray(self.p.rows.upper[chosen] - value)
        return np.asarray(value - self.p.rows.lower[chosen])
