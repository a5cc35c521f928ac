"""Logarithms of determinants written out entry by entry."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rows import system

DESIGN = """
dim n, p; param X[n, p];
upper { var t in [0, 4]; minimize (q[1] - 0.2)^2 + (q[2] - 0.1)^2 + 0.02*t; }
lower d {
  var q[n] in [0, 0.5];
  let M[i in p, j in p] = sum(q[k] * X[k, i] * X[k, j] for k in n);
  minimize -logdet(M) + t*q[2] + sumsq(q)/2;
  subject to
    one: sum(q) == 1;
    some: q[1] + q[2] <= 0.45;
}
"""


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_values_and_slopes(side: int) -> None:
    rng = np.random.default_rng(side)
    X = rng.standard_normal((side + 2, side))
    made = system(bl.parse(DESIGN, X=X).bound)
    tree = made.lower_objectives.trees[0]
    own = made.lower_columns
    slopes = sc.gradient(tree, set(own.tolist()))
    for _ in range(3):
        v = rng.uniform(0.1, 0.5, made.columns.count)
        q = v[own]
        M = X.T @ (q[:, None] * X)
        f = -np.linalg.slogdet(M)[1] + v[0] * q[1] + q @ q / 2
        assert made.lower_objectives.value(v)[0] == pytest.approx(f)
        slope = -np.einsum("ki,ij,kj->k", X, np.linalg.inv(M), X) + q
        slope[1] += v[0]
        found = [sc.evaluate(slopes[int(j)], v) for j in own]
        assert found == pytest.approx(slope.tolist())


def test_there_is_no_value_where_the_matrix_is_indefinite() -> None:
    text = """
    upper { var x in [0, 1]; minimize x; }
    lower f { var y[2] in [-2, 2]; minimize -logdet([[y[1], 0], [0, y[2]]]); }
    """
    made = system(bl.parse(text).bound)
    with pytest.raises(ValueError, match="domain"):
        # Its determinant is positive all the same.
        made.lower_objectives.value(np.array([0.0, -1.0, -1.0]))


def test_a_design_with_rows() -> None:
    X = np.array([[1, 0.2], [0.3, 1], [-0.5, 0.4], [0.8, 0.7]])
    q, t = cp.Variable(4), cp.Parameter()
    M = sum(q[k] * np.outer(X[k], X[k]) for k in range(4))
    f = -cp.log_det(M) + t * q[1] + cp.sum_squares(q) / 2
    rows = [cp.sum(q) == 1, q[0] + q[1] <= 0.45, q >= 0, q <= 0.5]
    follower = cp.Problem(cp.Minimize(f), rows)

    def F(at: float) -> float:
        t.value = at
        follower.solve(solver="CLARABEL")
        return float((q.value[0] - 0.2) ** 2 + (q.value[1] - 0.1) ** 2 + 0.02 * at)

    result = bl.solve(bl.parse(DESIGN, X=X), backend="nlp", options={"starts": 2})
    assert result.success
    least = min(F(at) for at in np.linspace(0.0, 4.0, 201))
    assert pytest.approx(least, abs=1e-4) == result.F
