"""The backend `conic` below objectives that are convex and not quadratic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.errors import BackendError
from bilevelpy.lowering.sums.streaming import make_oracle
from bilevelpy.numerics.cones.newton import inside, response_pair
from bilevelpy.numerics.cones.response import conic_adjoint, solve_conic

Array = np.ndarray
C = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, 0.5], [0.2, 0.5, 1.0]])
T = np.array([[1.0, -0.4, 0.1], [-0.4, 1.2, -0.3], [0.1, -0.3, 0.9]])

TRACE = """dim n; param C[n, n], T[n, n];
upper { var s in [1, 6], r in [0, 2]; minimize sum((Y - T)^2) + 0.01*r; ROWS }
lower f {
  var Y[n, n] in psd;
  minimize -logdet(Y) + sum(C*Y) + r*sum(Y^2)/4;
  subject to
    total: trace(Y) <= s;
    apart: Y[1, 3] == 0;
  assume unique;
}"""


@cache
def _follower() -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """The follower for CVXPY, which compiles it once."""
    Y, x = cp.Variable((3, 3), symmetric=True), cp.Parameter(2, nonneg=True)
    f = -cp.log_det(Y) + cp.trace(C @ Y) + x[1] * cp.sum_squares(Y) / 4
    rows = [Y >> 0, cp.trace(Y) <= x[0], Y[0, 2] == 0]
    return cp.Problem(cp.Minimize(f), rows), Y, x


def covariance(at: Array) -> Array:
    problem, Y, x = _follower()
    x.value = at
    problem.solve(solver="CLARABEL")
    return np.asarray(Y.value)


def oracle(text: str = TRACE) -> Any:
    return make_oracle(bl.parse(text.replace("ROWS", ""), C=C, T=T).bound)


@pytest.mark.parametrize("x", [(2.0, 0.5), (5.9, 0.0), (1.0, 2.0)])
def test_responses_and_hypergradients(x: tuple[float, float]) -> None:
    o = oracle()
    at = torch.tensor(x, dtype=torch.float64)
    found = solve_conic(o, at, o.y0)  # f has no value at the start
    assert found is not None
    assert found.lower.y.numpy().reshape(3, 3) == pytest.approx(covariance(at.numpy()), abs=1e-4)
    F, F_x, F_y = o.value_grad_F(at, found.lower.y)
    slope = (F_x - conic_adjoint(o, at, found, F_y).cross).numpy()
    for j in range(2):
        ends = []
        for sign in (1.0, -1.0):
            moved = at.clone()
            moved[j] += sign * 1e-5
            near = solve_conic(o, moved, found.lower.y)
            assert near is not None
            ends.append(o.F(moved, near.lower.y))
        assert slope[j] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)
    assert np.isfinite(F)


def test_starts_do_not_matter() -> None:
    o, x = oracle(), torch.tensor([2.0, 0.3], dtype=torch.float64)
    deep = inside(o, x)
    assert deep is not None
    assert np.linalg.eigvalsh(deep.numpy().reshape(3, 3)).min() == pytest.approx(2 / 3, abs=1e-6)
    first = response_pair(o, x, None)
    assert first is not None
    for start in (50.0 * torch.eye(3), 1e-4 * torch.eye(3)):  # rows and units of another x
        again = response_pair(o, x, start.double().reshape(-1))
        assert again is not None
        assert again.y.numpy() == pytest.approx(first.y.numpy(), abs=1e-7)


def _scanned(F: Callable[[Array], float]) -> float:
    """The least F of three scans, each about the best point before."""
    low, high = np.array([1.0, 0.0]), np.array([6.0, 2.0])
    best, width = (np.inf, 0.5 * (low + high)), high - low
    for _ in range(3):
        a, b = np.maximum(low, best[1] - width / 2), np.minimum(high, best[1] + width / 2)
        axes = np.linspace(a[0], b[0], 11), np.linspace(a[1], b[1], 7)
        points = [np.array([s, r]) for s in axes[0] for r in axes[1]]
        best = min([best, *((F(x), x) for x in points)], key=lambda found: found[0])
        width = width / 4
    return float(best[0])


def test_a_covariance_with_a_trace_and_a_zero() -> None:
    result = bl.solve(bl.parse(TRACE.replace("ROWS", ""), C=C, T=T))
    assert result.backend == "conic"
    assert result.success
    least = _scanned(lambda x: float(((covariance(x) - T) ** 2).sum() + 0.01 * x[1]))
    assert pytest.approx(least, abs=1e-4) == result.F


def test_rows_of_the_leader_that_read_the_covariance() -> None:
    text = TRACE.replace("ROWS", "subject to cap: Y[2, 2] <= 0.9;")
    result = bl.solve(bl.parse(text, C=C, T=T))
    assert result.success

    def F(x: Array) -> float:
        Y = covariance(x)
        return float(((Y - T) ** 2).sum() + 0.01 * x[1]) if Y[1, 1] <= 0.9 + 1e-6 else np.inf

    assert result["Y"][1, 1] <= 0.9 + 1e-6
    assert _scanned(F) + 1e-5 >= result.F


def test_without_one_solution_it_says_what_to_write() -> None:
    text = TRACE.replace("ROWS", "").replace("assume unique;", "").replace("r*", "0*r*")
    with pytest.raises(BackendError, match="assume unique"):
        bl.solve(bl.parse(text, C=C, T=T))
