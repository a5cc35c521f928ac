"""Softmax regression with one L2 penalty per feature.

Newton steps and adjoints are solved by conjugate gradients whose preconditioner is the Cholesky
factor of an earlier Hessian: the factor costs as much as a hundred products, and the Hessian
changes slowly from one upper step to the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

from tests.reference.krylov import conjugate_gradients

Array = NDArray[np.float64]
Labels = NDArray[np.intp]


def cross_entropy(Z: Array, labels: Labels) -> tuple[Array, Array]:
    """Cross-entropy of each row of scores, and the probabilities."""
    top = Z.max(axis=1, keepdims=True)
    E = np.exp(Z - top)
    total = E.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) + top[:, 0] - Z[np.arange(len(Z)), labels]
    return losses, E / total


def subtract_target(P: Array, labels: Labels) -> Array:
    """Probabilities minus one-hot labels: the derivative of the losses in the scores."""
    R = P.copy()
    R[np.arange(len(R)), labels] -= 1
    return R


class PenalisedSoftmax:
    """Lower: mean cross-entropy + 1/2 sum_j exp(lam_j) |W_j|^2 + bias_penalty/2 |b|^2.

    Upper: mean cross-entropy of the validation rows.
    """

    refresh = 12  # conjugate gradient steps after which a new factor pays

    def __init__(
        self,
        X: Array,
        labels: NDArray[np.integer],
        Xv: Array,
        valid_labels: NDArray[np.integer],
        classes: int,
        bias_penalty: float,
    ) -> None:
        self.X = np.hstack([X, np.ones((len(X), 1))])
        self.V = np.hstack([Xv, np.ones((len(Xv), 1))])
        self.labels, self.valid_labels = labels.astype(np.intp), valid_labels.astype(np.intp)
        self.classes, self.bias_penalty = classes, bias_penalty
        self.W = np.zeros((self.X.shape[1], classes))
        self.U = np.zeros_like(self.W)
        self.factor: tuple[Array, bool] | None = None
        self.factorisations = 0

    def _refactor(self, P: Array) -> None:
        """Factor of the Hessian, classes outermost: blocks X'diag(p_k (delta_kl - p_l))X / n."""
        rows, features = self.X.shape
        G = np.empty((rows, self.classes, features))
        np.multiply(self.X[:, None, :], P[:, :, None], out=G)
        # dsyrk fills one triangle at half the cost of a full product.
        H = dsyrk(-1.0 / rows, G.reshape(rows, -1).T, lower=1)
        for k in range(self.classes):
            part = slice(k * features, (k + 1) * features)
            H[part, part] += G[:, k].T @ self.X / rows
        H[np.diag_indices_from(H)] += np.tile(self.ridge[:, 0], self.classes)
        self.factor = cho_factor(H, lower=True, overwrite_a=True, check_finite=False)
        self.factorisations += 1

    def _precondition(self, M: Array) -> Array:
        assert self.factor is not None
        return cho_solve(self.factor, M.T.ravel(), check_finite=False).reshape(self.classes, -1).T

    def _solve(self, P: Array, right: Array, tolerance: float, start: Array | None = None) -> Array:
        if self.factor is None:
            self._refactor(P)

        def product(U: Array) -> Array:
            Z = self.X @ U
            Z -= np.einsum("ik,ik->i", P, Z)[:, None]
            Z *= P
            return self.X.T @ Z / len(self.X) + self.ridge * U

        u, count = conjugate_gradients(
            product, right, self._precondition, tolerance, start, self.refresh
        )
        if count == self.refresh:
            self._refactor(P)
            u, _ = conjugate_gradients(product, right, self._precondition, tolerance, u)
        return u

    def lower(self, lam: Array) -> Array:
        """The weights to rounding, by Newton with halving from the last weights."""
        self.ridge = np.append(np.exp(lam), self.bias_penalty)[:, None]
        W, ridge, rows = self.W, self.ridge, len(self.X)
        losses, P = cross_entropy(self.X @ W, self.labels)
        value = losses.mean() + np.sum(ridge * W**2) / 2
        for _ in range(100):
            gradient = self.X.T @ subtract_target(P, self.labels) / rows + ridge * W
            norm = np.abs(gradient).max()
            if norm < 1e-12:
                break
            step = self._solve(P, gradient, max(1e-14, norm * min(0.05, 10 * norm)))
            decrement = float(np.vdot(gradient, step))
            length = 1.0
            while True:
                trial = W - length * step
                losses, P = cross_entropy(self.X @ trial, self.labels)
                trial_value = losses.mean() + np.sum(ridge * trial**2) / 2
                # Near the solution the value is rounding: Newton's own step is then taken.
                if trial_value <= value - 1e-4 * length * decrement or decrement < 1e-12:
                    break
                length /= 2
            W, value = trial, trial_value
        self.W, self.P = W, P
        return W

    def reduced(self, lam: Array) -> tuple[float, Array]:
        """Validation loss at the fitted weights, and its derivative in the penalties."""
        W = self.lower(lam)
        losses, PV = cross_entropy(self.V @ W, self.valid_labels)
        d = self.V.T @ subtract_target(PV, self.valid_labels) / len(self.V)
        self.U = self._solve(self.P, d, max(1e-14, 1e-11 * np.abs(d).max()), self.U)
        return float(losses.mean()), -self.ridge[:-1, 0] * np.einsum("jk,jk->j", W, self.U)[:-1]

    def accuracy(self, X: Array, labels: NDArray[np.integer]) -> tuple[float, float]:
        """Loss and share of right answers on other data, at the last weights."""
        Z = np.hstack([X, np.ones((len(X), 1))]) @ self.W
        losses, _ = cross_entropy(Z, labels.astype(np.intp))
        return float(losses.mean()), float(np.mean(Z.argmax(axis=1) == labels))
