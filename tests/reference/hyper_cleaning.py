"""A weight for each training image, by Newton and conjugate gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.special import expit

from tests.reference.krylov import conjugate_gradients
from tests.reference.softmax import cross_entropy, subtract_target

Array = NDArray[np.float64]


# Images of which fewer pixels are not 0 are multiplied without the others.
FEW = 0.25


class HyperCleaning:
    """Lower: mean of sigmoid(x_i) loss_i + ridge/2 |W|^2, bias included. Upper: validation loss.

    ``tolerance`` is of the lower gradient, ``adjoint`` of the adjoint system, relative to its right
    side.
    """

    def __init__(
        self,
        X: Array,
        labels: NDArray[np.integer],
        Xv: Array,
        valid_labels: NDArray[np.integer],
        classes: int,
        ridge: float,
        tolerance: float = 1e-7,
        adjoint: float | None = None,
    ) -> None:
        self.X = np.hstack([X, np.ones((len(X), 1))])
        self.V = np.hstack([Xv, np.ones((len(Xv), 1))])
        self.labels, self.valid_labels = labels.astype(np.intp), valid_labels.astype(np.intp)
        self.classes, self.ridge, self.tolerance = classes, ridge, tolerance
        self.adjoint = 1e-3 * tolerance**0.5 if adjoint is None else adjoint
        self.W = np.zeros((self.X.shape[1], classes))
        self.U = np.zeros_like(self.W)
        # The Hessian is nearly a Kronecker product: curvatures of the classes times second moments
        # of the images. Their eigenvectors, computed once, precondition every system.
        self.moments, self.vectors = eigh(
            self.X.T @ self.X / len(self.X), overwrite_a=True, check_finite=False
        )
        if np.count_nonzero(self.X) < FEW * self.X.size:
            self.X, self.V = sparse.csr_array(self.X), sparse.csr_array(self.V)
        self.products = 0

    def _solve(self, P: Array, right: Array, tolerance: float, start: Array | None = None) -> Array:
        weights = self.weights[:, None] / self.X.shape[0]
        curvature = np.sum(weights * P * (1 - P), axis=0)
        scales = np.outer(np.maximum(self.moments, 0), curvature) + self.ridge

        def product(U: Array) -> Array:
            Z = self.X @ U
            Z -= np.einsum("ik,ik->i", P, Z)[:, None]
            Z *= P
            Z *= weights
            return self.X.T @ Z + self.ridge * U

        def precondition(M: Array) -> Array:
            return self.vectors @ ((self.vectors.T @ M) / scales)

        u, count = conjugate_gradients(product, right, precondition, tolerance, start, 2000)
        self.products += count
        return u

    def lower(self, x: Array) -> Array:
        """The weights of the classifier, by Newton with halving from the last ones."""
        self.weights = expit(x)
        W, n = self.W, self.X.shape[0]
        losses, P = cross_entropy(self.X @ W, self.labels)
        value = self.weights @ losses / n + self.ridge * np.sum(W**2) / 2
        for _ in range(100):
            gradient = (
                self.X.T @ (subtract_target(P, self.labels) * (self.weights[:, None] / n))
                + self.ridge * W
            )
            norm = np.abs(gradient).max()
            if norm < self.tolerance:
                break
            step = self._solve(P, gradient, max(self.tolerance / 3, norm * min(0.1, 10 * norm)))
            decrement, length = float(np.vdot(gradient, step)), 1.0
            while True:
                trial = W - length * step
                losses, P = cross_entropy(self.X @ trial, self.labels)
                trial_value = self.weights @ losses / n + self.ridge * np.sum(trial**2) / 2
                if trial_value <= value - 1e-4 * length * decrement or decrement < 1e-12:
                    break
                length /= 2
            W, value = trial, trial_value
        self.W, self.P = W, P
        return W

    def reduced(self, x: Array) -> tuple[float, Array]:
        """Validation loss at the fitted classifier, and its derivative in x."""
        W = self.lower(x)
        losses, PV = cross_entropy(self.V @ W, self.valid_labels)
        d = self.V.T @ subtract_target(PV, self.valid_labels) / self.V.shape[0]
        self.U = self._solve(self.P, d, self.adjoint * np.abs(d).max(), self.U)
        R = subtract_target(self.P, self.labels)
        slope = self.weights * (1 - self.weights) / self.X.shape[0]
        return float(losses.mean()), -slope * np.einsum("ik,ik->i", R, self.X @ self.U)

    def accuracy(self, X: Array, labels: NDArray[np.integer]) -> float:
        """Share of right answers on other images."""
        Z = X @ self.W[:-1] + self.W[-1]
        return float(np.mean(Z.argmax(axis=1) == labels))
