"""Least squares with one L2 penalty per feature: closed form for the fit, Cholesky adjoint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]


class PenalisedRidge:
    """Lower: mean squared error / 2 + 1/2 sum(exp(lam) w^2). Upper: validation error."""

    def __init__(self, X: Array, y: Array, Xv: Array, yv: Array) -> None:
        self.G, self.c = X.T @ X / len(X), X.T @ y / len(X)
        # The upper objective is a quadratic in w: the rows are not needed again.
        self.Gv, self.cv, self.constant = (
            Xv.T @ Xv / len(Xv),
            Xv.T @ yv / len(Xv),
            float(yv @ yv / len(Xv)),
        )

    def reduced(self, lam: Array) -> tuple[float, Array]:
        """Validation error at the fitted weights, and its derivative in the penalties."""
        H = self.G.copy()
        H[np.diag_indices_from(H)] += np.exp(lam)
        factor = cho_factor(H, overwrite_a=True, check_finite=False)
        w = cho_solve(factor, self.c, check_finite=False)
        half = self.Gv @ w - self.cv
        u = cho_solve(factor, 2 * half, check_finite=False)
        self.w = w
        return float(w @ (half - self.cv) + self.constant), -np.exp(lam) * w * u
