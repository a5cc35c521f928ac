"""Quadratics in which a variable is repeated along an axis that is summed: it counts as often.

The Hessian of ``sum_i (a_i'w + c)^2 / 2`` has ``n`` in the place of the intercept c.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle

A = np.random.default_rng(0).normal(size=(7, 3))
ONES = np.hstack([A, np.ones((7, 1))])
MIXED = np.block(
    [[np.diag((A**2).sum(0)), A.sum(0)[:, None]], [A.sum(0)[None], np.array([[21.0]])]]
)
REPEATED = 7.0 * np.block([[np.eye(3), np.ones((3, 1))], [np.ones((1, 3)), np.array([[3.0]])]])
CASES = {
    "0.5 * sum((A @ w + c - b)^2)": ONES.T @ ONES,
    "0.5 * mean((A @ w + c - b)^2)": ONES.T @ ONES / 7,
    "0.5 * mean((sum(A[i, j] * w[j] for j in p) + c - b[i])^2 for i in n)": ONES.T @ ONES / 7,
    "0.5 * sum((A[i, j] * w[j] + c)^2 for i in n, j in p)": MIXED,
    "0.5 * sum((w[j] + c)^2 for i in n, j in p)": REPEATED,
}


@pytest.mark.parametrize("text", CASES)
def test_hessian_counts_what_is_repeated(text: str) -> None:
    model = bl.parse(
        "model repeated; dim n, p; param A[n, p], b[n];"
        f"upper {{ var x; minimize x^2 + sum(w) + c; }}"
        f"lower f {{ var w[p]; var c; minimize {text}; }}",
        data={"A": A, "b": A[:, 0]},
    )
    o = TorchOracle(model.bound)
    y = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    product = o.hvp(o.x0, y)
    columns = [product(e).numpy() for e in torch.eye(4, dtype=torch.float64)]
    np.testing.assert_allclose(o.hessian(o.x0, y).numpy(), CASES[text], atol=1e-12)
    np.testing.assert_allclose(np.stack(columns), CASES[text], atol=1e-12)
    assert o.quadratic is not None
    np.testing.assert_allclose(o.quadratic.dense(o.x0, y).numpy(), CASES[text], atol=1e-12)


def test_the_response_with_an_intercept() -> None:
    """The normal equations, solved by NumPy."""
    rng = np.random.default_rng(1)
    A, b = rng.normal(size=(30, 4)), 5.0 + rng.normal(size=30)
    model = bl.parse(
        "model intercept; dim n, p; param A[n, p], b[n];"
        "upper { var t in [0.1, 10] start 1; minimize (t - 2)^2 + 0 * c; }"
        "lower f { var w[p]; var c; minimize mean((A @ w + c - b)^2) + t * sumsq(w); }",
        data={"A": A, "b": b},
    )
    result = bl.solve(model)
    assert result.status == "converged"
    X = np.hstack([A, np.ones((30, 1))])
    exact = np.linalg.solve(X.T @ X / 30 + 2.0 * np.diag([1, 1, 1, 1, 0]), X.T @ b / 30)
    np.testing.assert_allclose([*result["w"], result["c"]], exact, atol=1e-6)
