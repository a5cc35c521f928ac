"""KKT systems: what is eliminated before they are factorised changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bilevelpy.numerics.qp.saddle import least_squares, saddle


def dense(H, A, free, held, right, ends) -> tuple[np.ndarray, np.ndarray]:
    a, h = A[np.ix_(held, free)], H[np.ix_(free, free)]
    K = np.block([[h, a.T], [a, np.zeros((held.size, held.size))]])
    found = np.linalg.solve(K, np.concatenate([right, ends]))
    return found[: free.size], found[free.size :]


@pytest.mark.parametrize("curved", [0.0, 0.3])
def test_variables_that_meet_one_row_alone(curved: float) -> None:
    """Epigraphs of a fit, without a curvature and with one of their own."""
    rng = np.random.default_rng(0)
    n, p = 12, 4
    B = rng.standard_normal((p, p))
    H = np.zeros((p + n, p + n))
    H[:p, :p] = B @ B.T + np.eye(p)
    H[p:, p:] = curved * np.eye(n)
    A = np.hstack([rng.standard_normal((n, p)), np.diag(rng.uniform(-2.0, -1.0, n))])
    A = np.vstack([A, np.r_[np.ones(p), np.zeros(n)]])
    free = np.r_[np.arange(p), p + np.arange(0, n, 2)]
    # Rows with their epigraphs free, two with theirs held, and one of another kind.
    held = np.r_[np.arange(0, n, 2), 1, n]
    for shape in ((), (3,)):
        right = rng.standard_normal((free.size, *shape))
        ends = rng.standard_normal((held.size, *shape))
        v, m = saddle(H, A, free, held, right, ends)
        wanted = dense(H, A, free, held, right, ends)
        np.testing.assert_allclose(v, wanted[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(m, wanted[1], rtol=1e-9, atol=1e-12)


def test_variables_that_share_a_row_or_a_curvature_stay() -> None:
    H = np.diag([2.0, 1.0, 1.0, 0.5])
    H[2, 3] = H[3, 2] = 0.25
    A = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    every, rows = np.arange(4), np.arange(2)
    right, ends = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.3, -1.0])
    v, m = saddle(H, A, every, rows, right, ends)
    wanted = dense(H, A, every, rows, right, ends)
    np.testing.assert_allclose(np.r_[v, m], np.concatenate(wanted), rtol=1e-12)


def test_rows_that_depend_on_one_another_have_the_solution_that_they_agree_on() -> None:
    """Large enough to be factorised as sparse."""
    rng = np.random.default_rng(1)
    n, p, k = 430, 20, 45
    bend = np.full(n - 1, 1e-4)
    H = np.zeros((p + n, p + n))
    H[:p, :p] = np.eye(p)
    H[p:, p:] = np.eye(n) + np.diag(bend, 1) + np.diag(bend, -1)
    A = np.hstack([rng.standard_normal((k, p)), np.zeros((k, n))])
    v = rng.standard_normal(p + n)
    found = saddle(H, A, np.arange(p + n), np.arange(k), H @ v + A.T @ np.ones(k), A @ v)
    assert found is not None
    np.testing.assert_allclose(found[0], v, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_least_squares_are_the_shortest_of_singular_values(rank: int) -> None:
    draw = np.random.default_rng(rank)
    A, b = draw.standard_normal((9, rank)) @ draw.standard_normal((rank, 7)), np.arange(9.0)
    wanted, _, count, _ = np.linalg.lstsq(A, b, rcond=None)
    found, seen = least_squares(A, b)
    assert seen == count == rank
    np.testing.assert_allclose(found, wanted, atol=1e-9)
