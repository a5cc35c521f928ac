"""Kinks of F along the response where several variables of the leader lie at one each."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.lower.krylov import newton_cg
from tests.oracles import AutoOracle, box

# The attack moves samples in a box: its worst case adds a norm 1 to the margin.
ATTACKS = """dim n, p; param X[n, p], y[n];
upper { var w[p] start 0.1, b;
  minimize mean(logistic(-y[i] * (sum(attack.Z[i, j] * w[j] for j in p) + b)) for i in n)
    + 0.01 * sumsq(w); }
lower attack { var Z[n, p] in [X - 0.3, X + 0.3];
  maximize mean(logistic(-y[i] * (sum(Z[i, j] * w[j] for j in p) + b)) for i in n); }"""


def robust(X: np.ndarray, y: np.ndarray) -> float:
    """The robust loss, by its closed form."""
    w, b = cp.Variable(X.shape[1]), cp.Variable()
    margin = cp.multiply(y, X @ w + b) - 0.3 * cp.norm1(w)
    loss = cp.sum(cp.logistic(-margin)) / len(y) + 0.01 * cp.sum_squares(w)
    problem = cp.Problem(cp.Minimize(loss))
    problem.solve(solver="CLARABEL")
    return float(problem.value)


@pytest.mark.parametrize(("n", "p", "seed"), [(80, 8, 20), (200, 10, 0)])
def test_weights_that_attacks_hold_at_0(n: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, true = rng.normal(size=(n, p)), rng.normal(size=p)
    y = np.where(X @ true + rng.normal(size=n) > 0, 1.0, -1.0)
    result = bl.solve(bl.parse(ATTACKS, X=X, y=y), backend="direct", time_limit=60, progress=False)
    assert result.success
    assert pytest.approx(robust(X, y), rel=1e-6) == result.F


def test_slopes_without_curvature_reach_their_bounds_at_once() -> None:
    # Gradients of size 1e-4 in a box of width 0.6: no length of them is the right one.
    m = 200
    slope = torch.from_numpy(np.random.default_rng(0).normal(size=m)) * 1e-4
    o = AutoOracle(
        lambda x, y: y.sum(),
        lambda x, y: slope @ y - 1e-6 * (y**2).sum(),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(m, dtype=torch.float64),
        domain_y=box(m, -0.3, 0.3),
    )
    found = newton_cg(o, o.x0, o.y0, tol=1e-12)
    assert found.ended == "reached"
    assert torch.equal(found.y, -0.3 * torch.sign(slope))
    assert found.iterations <= 5
