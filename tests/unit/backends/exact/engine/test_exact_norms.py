"""Followers with norms and second-order cones, at the points where norms vanish and elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


def _solve(text: str, **data: object) -> bl.Result:
    return bl.solve(bl.parse(text, **data), backend="exact", time_limit=60)


def _proved(result: bl.Result, F: float, tolerance: float = 1e-4) -> None:
    assert result.certificate is not None
    assert result.certificate.kind == "global", result.message
    assert pytest.approx(F, abs=tolerance) == result.F


def _scanned(F: Callable[[float], float], low: float, high: float) -> float:
    """The least F of a scan, with a finer one about its best point."""
    found = min((F(x), x) for x in np.linspace(low, high, 41))
    width = (high - low) / 40
    ends = np.clip([found[1] - width, found[1] + width], low, high)
    return min(found[0], *(F(x) for x in np.linspace(*ends, 41)))


def test_a_response_that_stays_where_a_norm_vanishes() -> None:
    # |(0.7, x - 0.2)| <= 1.5 holds y at (0.3, 0.2): F = 0 at x = 0.8, and no gradient there.
    result = _solve("""
    upper { var x in [-3, 3] start 3; minimize (y[1]-0.3)^2 + (y[2]-0.2)^2 + 0.1*(x-0.8)^2; }
    lower f {
      var y[2];
      minimize ((y[1]-1)^2 + (y[2]-x)^2)/2 + 1.5*norm2([y[1]-0.3, y[2]-0.2]);
      subject to r: y[1] + y[2] <= 2;
    }
    """)
    _proved(result, 0.0, 1e-5)
    assert result["y"] == pytest.approx([0.3, 0.2], abs=1e-4)


def test_a_disc_that_moves() -> None:
    # y = (x, 0) - (1, 2) / sqrt(5) where the cut is not tight.
    result = _solve("""
    upper { var x in [-2, 2]; minimize (y[1]-0.5)^2 + (y[2]+0.6)^2 + 0.01*x^2; }
    lower f {
      var y[2];
      minimize y[1] + 2*y[2];
      subject to
        disc: norm2(y - [x, 0]) <= 1;
        cut: y[1] + y[2] >= -1;
    }
    """)
    c = 1.0 / math.sqrt(5.0)
    x = (0.5 + c) / 1.01
    _proved(result, (x - c - 0.5) ** 2 + (2.0 * c - 0.6) ** 2 + 0.01 * x**2)
    assert result["x"] == pytest.approx(x, abs=1e-3)


def test_a_cone_without_an_inside() -> None:
    # At x = 2 the discs touch in one point: no multipliers, and the only x with y[2] = 0.
    result = _solve("""
    upper { var x in [0, 3]; minimize 5*y[2]^2 + (x-2.2)^2; }
    lower f {
      var y[2];
      minimize y[2];
      subject to c: norm2(y) <= 1; d: norm2([y[1]-x, y[2]]) <= 1;
    }
    """)
    assert pytest.approx(0.04, abs=1e-4) == result.F
    assert result["x"] == pytest.approx(2.0, abs=1e-3)


def test_a_robust_budget() -> None:
    # max c'y with a'y + r |y| <= 1, y >= 0; the leader sets r.
    def F(r: float) -> float:
        y = cp.Variable(2, nonneg=True)
        row = [y[0] + 2 * y[1] + r * cp.norm(y) <= 1]
        cp.Problem(cp.Maximize(y[0] + 1.5 * y[1]), row).solve(solver="CLARABEL")
        return float((y.value[0] - 0.4) ** 2 + (y.value[1] - 0.1) ** 2)

    result = _solve("""
    upper { var r in [0, 2]; minimize (y[1]-0.4)^2 + (y[2]-0.1)^2; }
    lower f {
      var y[2] in [0, inf];
      maximize y[1] + 1.5*y[2];
      subject to cap: y[1] + 2*y[2] + r*norm2(y) <= 1;
    }
    """)
    _proved(result, _scanned(F, 0.0, 2.0))


def test_a_portfolio_by_its_covariance() -> None:
    R = np.array([[1.0, 0.3, 0.1], [0.0, 0.8, -0.2], [0.0, 0.0, 0.6]])
    mean = np.array([1.0, 1.2, 0.9])

    def F(g: float) -> float:
        y = cp.Variable(3, nonneg=True)
        risk = cp.Minimize(-mean @ y + g * cp.norm(R @ y))
        cp.Problem(risk, [cp.sum(y) == 1]).solve(solver="CLARABEL")
        return float((y.value[0] - 0.3) ** 2 + (y.value[2] - 0.4) ** 2 + 0.01 * g)

    text = """
    dim n; param Q[n, n], c[n];
    upper {{ var g in [0, 3] start 1; minimize (y[1]-0.3)^2 + (y[3]-0.4)^2 + 0.01*g; }}
    lower f {{
      var y[n] in [0, inf];
      minimize -dot(c, y) + g*{risk};
      subject to one: sum(y) == 1;
    }}
    """
    least = _scanned(F, 0.0, 3.0)
    _proved(_solve(text.format(risk="sqrt(quad(y, Q))"), Q=R.T @ R, c=mean), least)
    _proved(_solve(text.format(risk="norm2(Q @ y)"), Q=R, c=mean), least)


def test_norms_in_an_objective_and_in_a_row() -> None:
    # The follower at a fixed x is a cone program: SCIP branched on its roots without end.
    A = np.array([[0.8, -0.5, 0.3], [0.2, 1.1, -0.7]])

    def F(x: float) -> float:
        y = cp.Variable(3)
        size = cp.norm(A @ y - np.array([0.5 - x, 0.3]))
        goal = cp.Minimize(0.4 * y[0] - y[1] + x * y[2] + 0.7 * size)
        rows = [size <= 1.8, cp.sum(y) <= 1, y >= -2, y <= 2]
        cp.Problem(goal, rows).solve(solver="CLARABEL")
        return float(cp.sum_squares(y - np.array([1.0, 0.2, -1.0])).value + 0.1 * x**2)

    result = _solve(
        """
        dim m = 3, p = 2; param A[p, m], a[p], e[p], goal[m];
        upper { var x in [-1.5, 1.5] start 0.3; minimize sum((y - goal)^2) + 0.1*x^2; }
        lower f {
          var y[m] in [-2, 2];
          minimize 0.4*y[1] - y[2] + x*y[3] + 0.7*norm2(A @ y - a + x*e);
          subject to
            near: norm2(A @ y - a + x*e) <= 1.8;
            budget: sum(y) <= 1;
        }
        """,
        A=A,
        a=np.array([0.5, 0.3]),
        e=np.array([1.0, 0.0]),
        goal=np.array([1.0, 0.2, -1.0]),
    )
    assert result.certificate is not None
    assert result.certificate.kind == "global", result.message
    least = _scanned(F, -1.5, 1.5)
    # Ties at single x are the leader's to use; the scan does not see them.
    assert least + 1e-4 >= result.F
    assert F(float(result["x"])) == pytest.approx(result.F, abs=1e-3) or least > result.F


PRICES = [
    ("minimize", "norm2(y - [1, x]) <= 1.5"),
    ("maximize", "norm2(y - [1, x]) <= 1.5"),
    ("minimize", "3 - norm2(y - [1, x]) >= 1.5"),
    ("maximize", "sumsq(y) + x*y[1] <= 2"),
    ("maximize", "2*norm2([y[1] + y[2], 1]) - y[1] <= 4 - x"),
]


def _value(k: int, x: float, e: float) -> float:
    """The follower's optimal value with e more on the right-hand side of its row."""
    y = cp.Variable(2)
    ball = cp.norm(y - np.array([1.0, x]))
    row = [
        ball <= 1.5 + e,
        ball <= 1.5 + e,
        3 - ball >= 1.5 + e,
        cp.sum_squares(y) + x * y[0] <= 2 + e,
        2 * cp.norm(cp.hstack([y[0] + y[1], 1])) - y[0] + x <= 4 + e,
    ][k]
    f = y[0] + 0.7 * y[1]
    goal = cp.Minimize(f) if PRICES[k][0] == "minimize" else cp.Maximize(f - cp.sum_squares(y) / 9)
    sharp = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    value: float = cp.Problem(goal, [row]).solve(solver="CLARABEL", **sharp)
    return value


@pytest.mark.parametrize("k", range(len(PRICES)))
def test_prices_of_cone_rows_are_slopes_of_the_optimal_value(k: int) -> None:
    sense, row = PRICES[k]
    f = "y[1] + 0.7*y[2]" + (" - sumsq(y)/9" if sense == "maximize" else "")
    result = _solve(f"""
    upper {{ var x in [0.3, 0.9]; minimize (x - 0.6)^2 + 0.001*y[1]; }}
    lower f {{ var y[2] in [-9, 9]; {sense} {f}; subject to r: {row}; }}
    report price = dual(f.r);
    """)
    x = float(result["x"])
    slope = (_value(k, x, 1e-3) - _value(k, x, -1e-3)) / 2e-3
    assert result.reports["price"] == pytest.approx(slope, abs=1e-5)
    assert result.dual("f.r") == pytest.approx(slope, abs=1e-5)


def test_a_leader_who_wants_a_price_of_a_cone() -> None:
    # The row of max 2 y1 + y2 under |y| <= x, y1 + y2 <= 1.2 has the price sqrt(5) while the other
    # one is slack, and less beyond.
    def F(x: float) -> float:
        y = cp.Variable(2, nonneg=True)
        row = cp.norm(y) <= x
        goal = cp.Maximize(2 * y[0] + y[1])
        cp.Problem(goal, [row, cp.sum(y) <= 1.2]).solve(solver="CLARABEL")
        return float((row.dual_value - 1.5) ** 2 + 0.01 * x)

    result = _solve("""
    upper { var x in [0.2, 2] start 1; minimize (dual(f.c) - 1.5)^2 + 0.01*x; }
    lower f {
      var y[2] in [0, inf];
      maximize 2*y[1] + y[2];
      subject to c: norm2(y) <= x; d: y[1] + y[2] <= 1.2;
    }
    """)
    _proved(result, _scanned(F, 0.2, 2.0))
