"""Lower bounds on least eigenvalues: never above the truth, and not far below where it matters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from bilevelpy.analysis.probing.eigenvalues import least_eigenvalue


def spd(n: int, low: float, high: float = 10.0) -> np.ndarray:
    """A matrix with eigenvalues from low to high, turned by three reflections."""
    draw = np.random.default_rng(n)
    A = np.diag(np.linspace(low, high, n))
    for _ in range(3):
        v = draw.standard_normal(n)
        v /= np.linalg.norm(v)
        A = A - 2 * np.outer(v, v @ A)
        A = A - 2 * np.outer(A @ v, v)
    return (A + A.T) / 2


def second_differences(n: int, shift: float) -> sp.csr_array:
    """Eigenvalues shift + (2 - 2 cos(k pi / (n + 1)))^2, k = 1, ..., n."""
    D = sp.diags_array([np.full(n, 2.0), -np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1, -1])
    return sp.csr_array(D @ D + shift * sp.eye_array(n))


@pytest.mark.parametrize("n", [40, 600])
@pytest.mark.parametrize("low", [1e-3, 0.5])
def test_positive(n: int, low: float) -> None:
    found = least_eigenvalue(spd(n, low))
    assert 0.85 * low <= found <= low * (1 + 1e-9)


@pytest.mark.parametrize("n", [40, 600])
def test_negative(n: int) -> None:
    assert least_eigenvalue(spd(n, -0.1)) < 0


def test_crowded_low_end() -> None:
    """Steps of inverse iteration that end among the eigenvalues above the least one."""
    draw = np.random.default_rng(3)
    A = np.full(550, 0.02)
    A[: 550 // 2] = np.linspace(1.0, 30.0, 550 // 2)
    A[-1] = 0.013
    v = draw.standard_normal(550)
    v /= np.linalg.norm(v)
    A = np.diag(A)
    A = A - 2 * np.outer(v, v @ A)
    A = A - 2 * np.outer(A @ v, v)
    assert 0.4 * 0.013 <= least_eigenvalue(A) <= 0.013 * (1 + 1e-9)


@pytest.mark.parametrize("n", [40, 600])
def test_semidefinite_is_zero(n: int) -> None:
    A = np.random.default_rng(0).standard_normal((n // 2, n))
    assert 0.0 <= least_eigenvalue(A.T @ A) <= 1e-10 * n


@pytest.mark.parametrize("n", [300, 5000])
def test_sparse(n: int) -> None:
    low = 1e-3 + (2 - 2 * math.cos(math.pi / (n + 1))) ** 2
    found = least_eigenvalue(second_differences(n, 1e-3))
    assert 0.85 * low <= found <= low * (1 + 1e-6)
    assert least_eigenvalue(second_differences(n, -0.5)) < 0


def test_dominance_is_enough_where_no_factor_is_affordable() -> None:
    n = 4000
    draw = np.random.default_rng(0)
    W = sp.coo_array((draw.random(3 * n), (draw.integers(0, n, 3 * n), draw.integers(0, n, 3 * n))),
                     shape=(n, n)).tocsr()  # fmt: skip
    W = W + W.T
    W.setdiag(0.0)
    laplacian = sp.diags_array(np.asarray(W.sum(axis=1)).reshape(-1)) - W
    assert least_eigenvalue(sp.csr_array(laplacian)) == 0.0
    assert least_eigenvalue(sp.csr_array(laplacian + sp.eye_array(n))) == pytest.approx(1.0)
    assert least_eigenvalue(sp.csr_array(laplacian - sp.eye_array(n))) == -math.inf


def test_bad_entries() -> None:
    assert least_eigenvalue(np.array([[1.0, np.nan], [0.0, 1.0]])) == -math.inf
    assert least_eigenvalue(np.ones((2, 3))) == -math.inf
