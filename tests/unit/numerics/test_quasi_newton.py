"""BFGS products: both forms against the dense recursion, subspaces, and vectors that overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bilevelpy.numerics import quasi_newton
from bilevelpy.numerics.quasi_newton import BFGS

N = 12


def learned(count: int) -> tuple[BFGS, np.ndarray]:
    """BFGS with pairs of a diagonal Hessian, and the inverse by the dense update."""
    rng = torch.Generator().manual_seed(count)
    bfgs, C, eye = BFGS(0.5, 30), 0.5 * np.eye(N), np.eye(N)
    for _ in range(count):
        s = torch.randn(N, generator=rng, dtype=torch.float64)
        g = torch.linspace(1.0, 10.0, N, dtype=torch.float64) * s
        assert bfgs.update(s, g)
        a, b = s.numpy(), g.numpy()
        V = eye - np.outer(b, a) / (a @ b)
        C = V.T @ C @ V + np.outer(a, a) / (a @ b)
    return bfgs, C


def on_half(v: torch.Tensor) -> torch.Tensor:
    """Projector onto half of the entries."""
    return v * (torch.arange(N) < N // 2)


def on_sums(v: torch.Tensor) -> torch.Tensor:
    """Projector onto the vectors with sum 0."""
    return v - v.mean(-1, keepdim=True)


@pytest.mark.parametrize("project", [on_half, on_sums])
@pytest.mark.parametrize("short", [0, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_model_on_a_subspace_is_that_of_the_whole_matrix(
    count: int, short: int, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quasi_newton, "SHORT", short)
    bfgs, C = learned(count)
    P = project(torch.eye(N, dtype=torch.float64)).numpy()
    d = project(torch.linspace(-1.0, 2.0, N, dtype=torch.float64))
    expected = np.linalg.pinv(P @ np.linalg.inv(C) @ P, rcond=1e-10) @ d.numpy()
    np.testing.assert_allclose(bfgs.restricted(project, d).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("short", [0, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_products_are_those_of_the_dense_update(
    count: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quasi_newton, "SHORT", short)
    bfgs, C = learned(count)
    d = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)
    np.testing.assert_allclose(bfgs.apply(d).numpy(), C @ d.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("size", [1e200, 1e308, float("inf")])
def test_overflow_is_no_warning(count: int, size: float) -> None:
    # Warnings are errors here. Where only the square of the vector overflows the answer is right.
    bfgs, C = learned(count)
    d = torch.linspace(-1.0, 2.0, N, dtype=torch.float64) * size
    found = bfgs.apply(d).numpy()
    bfgs.restricted(on_half, d)
    if size == 1e200:
        np.testing.assert_allclose(found / size, C @ (d / size).numpy(), rtol=1e-9, atol=1e-12)
    else:
        assert not np.isfinite(found).all()
