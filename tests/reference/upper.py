"""The upper level of every hand-written solution: L-BFGS-B on the reduced objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]
Reduced = Callable[[Array], tuple[float, Array]]


@dataclass
class Answer:
    """Where a hand-written solution ended."""

    F: float
    x: Array
    stationarity: float
    evaluations: int
    values: list[float] = field(default_factory=list)
    lower: dict[str, Array] = field(default_factory=dict)


def projected_gradient(x: Array, gradient: Array, low: Array, high: Array) -> float:
    """Largest entry of x - P(x - gradient), P the projection on the box."""
    return float(np.max(np.abs(x - np.clip(x - gradient, low, high))))


def minimise(
    reduced: Reduced,
    start: Array,
    low: float | Array = -np.inf,
    high: float | Array = np.inf,
    gradient_tolerance: float = 1e-9,
    value_tolerance: float = 1e-15,
    memory: int = 30,
    iterations: int = 5000,
) -> Answer:
    """Minimise over a box; ``values`` has the objective after each iteration."""
    start = np.asarray(start, dtype=float)
    low, high = np.broadcast_to(low, start.shape), np.broadcast_to(high, start.shape)
    last: dict[str, float] = {}
    values: list[float] = []

    def fused(x: Array) -> tuple[float, Array]:
        value, gradient = reduced(x)
        last["F"] = value
        return value, gradient

    outcome = minimize(
        fused,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        callback=lambda _x: values.append(last["F"]),
        options={
            "maxiter": iterations,
            "maxfun": 4 * iterations,
            "maxcor": memory,
            "gtol": gradient_tolerance,
            "ftol": value_tolerance,
        },
    )
    value, gradient = reduced(outcome.x)
    return Answer(
        F=value,
        x=outcome.x,
        stationarity=projected_gradient(outcome.x, gradient, low, high),
        evaluations=int(outcome.nfev),
        values=values,
    )
