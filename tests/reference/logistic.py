"""Binary logistic regression with one L2 penalty per feature, by Newton and a Cholesky adjoint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

Array = NDArray[np.float64]


class PenalisedLogistic:
    """Lower: mean logistic loss + 1/2 sum(exp(lam) w^2) + bias_penalty/2 b^2.

    Upper: mean logistic loss of the validation rows.
    """

    def __init__(
        self,
        X: Array,
        y: Array,
        Xv: Array,
        yv: Array,
        bias_penalty: float,
    ) -> None:
        signs, valid_signs = np.asarray(y, float), np.asarray(yv, float)
        rows, features = X.shape
        ones, valid_ones = np.ones((rows, 1)), np.ones((len(Xv), 1))
        # The labels are folded into the rows: margins are then one product.
        self.A = np.hstack([X, ones]) * signs[:, None]
        self.V = np.hstack([Xv, valid_ones]) * valid_signs[:, None]
        self.features, self.bias_penalty = features, bias_penalty
        self.w = np.zeros(self.A.shape[1])

    def _ridge(self, lam: Array) -> Array:
        return np.append(np.exp(lam), self.bias_penalty)

    def lower(self, lam: Array) -> tuple[Array, tuple[Array, bool]]:
        """The weights to rounding and the factor of the Hessian there: Newton with halving."""
        ridge, w, rows = self._ridge(lam), self.w, len(self.A)
        margin = self.A @ w
        value = np.logaddexp(0, -margin).mean() + ridge @ w**2 / 2
        for _ in range(100):
            p = expit(-margin)
            gradient = ridge * w - p @ self.A / rows
            root = np.sqrt(p * (1 - p) / rows)
            scaled = self.A * root[:, None]
            H = scaled.T @ scaled
            H[np.diag_indices_from(H)] += ridge
            factor = cho_factor(H, overwrite_a=True, check_finite=False)
            if np.abs(gradient).max() < 1e-13:
                break
            step = cho_solve(factor, gradient, check_finite=False)
            decrement = gradient @ step
            length = 1.0
            while True:
                trial = w - length * step
                trial_margin = self.A @ trial
                trial_value = np.logaddexp(0, -trial_margin).mean() + ridge @ trial**2 / 2
                # Near the solution the value is rounding: Newton's own step is then taken.
                if trial_value <= value - 1e-4 * length * decrement or decrement < 1e-12:
                    break
                length /= 2
            w, margin, value = trial, trial_margin, trial_value
            if decrement < 1e-26:
                break
        self.w = w
        return w, factor

    def reduced(self, lam: Array) -> tuple[float, Array]:
        """Validation loss at the fitted weights, and its derivative in the penalties."""
        w, factor = self.lower(lam)
        margin = self.V @ w
        value = float(np.logaddexp(0, -margin).mean())
        u = cho_solve(factor, -(expit(-margin) @ self.V) / len(self.V), check_finite=False)
        return value, -np.exp(lam) * (w * u)[: self.features]
