"""Lower gradient descent at many upper points as one batch."""

from __future__ import annotations

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.together import Gradients

Vec = torch.Tensor

# Steps below this fraction of y are rounding.
ROUNDING = 1e-15


def fixed_paths(
    oracle: Oracle, gradients: Gradients, X: Vec, y: Vec, step: float, steps: int
) -> Vec:
    """The ends of ``steps`` projected gradient steps at the rows of X, all from y."""
    Y = y.expand(X.shape[0], -1)
    for _ in range(steps):
        Y = oracle.domain_y.project(Y - step * gradients(X, Y))
    return Y


def solved_paths(
    oracle: Oracle, gradients: Gradients, X: Vec, y: Vec, step: float, fraction: float, most: int
) -> Vec:
    """The ends of paths from y that go on until their residual is ``fraction`` of that at y.

    Paths that have arrived leave the batch, so that none costs more than it would alone.
    """
    Y = y.expand(X.shape[0], -1).clone()
    running = torch.arange(X.shape[0])
    goal = torch.zeros(X.shape[0], dtype=torch.float64)
    for k in range(most):
        G = gradients(X[running], Y[running])
        residual = _residuals(oracle, Y[running], G)
        if k == 0:
            goal = fraction * residual
        size = torch.linalg.vector_norm(Y[running], dim=1)
        far = (residual > goal[running]) & (step * residual > ROUNDING * size)
        if not bool(far.any()):
            break
        running, G = running[far], G[far]
        Y[running] = oracle.domain_y.project(Y[running] - step * G)
    return Y


def _residuals(oracle: Oracle, Y: Vec, G: Vec) -> Vec:
    """Norms of projected gradients, row by row."""
    domain = oracle.domain_y
    if domain.is_free:
        lengths: Vec = torch.linalg.vector_norm(G, dim=1)
        return lengths
    norms = [domain.projected_gradient_norm(y, g) for y, g in zip(Y, G, strict=True)]
    return torch.tensor(norms, dtype=torch.float64)
