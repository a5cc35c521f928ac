"""Extreme eigenvalues of a Hessian known by its products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bilevelpy.numerics.linear_solve import dot, norm

Vec = torch.Tensor


def extreme_eigenvalues(
    H: Callable[[Vec], Vec], dim: int, rng: torch.Generator, *, steps: int = 20
) -> tuple[float, float]:
    """Smallest and largest Ritz value of ``steps`` Lanczos steps with full reorthogonalisation.

    The largest one is a good estimate of L from below, the smallest one an upper bound of mu. One
    product per step.
    """
    v = torch.randn(dim, generator=rng, dtype=torch.float64)
    basis = [v / norm(v)]
    diagonal: list[float] = []
    off: list[float] = []
    for k in range(min(steps, dim)):
        w = H(basis[k])
        diagonal.append(dot(w, basis[k]))
        V = torch.stack(basis)
        w = w - V.T @ (V @ w)
        w = w - V.T @ (V @ w)
        beta = norm(w)
        if beta <= 1e-12 * max(abs(a) for a in diagonal) or k + 1 >= min(steps, dim):
            break
        off.append(beta)
        basis.append(w / beta)
    k = len(diagonal)
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, beta in enumerate(off[: k - 1]):
        T[i, i + 1] = T[i + 1, i] = beta
    values = torch.linalg.eigvalsh(T)
    return float(values[0]), float(values[-1])
