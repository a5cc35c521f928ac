"""Ends above shares: kinks in number, and better ends far away."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl

SHARES = """
dim n, k;
param M[n, n], t[n], C[n, k];
upper { var x[k] in [-2, 2]; minimize sumsq(y - t) + sumsq(x) / 100; }
lower shares { var y[n] in simplex; minimize sumsq(M @ y) + 0.05 * sumsq(y) - y @ (C @ x); }
"""


def data(n: int, k: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((n, n)) / np.sqrt(n)
    return {"M": M, "t": rng.dirichlet(np.full(n, 0.3)), "C": rng.standard_normal((n, k))}


def F(given: dict[str, Any], x: np.ndarray) -> float:
    """At the response by another solver."""
    y = cp.Variable(len(given["t"]), nonneg=True)
    cost = cp.sum_squares(given["M"] @ y) + 0.05 * cp.sum_squares(y) - (given["C"] @ x) @ y
    cp.Problem(cp.Minimize(cost), [cp.sum(y) == 1]).solve(solver="CLARABEL")
    return float(np.sum((y.value - given["t"]) ** 2) + np.sum(x**2) / 100)


@pytest.mark.parametrize("seed", [0, 1])
def test_continuations_lead_to_better_ends(seed: int) -> None:
    given = data(20, 10, seed)
    model = bl.parse(SHARES, data=given)
    alone = bl.solve(model, backend="direct")
    found = bl.solve(model)
    assert found.success
    assert found.backend == "kkt"
    assert found.F < 0.9 * alone.F
    assert pytest.approx(F(given, found["x"]), rel=1e-5) == found.F
    assert any("elsewhere in the upper set" in text for text in found.warnings)


def test_runs_that_creep_across_kinks_come_to_an_end() -> None:
    """They went on to the limit on iterations."""
    given = data(250, 120, 1)
    found = bl.solve(bl.parse(SHARES, data=given), backend="direct")
    assert found.success
    assert found.iterations < 300
    assert found.certificate is not None
    assert found.certificate.kind == "local"


def test_a_continuation_that_was_ended_goes_on(tmp_path: Any) -> None:
    model = bl.parse(SHARES, data=data(20, 10, 0))
    whole = bl.solve(model, seed=3)
    seen: list[Any] = []

    def stop(state: Any) -> bool:
        seen.append(state)
        return len(seen) == whole.iterations - 3

    ended = bl.solve(model, seed=3, callback=stop, checkpoint=tmp_path / "c.npz")
    assert ended.F > whole.F
    resumed = bl.solve(model, seed=3, checkpoint=tmp_path / "c.npz", resume=True)
    assert resumed.backend == whole.backend == "kkt"
    assert resumed.F == whole.F
