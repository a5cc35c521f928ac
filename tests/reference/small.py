"""Small problems with an answer in closed form, or by a search over one variable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

Array = NDArray[np.float64]


def toy(A: Array, B: Array, D: Array, z0: Array) -> tuple[float, Array, Array]:
    """F, x, y of: min 1/2 (x-z0)'D(x-z0) + 1/2 y'Ay with y minimising 1/2 y'Ay - x'By."""
    response = np.linalg.solve(A, B.T)
    x = np.linalg.solve(D + B @ response, D @ z0)
    return float(z0 @ D @ (z0 - x) / 2), x, response @ x


def conditioned_matrix(size: int, condition: float) -> Array:
    """A symmetric matrix, eigenvalues from 1 to `condition` in equal ratios, random basis."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    A = Q @ np.diag(np.geomspace(1, condition, size)) @ Q.T
    return (A + A.T) / 2


def orthogonal_ridge(c: Array, b: Array) -> tuple[float, float]:
    """F and x of one penalty exp(x) where X'X = I: y = c/(1+exp(x)), F = 1/2 |y - b|^2."""
    scale = (c @ b) / (c @ c)
    return float((b @ b - (c @ b) ** 2 / (c @ c)) / 2), float(np.log(1 / scale - 1))


def simplex_projection(t: Array, rho: float) -> tuple[float, Array, Array]:
    """F, x, y of: min 1/2 |y-t|^2 + rho/2 |x|^2 with y the projection of x on the simplex."""
    x = (t - 1 / len(t)) / (1 + rho)
    return float(rho / (1 + rho) * np.sum((t - 1 / len(t)) ** 2) / 2), x, 1 / len(t) + x


def ridge_search(X: Array, y: Array, V: Array, v: Array) -> tuple[float, float, Array]:
    """F, alpha, w of one ridge penalty: sums of squares at both levels."""

    def fit(log_alpha: float) -> Array:
        return np.linalg.solve(X.T @ X + np.exp(log_alpha) * np.eye(X.shape[1]), X.T @ y)

    found = search(lambda s: float(np.sum((V @ fit(s) - v) ** 2)), -12, 12)
    return found[0], float(np.exp(found[1])), fit(found[1])


def logistic_search(X: Array, y: Array, V: Array, v: Array) -> tuple[float, float, Array]:
    """F, alpha, w of one ridge penalty of a logistic regression: mean losses at both levels."""

    def fit(log_alpha: float) -> Array:
        w, alpha, rows = np.zeros(X.shape[1]), np.exp(log_alpha), len(X)
        for _ in range(100):
            p = expit(-y * (X @ w))
            gradient = -X.T @ (y * p) / rows + 2 * alpha * w
            H = X.T @ (X * (p * (1 - p))[:, None]) / rows + 2 * alpha * np.eye(len(w))
            step = np.linalg.solve(H, gradient)
            w = w - step / max(1.0, np.linalg.norm(step))
            if np.abs(step).max() < 1e-15:
                break
        return w

    found = search(lambda s: float(np.logaddexp(0, -v * (V @ fit(s))).mean()), -8, 4)
    return found[0], float(np.exp(found[1])), fit(found[1])


def poisoning(lam: float = 1.0) -> tuple[float, float]:
    """Loss and label of the worst point (1.5, yp), yp in [-5, 5]; ridge through the origin."""
    x, y = np.array([1.0, 2, 3, 1.5]), np.array([1.0, 2, 3, 0])
    best = (-np.inf, 0.0)
    for yp in np.linspace(-5, 5, 100_001):
        y[3] = yp
        w = (x @ y) / (x @ x + lam)
        best = max(best, (float((w - 1) ** 2 + (2 * w - 2) ** 2), float(yp)))
    return best


def parallel_roads() -> tuple[float, float, Array]:
    """F, difference of the tolls, flows: roads of time 1 + .2 f and 2 + .05 f share a demand of 10.

    In equilibrium (both used) 1 + .2 f1 + t1 = 2 + .05 f2 + t2: the flows depend on t1 - t2 only.
    """

    def flows(difference: float) -> Array:
        f1 = (2 + 0.05 * 10 - 1 - difference) / 0.25
        return np.array([f1, 10 - f1])

    def total(difference: float) -> float:
        f = flows(difference)
        toll = max(difference, 0) ** 2 + max(-difference, 0) ** 2
        return float(f[0] * (1 + 0.2 * f[0]) + f[1] * (2 + 0.05 * f[1]) + 0.01 * toll)

    value, difference = search(total, -1, 1.4)
    return value, difference, flows(difference)


def search(value: object, low: float, high: float) -> tuple[float, float]:
    """Minimum over an interval: a grid of 400, then Brent around its best point."""
    grid = np.linspace(low, high, 401)
    values = [value(s) for s in grid]  # type: ignore[operator]
    k = int(np.clip(np.argmin(values), 1, 399))
    found = minimize_scalar(
        value, bracket=(grid[k - 1], grid[k], grid[k + 1]), method="brent", options={"xtol": 1e-11}
    )
    return float(found.fun), float(found.x)
