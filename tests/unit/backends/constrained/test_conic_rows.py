"""The backend `conic` with rows of the upper level.

Known answers: a trace-constrained nearest matrix has the eigenvalues projected onto a simplex, so
that everything is a function of few upper variables, searched on a grid of closed forms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import bilevelpy as bl
from bilevelpy.lowering.sums.streaming import make_oracle
from bilevelpy.numerics.certificate.conic import ConicCheck
from bilevelpy.numerics.cones.response import solve_conic
from bilevelpy.numerics.cones.sample import sample
from bilevelpy.options import SolveOptions
from tests.unit.backends.helpers import symmetric, with_trace

Array = np.ndarray


MODEL = """dim n; param A[n, n], B[n, n], T[n, n];
upper {{ var x[2] in [-1.5, 1.5]; minimize sum((Y - T)^2) + 0.1*sum(x^2) + 0.3*x[1];
  subject to {rows} }}
lower f {{ var Y[n, n] in psd; minimize sum((Y - A - x[1]*B - x[2]*T)^2)/2;
  subject to total: trace(Y) == 1.5 + 0.3*x[2]; }}"""


def searched(data: dict[str, Array], rows: Any) -> float:
    """The least F with an exact penalty of ``rows(x, Y) <= 0``: on a grid, then by simplices from
    its best points, begun anew where they have collapsed.
    """

    def F(x: Array) -> float:
        Y = with_trace(data["A"] + x[0] * data["B"] + x[1] * data["T"], 1.5 + 0.3 * x[1])
        off = max(*rows(x, Y), 0.0)
        inside = float(((Y - data["T"]) ** 2).sum() + 0.1 * x @ x + 0.3 * x[0])
        return inside + 50 * off + 50 * float(np.maximum(np.abs(x) - 1.5, 0).sum())

    axis = np.linspace(-1.5, 1.5, 31)
    points = sorted((np.array([a, b]) for a in axis for b in axis), key=F)[:3]
    for _ in range(4):
        points = [minimize(F, x, method="Nelder-Mead", tol=1e-9).x for x in points]
    return min(map(F, points))


ROWS = {
    "x alone": ("cap: x[1] + 2*x[2] <= -0.6;", lambda x, Y: [x[0] + 2 * x[1] + 0.6]),
    "x alone, curved": ("cap: sum(x^2) <= 0.2;", lambda x, Y: [x @ x - 0.2]),
    "coupling": ("cap: 0.1 <= Y[1, 1] - x[2] <= 0.3;",
                 lambda x, Y: [0.1 - Y[0, 0] + x[1], Y[0, 0] - x[1] - 0.3]),
    "curved coupling": ("cap: sum(Y * Y) <= 1.2 + 0.2*x[1];",
                        lambda x, Y: [(Y * Y).sum() - 1.2 - 0.2 * x[0]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_rows_above_semidefinite_followers(kind: str) -> None:
    rng = np.random.default_rng(4)
    data = {name: symmetric(rng, 2) for name in "ABT"}
    text, rows = ROWS[kind]
    found = bl.solve(bl.parse(MODEL.format(rows=text), **data), progress=False)
    assert found.backend == "conic"
    assert found.success, found.message
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    x = np.asarray(found["x"])
    Y = with_trace(data["A"] + x[0] * data["B"] + x[1] * data["T"], 1.5 + 0.3 * x[1])
    assert np.allclose(found["Y"], Y, atol=1e-7)
    assert max(rows(x, Y)) <= 1e-6
    best = searched(data, rows)
    assert found.F - best <= 1e-5


def test_derivatives_of_rows_along_the_response() -> None:
    rng = np.random.default_rng(5)
    data = {name: symmetric(rng, 3) for name in "ABT"}
    o = make_oracle(bl.parse(MODEL.format(rows=ROWS["curved coupling"][0]), **data).bound)
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    here = sample(o, x, o.y0)
    assert here is not None
    for k in range(2):
        step = 1e-5 * torch.eye(2, dtype=torch.float64)[k]
        up, down = sample(o, x + step, o.y0), sample(o, x - step, o.y0)
        assert up is not None
        assert down is not None
        assert pytest.approx((up.F - down.F) / 2e-5, abs=1e-6) == float(here.slope[k])
        change = ((up.rows - down.rows) / 2e-5).numpy()
        assert np.allclose(change, here.slopes[:, k].numpy(), atol=1e-6)


def test_an_upper_matrix_with_a_trace() -> None:
    # The follower adds a constant to the upper matrix: the nearest matrix of trace 1 to T.
    rng = np.random.default_rng(6)
    T = symmetric(rng, 3)
    text = """dim n; param T[n, n];
    upper { var X[n, n] in psd; minimize sum((Y - T)^2); subject to unit: trace(X) == 1; }
    lower f { var Y[n, n] in psd; minimize sum((Y - X - 0.3*eye(n))^2); }"""
    found = bl.solve(bl.parse(text, T=T + 0.3 * np.eye(3)), progress=False)
    assert found.success, found.message
    assert np.allclose(found["X"], with_trace(T, 1.0), atol=1e-5)


def test_an_upper_matrix_above_a_quadratic_program() -> None:
    # z = X_11 where that is at most 0.5; F = (z - 0.4)^2 + tr X, coupling z >= 0.3.
    text = """upper { var X[2, 2] in psd start 1; minimize (z - 0.4)^2 + trace(X);
      subject to least: z >= 0.3; }
    lower f { var z; minimize (z - X[1, 1])^2; subject to most: z <= 0.5; }"""
    found = bl.solve(bl.parse(text), progress=False)
    assert found.backend == "conic"
    assert found.success, found.message
    assert pytest.approx(0.31, abs=1e-6) == found.F
    assert np.allclose(found["X"], [[0.3, 0], [0, 0]], atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [
        ("a: x[1] >= 1; b: x[2] <= -1; c: x[1] - x[2] <= 1;", "infeasible", "`a`, `b`, `c`"),
        ("a: Y[1, 1] + Y[2, 2] <= -1;", "infeasible", "`a`"),
        # The trace is 1.95 at most.
        ("a: trace(Y) >= 9;", "infeasible", "`a`"),
        # The trace hinders no Y here, the follower's wishes do.
        ("a: Y[1, 2] >= 0.9;", "stalled", "`a`"),
    ],
)
def test_rows_that_cannot_hold(rows: str, status: str, words: str) -> None:
    rng = np.random.default_rng(7)
    data = {name: symmetric(rng, 2) for name in "ABT"}
    model = bl.parse(MODEL.format(rows=rows), **data)
    found = bl.solve(model, options={"starts": 1}, backend="conic", progress=False)
    assert found.status == status, found.message
    assert not found.success
    assert words in found.message


def test_the_certificate_refutes_points_off_the_rows_and_off_the_optimum() -> None:
    rng = np.random.default_rng(4)
    data = {name: symmetric(rng, 2) for name in "ABT"}
    o = make_oracle(bl.parse(MODEL.format(rows=ROWS["x alone"][0]), **data).bound)

    def reasons(x: list[float]) -> str:
        at = torch.tensor(x, dtype=torch.float64)
        y = solve_conic(o, at, o.y0)
        assert y is not None
        generator = torch.Generator().manual_seed(0)
        check = ConicCheck(o, at, y.lower.y, None, SolveOptions(), generator, 60.0)
        return "; ".join(check.run()[0].reasons)

    assert "`cap` is violated" in reasons([0.5, 0.5])
    assert "falls" in reasons([-1.0, -0.5])
