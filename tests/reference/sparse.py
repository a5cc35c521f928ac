"""A sparse logistic regression by SciPy: L-BFGS-B in positive and negative parts, a scalar search
above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

Array = np.ndarray[Any, np.dtype[Any]]


def fit(X: Array, y: Array, weight: float, start: Array) -> Array:
    """``argmin mean(log(1 + exp(-y X w))) + weight |w|_1``, from (and to) positive and negative
    parts of w.
    """
    p = X.shape[1]

    def value(z: Array) -> tuple[float, Array]:
        w = z[:p] - z[p:]
        margin = y * (X @ w)
        slope = X.T @ (-y / (1 + np.exp(margin))) / len(y)
        f = np.mean(np.logaddexp(0, -margin)) + weight * z.sum()
        return f, np.concatenate([slope, -slope]) + weight

    found = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * p),
        options={"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 40},
    )
    z: Array = found.x
    return z


def best_weight(data: dict[str, Array], low: float, high: float) -> float:
    """The least validation loss over ``weight = exp(t)``, t in [low, high]."""
    p = data["X"].shape[1]
    warm = np.zeros(2 * p)

    def loss(t: float) -> float:
        nonlocal warm
        warm = fit(data["X"], data["y"], float(np.exp(t)), warm)
        w = warm[:p] - warm[p:]
        return float(np.mean(np.logaddexp(0, -data["yv"] * (data["Xv"] @ w))))

    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(found.fun)
