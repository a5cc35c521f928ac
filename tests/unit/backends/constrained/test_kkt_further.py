"""Further runs of ``kkt``: better starts where F(x, y(x)) has many local minima."""

from __future__ import annotations

from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends.constrained.kkt import KKT, KKTOptions
from bilevelpy.numerics.rows.curved import CurvedOracle
from bilevelpy.numerics.rows.leader_response import leader_response
from bilevelpy.numerics.rows.response import constrained_lower, rows_response
from bilevelpy.result import Status
from tests.unit.backends.constrained.test_kkt import MACHINE

# A response near to that of a linear program: it stays at a vertex, and moves to the next one.
NEARLY_LINEAR = """
model nearly_linear;
dim n; dim m; dim k;
param c[m], D[m, n], A[k, m], b[k], B[k, n], t[m], q;
upper { var x[n] in [-2, 2] start 0; minimize sumsq(y - t) + 0.05 * sumsq(x); }
lower f {
  var y[m] in [0, 3];
  minimize dot(c + D @ x, y) + q / 2 * sumsq(y);
  subject to cap: A @ y <= b + B @ x;
}
"""
# Views that explain weights: assets without weight have no slope that would bring them back.
VIEWS = """
model views;
dim n; dim r;
param S[n, n], mu[n], t[n], R[r, n], cap[r];
upper { var x[n] in [-0.5, 0.5] start 0; minimize sumsq(y - t) + 0.001 * sumsq(x); }
lower f {
  var y[n] in simplex;
  minimize 0.1 * dot(y, S @ y) - dot(mu + x, y);
  subject to sector: R @ y <= cap;
}
"""


def nearly_linear(seed: int, n: int, m: int = 6, k: int = 5, q: float = 0.02) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    A = draw.uniform(0, 1, (k, m))
    return {
        "c": -draw.uniform(0.2, 1.5, m),
        "D": draw.standard_normal((m, n)),
        "A": A,
        "b": A.sum(1) * draw.uniform(0.3, 0.9, k),
        "B": 0.2 * draw.standard_normal((k, n)),
        "t": draw.uniform(0, 2, m),
        "q": q,
    }


def views(seed: int, n: int = 12) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    L = 0.3 * draw.standard_normal((n, 3))
    t = draw.dirichlet(np.full(n, 0.5))
    R = np.kron(np.eye(4), np.ones(n // 4))
    S, mu = L @ L.T + np.diag(draw.uniform(0.05, 0.2, n)), draw.uniform(0, 0.5, n)
    return {"S": S, "mu": mu, "t": t, "R": R, "cap": R @ t + 0.05}


def machine(seed: int, n: int = 60, p: int = 6) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    w = draw.standard_normal(p) * (draw.uniform(size=p) < 0.5)
    X, Xv = draw.standard_normal((2, n, p))
    s, sv = (np.where(Z @ w + draw.standard_normal(n) > 0, 1.0, -1.0) for Z in (X, Xv))
    return {"X": X, "s": s, "Xv": Xv, "sv": sv}


def model(seed: int) -> bl.Model:
    return bl.parse(NEARLY_LINEAR, data=nearly_linear(seed, n=2 if seed == 103 else 3))


@cache
def solved(seed: int) -> bl.Result:
    return bl.solve(model(seed), backend="kkt")


@pytest.mark.parametrize("seed", [103, 106, 109])
def test_no_point_of_a_grid_is_better(seed: int) -> None:
    data, found = nearly_linear(seed, n=2 if seed == 103 else 3), solved(seed)
    assert found.success
    y, slope, right = cp.Variable(6), cp.Parameter(6), cp.Parameter(5)
    rows = [y >= 0, y <= 3, data["A"] @ y <= right]
    follower = cp.Problem(cp.Minimize(slope @ y + data["q"] / 2 * cp.sum_squares(y)), rows)
    best = np.inf
    n = data["D"].shape[1]
    for x in np.stack(np.meshgrid(*[np.linspace(-2, 2, 21 if n == 2 else 8)] * n), -1).reshape(
        -1, n
    ):
        slope.value, right.value = data["c"] + data["D"] @ x, data["b"] + data["B"] @ x
        follower.solve(solver=cp.CLARABEL)
        if y.value is not None:
            best = min(best, float(np.sum((y.value - data["t"]) ** 2) + 0.05 * np.sum(x**2)))
    assert found.F - best <= 1e-6


@pytest.mark.parametrize("seed", [101, 103, 104, 107])
def test_nearly_linear_followers_end_near_the_best_of_many_starts(seed: int) -> None:
    made = bl.parse(NEARLY_LINEAR, data=nearly_linear(seed, 2 + seed % 3))
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "nlp"))
    assert found.success
    assert found.F <= 1.02 * other.F


@pytest.mark.parametrize("seed", [200, 201])
def test_rows_of_the_leader_hold_at_better_ends(seed: int) -> None:
    rows = "subject to budget: sum(x) <= 1; total: sum(y) <= 0.8 * sum(t); }"
    text = NEARLY_LINEAR.replace("0.05 * sumsq(x); }", f"0.05 * sumsq(x); {rows}")
    data = nearly_linear(seed, 4, m=8, k=6)
    made = bl.parse(text, data=data)
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "nlp"))
    assert found.success
    assert found.F <= 1.001 * other.F
    assert found.upper["x"].sum() <= 1 + 1e-7
    assert found.lower["f"]["y"].sum() <= 0.8 * data["t"].sum() + 1e-7


@pytest.mark.parametrize("seed", [1, 2])
def test_views_explain_their_weights(seed: int) -> None:
    found = bl.solve(bl.parse(VIEWS, data=views(seed)), backend="kkt")
    assert found.success
    # The weights are met, but for what the penalty on views is worth.
    assert found.F <= 1e-3


@pytest.mark.parametrize("seed", [2, 5])
def test_no_penalty_on_a_line_is_better(seed: int) -> None:
    made = bl.parse(MACHINE, data=machine(seed))
    found = bl.solve(made, backend="kkt")
    o = solving.oracle(made)
    response = rows_response(o, 1e-10)
    line = [torch.tensor([c], dtype=torch.float64) for c in np.linspace(-4, 4, 41)]
    best = min(response.evaluate(c, None, o.y0).F for c in line)
    assert found.F - best <= 2e-3 * abs(best)


def test_runs_repeat() -> None:
    first, second = solved(109), bl.solve(model(109), backend="kkt")
    assert first.F == second.F
    assert first.iterations == second.iterations
    assert first.counts == second.counts


def test_a_limit_does_not_lose_the_first_end() -> None:
    made = model(109)
    o = solving.oracle(made)
    state = KKT().init(o, o.x0, o.y0, KKTOptions(), torch.Generator())
    steps = 0
    while state.pending is None:
        state, steps = KKT().step(o, state, KKTOptions()), steps + 1
    first = KKT().measure(o, state)
    assert first.goes_on
    for more in (0, 1, 2, 5):
        found = bl.solve(made, backend="kkt", max_iter=steps + more)
        assert found.F <= first.F + 1e-9


def test_a_run_from_a_plateau_ends_there() -> None:
    data = machine(111, 44, 7)
    found = bl.solve(bl.parse(MACHINE, data=data), backend="kkt")
    assert found.status is Status.CONVERGED


def test_hypergradients_with_an_added_curvature_agree_with_differences() -> None:
    o = solving.oracle(bl.parse(NEARLY_LINEAR, data=nearly_linear(3, 3)))
    draw = np.random.default_rng(0)
    curved = CurvedOracle(o, 0.7, torch.from_numpy(draw.uniform(0, 1, 6)))
    x = torch.from_numpy(draw.uniform(-0.5, 0.5, 3))
    response, h = rows_response(curved, 1e-12), 1e-6
    point = response.differentiate(response.evaluate(x, None, o.y0), None)
    for k in range(3):
        e = torch.zeros(3, dtype=torch.float64)
        e[k] = h
        up, down = (response.evaluate(x + t * e, None, o.y0).F for t in (1, -1))
        assert float(point.g[k]) == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-6)


def test_an_added_curvature_moves_the_response_towards_its_centre() -> None:
    data = nearly_linear(4, 2, q=1e-3)
    o = solving.oracle(bl.parse(NEARLY_LINEAR, data=data))
    x = torch.zeros(2, dtype=torch.float64)
    ends = linprog(np.zeros(6), data["A"], data["b"], bounds=(0, 3))
    centre = torch.from_numpy(ends.x)
    y = cp.Variable(6)
    for strength in (1e-2, 1.0, 1e3):
        found = rows_response(CurvedOracle(o, strength, centre), 1e-12).evaluate(x, None, o.y0).y
        pull = strength / 2 * cp.sum_squares(y - ends.x)
        own = data["c"] @ y + 5e-4 * cp.sum_squares(y)
        rows = [y >= 0, y <= 3, data["A"] @ y <= data["b"]]
        cp.Problem(cp.Minimize(own + pull), rows).solve(solver=cp.CLARABEL)
        assert found.numpy() == pytest.approx(y.value, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_leader_responses_agree_with_clarabel(seed: int) -> None:
    data = nearly_linear(seed, 2)
    o = solving.oracle(bl.parse(NEARLY_LINEAR, data=data))
    x = torch.zeros(2, dtype=torch.float64)
    found = leader_response(o, constrained_lower(o, 1e-10).rows(x), x, o.y0, 100.0)
    assert found is not None
    y = cp.Variable(6)
    rows = [y >= 0, y <= 3, data["A"] @ y <= data["b"]]
    cp.Problem(cp.Minimize(cp.sum_squares(y - data["t"])), rows).solve(solver=cp.CLARABEL)
    assert found.numpy() == pytest.approx(y.value, abs=1e-3)
