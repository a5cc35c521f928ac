"""The quadratic test family: sizes 100 and 1,000, condition numbers 2, 100 and 1,000."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import bilevelpy as bl
from tests.reference.small import conditioned_matrix, simplex_projection, toy

MODEL = """
model toy;
dim n;
param A[n, n], B[n, n], D[n, n], z[n];
upper {
  var x[n] start 2;
  minimize quad(x - z, D)/2 + quad(y, A)/2;
}
lower follow {
  var y[n] start 2;
  minimize quad(y, A)/2 - x' @ B @ y;
}
"""


@cache
def data(size: int, condition: int) -> dict[str, np.ndarray]:
    identity = np.eye(size)
    A = conditioned_matrix(size, condition)
    return {"A": A, "B": identity, "D": identity, "z": np.ones(size)}


@pytest.mark.parametrize("backend", ["auto", "direct", "aid", "qnbo"])
@pytest.mark.parametrize("condition", [2, 100, 1000])
@pytest.mark.parametrize("size", [100, 1000])
def test_solved_to_a_millionth(size: int, condition: int, backend: str) -> None:
    given = data(size, condition)
    expected, x, y = toy(given["A"], given["B"], given["D"], given["z"])
    result = bl.solve(bl.parse(MODEL, data=given), backend=backend)
    assert result.status == "converged", result.message
    assert pytest.approx(expected, rel=1e-6) == result.F
    assert np.linalg.norm(result["x"] - x) <= 1e-4 * np.linalg.norm(x)
    assert np.linalg.norm(result["y"] - y) <= 1e-4 * np.linalg.norm(y)


@pytest.mark.parametrize(
    ("condition", "expected"), [(2, 20.56064003102886), (100, 6.692217297450469)]
)
def test_published_optima(condition: int, expected: float) -> None:
    given = data(100, condition)
    assert toy(*(given[k] for k in "ABDz"))[0] == pytest.approx(expected, rel=1e-12)


def test_full_matrices() -> None:
    """No matrix is the identity: B and D are full as well."""
    draw = np.random.default_rng(1)
    n = 50
    A = conditioned_matrix(n, 50)
    R = draw.uniform(size=(n, n))
    D = R @ R.T / n + 0.1 * np.eye(n)
    given = {"A": A, "B": draw.uniform(size=(n, n)), "D": D, "z": draw.uniform(size=n)}
    expected, x, _ = toy(given["A"], given["B"], given["D"], given["z"])
    result = bl.solve(bl.parse(MODEL, data=given))
    assert result.status == "converged", result.message
    assert pytest.approx(expected, rel=1e-6) == result.F
    assert np.linalg.norm(result["x"] - x) <= 1e-4 * np.linalg.norm(x)


SIMPLEX = """
model project;
dim n;
param target[n], rho;
upper { var x[n] start 0; minimize sumsq(y - target)/2 + rho * sumsq(x)/2; }
lower follow { var y[n] in simplex; minimize sumsq(y)/2 - dot(x, y); }
"""


@pytest.mark.parametrize("backend", ["auto", "direct", "aid", "qnbo"])
def test_simplex_from_another_support(backend: str) -> None:
    """Three of five coordinates of y are zero at the start and positive at the optimum."""
    target = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    model = bl.parse(SIMPLEX, data={"target": target, "rho": 0.1})
    result = bl.solve(model, backend=backend, start={"x": np.array([0.9, 0.5, -0.6, 0.1, -1.0])})
    expected, x, y = simplex_projection(target, 0.1)
    assert result.status == "converged", result.message
    assert pytest.approx(expected, rel=1e-6) == result.F
    np.testing.assert_allclose(result["x"], x, atol=1e-5)
    np.testing.assert_allclose(result["y"], y, atol=1e-5)
