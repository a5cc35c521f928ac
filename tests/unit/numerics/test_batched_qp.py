"""Batches of quadratic programs against Clarabel through CVXPY, one by one."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.numerics.qp.batched import Programs, saddle, solve
from bilevelpy.reductions.rows import system


def programs(seed: int, count: int = 12, q: int = 5, m: int = 7, p: int = 1) -> Programs:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((count, q, q))
    G = rng.standard_normal((count, m, q))
    inside = rng.standard_normal((count, q))  # is feasible
    value = np.einsum("kmq,kq->km", G, inside)
    A = rng.standard_normal((count, p, q))
    low, high = value - rng.random((count, m)), value + rng.random((count, m))
    low[:, 0], high[:, 1] = -np.inf, np.inf
    b = np.einsum("kpq,kq->kp", A, inside)
    H = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(q)
    return Programs(H, 3 * rng.standard_normal((count, q)), A, b, G, low, high)


def one(p: Programs, k: int) -> np.ndarray:
    y = cp.Variable(p.c.shape[1])
    up, down = np.isfinite(p.high[k]), np.isfinite(p.low[k])
    rows = [
        p.A[k] @ y == p.b[k],
        p.G[k][up] @ y <= p.high[k][up],
        p.G[k][down] @ y >= p.low[k][down],
    ]
    f = 0.5 * cp.quad_form(y, cp.psd_wrap(p.H[k])) + p.c[k] @ y
    cp.Problem(cp.Minimize(f), rows).solve(solver=cp.CLARABEL)
    return np.asarray(y.value)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_agrees_with_clarabel(seed: int) -> None:
    p = programs(seed)
    found = solve(p)
    assert found.solved.all()
    assert np.allclose(found.y, [one(p, k) for k in range(12)], atol=1e-5)
    # Stationarity and signs, which no tolerance of another solver blurs.
    forces = np.einsum("kpq,kp->kq", p.A, found.equations)
    forces += np.einsum("kmq,km->kq", p.G, found.rows)
    assert np.abs(np.einsum("kst,kt->ks", p.H, found.y) + p.c + forces).max() < 1e-8
    value = np.einsum("kmq,kq->km", p.G, found.y)
    slack = np.where(found.rows > 0, p.high - value, np.where(found.rows < 0, value - p.low, 0.0))
    assert np.abs(slack * found.rows).max() < 1e-8


def test_the_rows_of_a_neighbour_solve_a_program_that_moved_a_little() -> None:
    p = programs(3)
    first = solve(p)
    moved = Programs(p.H, p.c + 1e-4, p.A, p.b, p.G, p.low, p.high)
    warm = solve(moved, np.sign(first.rows).astype(int))
    assert np.allclose(warm.y, solve(moved).y, atol=1e-9)


def test_a_program_without_a_feasible_point_is_not_solved() -> None:
    p = programs(4)
    p.high[5, 2], p.low[5, 3] = -50.0, 50.0
    p.G[5, 3] = p.G[5, 2]
    found = solve(p)
    assert not found.solved[5]
    assert np.delete(found.solved, 5).all()


def test_dependent_rows_do_not_stop_a_saddle_system() -> None:
    H, C = np.eye(2)[None], np.array([[[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    z = saddle(H, C, np.array([[1.0, 0.0, 2.0, 2.0, 0.0]]))
    assert np.allclose(z[0, :2], [1.5, 0.5])
    assert np.allclose(z[0, 2:4].sum(), -0.5)


FAMILY = """
set K = 1..9; dim q, m;
param Q[K, q, q], c[K, q], G[K, m, q], h[K, m], E[K, m];
upper { var x[2] in [-2, 2] start 0.3; minimize sum(f.y[k, i]^2 for k in K, i in q) + sumsq(x); }
lower f[k in K] {
  var y[q] in [-3, 3];
  minimize 0.5*sum(y[i]*Q[k, i, j]*y[j] for i in q, j in q) + sum(c[k, i]*y[i]*x[1] for i in q);
  subject to
    some[r in m]: sum(G[k, r, i]*y[i] for i in q) <= h[k, r] + E[k, r]*x[2];
    all: sum(y) == 0.5*x[2]; }
"""


def test_gradients_of_many_followers_are_differences() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((9, 4, 4))
    data = {
        "Q": root @ root.transpose(0, 2, 1) + np.eye(4),
        "c": rng.standard_normal((9, 4)),
        "G": rng.standard_normal((9, 3, 4)),
        "h": 0.2 + rng.random((9, 3)),
        "E": rng.standard_normal((9, 3)),
    }
    rows = system(bl.parse(FAMILY, **data).bound)
    joint = JointResponse(rows)
    assert joint.batch is not None
    v = rows.columns.start.copy()
    v[rows.upper_columns] = [0.7, -0.4]
    response = joint.solve(v)
    assert response is not None
    joint.batch, kept = None, joint.batch  # Clarabel and a sparse factor instead
    other = joint.solve(v)
    assert other is not None
    assert np.allclose(response.values, other.values, atol=1e-6)
    by_sparse_factor = joint.gradient(rows.objective, other)[0]
    joint.batch = kept
    gradient = joint.gradient(rows.objective, response)[0]
    assert np.allclose(gradient, by_sparse_factor, atol=1e-4)

    def phi(at: np.ndarray) -> float:
        w = v.copy()
        w[rows.upper_columns] = at
        found = joint.solve(w)
        assert found is not None
        return float(rows.objective.value(found.values)[0])

    x, h = v[rows.upper_columns], 1e-5
    exact = [(phi(x + h * e) - phi(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.allclose(gradient, exact, atol=1e-6)
