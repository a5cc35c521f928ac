"""The reduced form: F along the best responses as a function of x alone.

``Phi(x) = F(x, y(x))`` and the leader's rows along ``y(x)`` are minimised by SLSQP (L-BFGS-B where
there are bounds only), with derivatives from the KKT adjoint. Every evaluation solves all followers
at once, so the size of x decides, not that of y.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bilevelpy.numerics.joint_response import JointResponse, Response

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Stands for F where followers have no response.
NOWHERE = 1e20
ITERATIONS = 200


class _Over(Exception):
    """The time is up, or somebody wants no more."""


@dataclass(slots=True)
class Reduced:
    """Local minima of the reduced form until ``deadline`` (of ``time.perf_counter``).

    ``seen`` is told of every better feasible point (values, F) and may stop the run.
    """

    system: System
    joint: JointResponse
    deadline: float
    tol: float
    seen: Callable[[Array, float], bool]
    best: Array | None = None
    objective: float = math.inf
    solves: int = 0
    _at: tuple[bytes, Response | None] = field(default=(b"", None))

    def run(self, start: Array) -> bool:
        """Descend from the leader's part of ``start``; whether SciPy calls the end a minimum."""
        chosen = self.system.upper_columns
        columns, rows = self.system.columns, self.system.upper_rows
        bounds = list(zip(columns.lower[chosen], columns.upper[chosen], strict=True))
        base = start.copy()

        def place(x: Array) -> Array:
            v = base.copy()
            v[chosen] = np.clip(x, columns.lower[chosen], columns.upper[chosen])
            return v

        def value(x: Array) -> tuple[float, Array]:
            response = self._response(place(x))
            if response is None:
                return NOWHERE, np.zeros(chosen.size)
            objective = float(self.system.objective.value(response.values)[0])
            return objective, self.joint.gradient(self.system.objective, response)[0]

        constraints: list[dict[str, Any]] = []
        for r in range(rows.count):
            one = rows.functions.take([r])
            kinds = (
                [("eq", 1.0, rows.lower[r])]
                if rows.lower[r] == rows.upper[r]
                else [
                    ("ineq", 1.0, rows.lower[r]),
                    ("ineq", -1.0, rows.upper[r]),
                ]
            )
            for kind, sign, end in kinds:
                if math.isfinite(end):
                    constraints.append(self._constraint(place, one, kind, sign, float(end)))
        method = "SLSQP" if constraints else "L-BFGS-B"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                options = {"maxiter": ITERATIONS, "ftol": 1e-3 * self.tol * 1e-3}
                found = minimize(
                    value,
                    base[chosen],
                    jac=True,
                    method=method,
                    bounds=bounds,
                    constraints=constraints,
                    options=options,
                )
            except _Over:
                return False
        return bool(found.success)

    def _constraint(
        self, place: Callable[[Array], Array], one: Any, kind: str, sign: float, end: float
    ) -> dict[str, Any]:
        def fun(x: Array) -> float:
            response = self._response(place(x))
            return (
                -NOWHERE if response is None else sign * float(one.value(response.values)[0] - end)
            )

        def jac(x: Array) -> Array:
            response = self._response(place(x))
            if response is None:
                return np.zeros(x.size)
            return np.asarray(sign * self.joint.gradient(one, response)[0])

        return {"type": kind, "fun": fun, "jac": jac}

    def _response(self, v: Array) -> Response | None:
        """Responses at x; the last ones are kept."""
        key = v[self.system.upper_columns].tobytes()
        if self._at[0] == key:
            return self._at[1]
        if time.perf_counter() > self.deadline:
            raise _Over
        self.solves += 1
        response = self.joint.solve(v)
        self._at = (key, response)
        if response is not None:
            self._consider(response.values)
        return response

    def _consider(self, values: Array) -> None:
        rows = self.system.upper_rows
        size = 1e-7 * np.maximum(1.0, np.abs(np.where(np.isfinite(rows.upper), rows.upper, 0.0)))
        if bool((rows.violation(values) > size).any()):
            return
        objective = float(self.system.objective.value(values)[0])
        if objective < self.objective:
            self.best, self.objective = values, objective
            if self.seen(values, objective):
                raise _Over
