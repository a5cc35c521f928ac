"""Hand-written solutions of those races that `tests/reference` has none for: NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve, lu_factor, lu_solve
from scipy.special import expit, log_expit

Array = np.ndarray[Any, np.dtype[np.float64]]


class Toy:
    """The quadratic problem ``min |x - 1|^2/2 + y'Ay/2`` over ``y = A^-1 x``: one factor."""

    def __init__(self, A: Array) -> None:
        self.factor = cho_factor(A)

    def reduced(self, x: Array) -> tuple[float, Array]:
        """F and its gradient; the adjoint is y itself, because A u = A y."""
        y = cho_solve(self.factor, x, check_finite=False)
        return float(((x - 1) @ (x - 1) + x @ y) / 2), x - 1 + y


class SparseLogistic:
    """A penalty per feature of a logistic regression with sparse rows: Newton and conjugate
    gradients, both preconditioned by the diagonal.
    """

    def __init__(self, X: Any, y: Array, Xv: Any, yv: Array, tolerance: float = 1e-7) -> None:
        self.A, self.V = (
            sp.csr_array(X.multiply(y[:, None])),
            sp.csr_array(Xv.multiply(yv[:, None])),
        )
        self.T, self.squares = sp.csr_array(self.A.T), sp.csr_array(self.A.multiply(self.A).T)
        self.VT = sp.csr_array(self.V.T)
        self.w, self.u = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        self.tolerance = tolerance

    def _solve(self, ridge: Array, D: Array, b: Array, tol: float, u: Array) -> Array:
        M = 1.0 / (self.squares @ D + ridge)
        r = b - self.T @ (D * (self.A @ u)) - ridge * u
        z = M * r
        p, rz = z, r @ z
        for _ in range(500):
            if np.linalg.norm(r) <= tol:
                break
            Hp = self.T @ (D * (self.A @ p)) + ridge * p
            a = rz / (p @ Hp)
            u, r = u + a * p, r - a * Hp
            z = M * r
            rz, old = r @ z, rz
            p = z + rz / old * p
        return u

    def reduced(self, lam: Array) -> tuple[float, Array]:
        """Validation loss and its derivative in the penalties."""
        n, ridge, w = self.A.shape[0], np.exp(lam), self.w
        margin = self.A @ w
        value = -log_expit(margin).mean() + ridge @ w**2 / 2
        first = 0.0
        for _ in range(50):
            p = expit(-margin)
            g = ridge * w - self.T @ p / n
            D, size = p * (1 - p) / n, float(np.linalg.norm(g))
            first = first or size
            if size <= self.tolerance:
                break
            step = self._solve(ridge, D, g, size * min(0.1, size / first), np.zeros_like(w))
            length, fall = 1.0, g @ step
            while True:
                trial = w - length * step
                moved = self.A @ trial
                new = -log_expit(moved).mean() + ridge @ trial**2 / 2
                if new <= value - 1e-4 * length * fall or fall < 1e-13:
                    break
                length /= 2
            w, margin, value = trial, moved, new
        self.w = w
        p = expit(-margin)
        held = self.V @ w
        d = -(self.VT @ expit(-held)) / len(held)
        D = p * (1 - p) / n
        self.u = self._solve(ridge, D, d, 1e-4 * float(np.linalg.norm(d)), self.u)
        return float(-log_expit(held).mean()), -ridge * w * self.u


class SimplexQP:
    """``y(x)`` = minimiser of y'Ay/2 - x'y on the simplex by an active-set method; the adjoint on
    its support. Upper: |y - t|^2/2 + c |x|^2/2.
    """

    def __init__(self, A: Array, t: Array, c: float) -> None:
        self.A, self.t, self.c = A, t, c
        self.support = np.ones(len(t), dtype=bool)

    def _kkt(self, support: Array) -> Any:
        k = int(support.sum())
        K = np.zeros((k + 1, k + 1))
        K[:k, :k] = self.A[np.ix_(support, support)]
        K[:k, k] = K[k, :k] = 1.0
        return lu_factor(K, check_finite=False)

    def reduced(self, x: Array) -> tuple[float, Array]:
        """F and its gradient."""
        n, support = len(x), self.support.copy()
        y = np.zeros(n)
        for _ in range(10 * n):
            factor = self._kkt(support)
            solution = lu_solve(factor, np.append(x[support], 1.0), check_finite=False)
            y[:] = 0.0
            y[support] = solution[:-1]
            if (y < 0).any():
                support &= y > 0
                continue
            price = self.A @ y - x + solution[-1]
            out = ~support & (price < -1e-12)
            if not out.any():
                break
            support[np.argmin(np.where(support, 0.0, price))] = True
        self.support = support
        u = np.zeros(n)
        u[support] = lu_solve(factor, np.append((y - self.t)[support], 0.0), check_finite=False)[
            :-1
        ]
        return float(((y - self.t) @ (y - self.t) + self.c * x @ x) / 2), u + self.c * x


class Followers:
    """Many followers with the same form, their Newton steps as one batch.

    Follower i: sum softplus(y_j - c_ij) + sum S_ij (y_j - x_j)^2/2 + (sum y_j)^2/20.
    Upper: mean_i |y_i - t_i|^2 + |x|^2/100.
    """

    def __init__(self, c: Array, S: Array, t: Array) -> None:
        self.c, self.S, self.t = c, S, t
        self.y = np.zeros_like(c)

    def reduced(self, x: Array) -> tuple[float, Array]:
        """F and its gradient."""
        y, (B, q) = self.y, self.c.shape
        diagonal = np.arange(q)
        for _ in range(50):
            s = expit(y - self.c)
            g = s + self.S * (y - x) + y.sum(1, keepdims=True) / 10
            H = np.full((B, q, q), 0.1)
            H[:, diagonal, diagonal] += s * (1 - s) + self.S
            step = np.linalg.solve(H, g[:, :, None])[:, :, 0]
            y = y - step
            if np.abs(step).max() < 1e-8:
                break
        self.y = y
        r = y - self.t
        u = np.linalg.solve(H, (2 * r / B)[:, :, None])[:, :, 0]
        return float((r * r).sum() / B + 1e-2 * x @ x), (self.S * u).sum(0) + 2e-2 * x
