"""Large sparse quadratic levels: matrices of data, one Newton step, a diagonal preconditioner."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import lsq_linear

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle

INVERSE = """
model inverse;
dim n;
param A[n, n], t[n];
upper { var x[n] in [BOX] start 0; minimize sumsq(y - t)/2 + 1e-3*sumsq(x)/2; }
lower f { var y[n]; minimize quad(y, A)/2 - dot(x, y); }
"""


def grid(side: int, shift: float) -> sp.csr_array:
    """A Laplacian on a grid with a shift."""
    T = sp.diags_array(
        [np.full(side, 2.0), -np.ones(side - 1), -np.ones(side - 1)], offsets=[0, 1, -1]
    )
    one = sp.eye_array(side)
    return sp.csr_array(sp.kron(T, one) + sp.kron(one, T) + shift * sp.eye_array(side**2))


def made(A: Any, box: str = "-inf, inf") -> bl.Model:
    n = A.shape[0]
    return bl.parse(INVERSE.replace("BOX", box), data={"A": A, "t": np.sin(np.arange(n) / 7)})


def test_second_derivatives_as_sparse_matrices() -> None:
    text = """
    model t; dim n, k;
    param A[n, n], B[n, k], c[n];
    upper { var x[k]; minimize sum((y[i] - x[1])^2*c[i] for i in n) + sumsq(x)
      + sum(y[i]*y[i+1] for i in 1..card(n)-1); }
    lower f { var y[n], z; minimize quad(y, A) - dot(y, B @ x)
      + sum(c[i]*(y[i] - 3*y[i+1])^2 for i in 1..card(n)-1) + z^2 + z*y[2] - x[1]*z; }
    """
    n, k = 700, 3
    draw = np.random.default_rng(0)
    B = sp.random_array((n, k), density=0.2, rng=draw, format="csr")
    A = sp.csr_array(sp.eye_array(n) * 2 + sp.eye_array(n, k=5) * 0.25)
    oracle = TorchOracle(bl.parse(text, data={"A": A, "B": B, "c": draw.random(n)}).bound)
    known = oracle.sparse_quadratic
    assert known is not None
    x, y = oracle.x0, oracle.y0
    eye = np.eye(n + 1)
    product, cross = oracle.hvp(x, y), oracle.cross(x, y)
    columns = [0, 1, 5, 350, n - 1, n]
    for j in columns:
        unit = torch.from_numpy(eye[j])
        np.testing.assert_allclose(known.f_yy[:, [j]].toarray()[:, 0], product(unit), atol=1e-12)
        np.testing.assert_allclose(known.f_yx[[j]].toarray()[0], cross(unit), atol=1e-12)
        # F is quadratic: differences of its gradient are columns of its second derivative.
        F_x, F_y = oracle.grad_F(x, unit)
        F_x0, F_y0 = oracle.grad_F(x, 0 * unit)
        np.testing.assert_allclose(known.yy[:, [j]].toarray()[:, 0], F_y - F_y0, atol=1e-12)
        np.testing.assert_allclose(known.xy[:, [j]].toarray()[:, 0], F_x - F_x0, atol=1e-12)


def test_an_inverse_problem_on_a_grid_is_solved_in_one_step() -> None:
    A = grid(30, 1e-3)
    n = A.shape[0]
    model = made(A)
    result = bl.solve(model, progress=False)
    assert (result.backend, result.status) == ("direct", "converged")
    assert result.counts["lower_solves"] <= 10
    one = sp.eye_array(n)
    K = sp.block_array([[1e-3 * one, None, -one], [None, one, A], [-one, A, None]], format="csc")
    rhs = np.concatenate([np.zeros(n), np.sin(np.arange(n) / 7), np.zeros(n)])
    exact = sp.linalg.spsolve(K, rhs)
    np.testing.assert_allclose(result["y"], exact[n : 2 * n], rtol=1e-5, atol=1e-6)
    assert result.certificate is not None
    assert not any("not known to be convex" in r for r in result.certificate.reasons)


def test_bounds_above_hold() -> None:
    A = grid(25, 1e-2)
    n = A.shape[0]
    result = bl.solve(made(A, "-0.02, 0.03"), progress=False)
    assert result.status == "converged"
    x, y = cp.Variable(n), cp.Variable(n)
    t = np.sin(np.arange(n) / 7)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(y - t) / 2 + 1e-3 * cp.sum_squares(x) / 2),
        [A @ y == x, x >= -0.02, x <= 0.03],
    )
    best = problem.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    assert abs(result.F - best) <= 1e-6 * best


def test_badly_scaled_rows_are_no_obstacle_to_conjugate_gradients() -> None:
    n = 6000
    draw = np.random.default_rng(0)
    S = sp.random_array((n, n), density=3 / n, rng=draw)
    D = sp.diags_array(np.sqrt(np.geomspace(1, 1e6, n)))
    A = sp.csr_array(D @ (S @ S.T + sp.eye_array(n)) @ D)
    text = INVERSE.replace("sumsq(y - t)/2 + 1e-3*sumsq(x)/2", "sumsq(x - t)/2 + quad(y, A)/2")
    model = bl.parse(text.replace("in [BOX]", ""), data={"A": A, "t": np.ones(n)})
    result = bl.solve(model, progress=False)
    assert (result.backend, result.status) == ("aid", "converged")
    assert result.counts["hvp"] < 2000
    x, y = result["x"], result["y"]
    assert np.linalg.norm(A @ y - x) <= 1e-6 * np.linalg.norm(x)
    # Stationary: the adjoint of this objective is y itself.
    assert np.linalg.norm(x - 1 + y) <= 1e-4 * np.linalg.norm(x)


@pytest.mark.parametrize(("side", "box"), [(18, "-inf, inf"), (18, "-1, 1"), (30, "-1, 1")])
def test_few_upper_variables_are_solved_for_by_a_factor_of_the_lower_matrix(
    side: int, box: str
) -> None:
    # 324 lower variables are kept as a band, like 900.
    A = grid(side, 0.1)
    n, k = side**2, 6
    B = np.random.default_rng(1).standard_normal((n, k)) / side
    t = np.sin(np.arange(n) / 7)
    text = INVERSE.replace("x[n]", "x[k]").replace("dim n;", "dim n, k; param B[n, k];")
    text = text.replace("dot(x, y)", "dot(B @ x, y)").replace("BOX", box)
    result = bl.solve(bl.parse(text, data={"A": A, "B": B, "t": t}), progress=False)
    assert (result.backend, result.status) == ("direct", "converged")
    assert result.counts["lower_solves"] <= 14
    R = np.asarray(sp.linalg.spsolve(sp.csc_array(A), B))
    low, high = (-np.inf, np.inf) if "inf" in box else (-1.0, 1.0)
    stacked = np.concatenate([R, np.sqrt(1e-3) * np.eye(k)])
    exact = lsq_linear(stacked, np.concatenate([t, np.zeros(k)]), (low, high), tol=1e-12).x
    np.testing.assert_allclose(result["x"], exact, atol=1e-6 * max(1.0, abs(exact).max()))
