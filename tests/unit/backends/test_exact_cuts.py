"""Followers that optimality conditions do not settle: nonconvex, integer, conic, with kinks."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


def test_a_nonconvex_follower() -> None:
    # Mitsos and Barton, example 3.11 in spirit: stationary points that are no minima are tempting.
    text = """
    upper { var x in [-1, 1]; minimize x + y; }
    lower fit { var y in [-1, 1]; minimize x * y^2 / 2 - y^4 / 4; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    x = np.linspace(-1, 1, 2001)
    y = np.linspace(-1, 1, 2001)
    f = x[:, None] * y**2 / 2 - y**4 / 4
    best = np.where(f <= f.min(1, keepdims=True) + 1e-9, y, np.inf).min(1)
    assert result.success
    assert pytest.approx((x + best).min(), abs=2e-3) == result.F


def test_integers_of_both_levels() -> None:
    # Moore and Bard 1990: -22 at (2, 2).
    text = """
    upper { var x in integers(0, 10); minimize -x - 10 * y; }
    lower fit {
      var y in integers(0, 10);
      minimize y;
      subject to
        a: -25 * x + 20 * y <= 30;
        b: x + 2 * y <= 10;
        c: 2 * x - y <= 15;
        d: 2 * x + 10 * y >= 15;
    }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    assert result.success
    assert pytest.approx(-22) == result.F
    assert (result["x"], result["y"]) == (2, 2)


def test_knapsack_interdiction() -> None:
    text = """
    dim n = 5;
    param profit[n] = [10, 7, 6, 5, 4], a[n] = [3, 2, 2, 2, 1], b[n] = [4, 3, 2, 2, 1];
    upper {
      var x[n] in binary;
      minimize sum(profit[i] * y[i] for i in n);
      subject to
        budget: sum(a[i] * x[i] for i in n) <= 4;
    }
    lower packer {
      var y[n] in binary;
      maximize sum(profit[i] * y[i] for i in n);
      subject to
        room: sum(b[i] * y[i] for i in n) <= 6;
        left[i in n]: y[i] <= 1 - x[i];
    }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    assert result.success
    assert pytest.approx(13) == result.F


def test_a_conic_follower() -> None:
    text = """
    upper { var x in [1, 2]; minimize (y[1] + y[2])^2 + x; }
    dim k = 2;
    lower fit {
      var y[k];
      minimize y[1] + y[2];
      subject to
        ball: y[1]^2 + y[2]^2 <= x;
    }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    # y = -sqrt(x / 2) each: (2 sqrt(x / 2))^2 + x = 3 x.
    assert result.success
    assert pytest.approx(3, abs=1e-4) == result.F


def test_a_large_nonconvex_follower_is_refused_with_the_fact() -> None:
    text = """
    dim n = 200;
    upper { var x[n] in [0, 1]; minimize sumsq(y); subject to a: sum(x) >= 1; }
    lower fit { var y[n] in [-1, 1]; minimize sum(x[i] * y[i]^2 - y[i]^4 for i in n); }
    """
    with pytest.raises(bl.BackendError, match="up to 60 variables"):
        bl.solve(bl.parse(text), backend="exact")


def test_what_a_flat_minimum_is_worth_does_not_stand_between_bound_and_point() -> None:
    # A. Mitsos, P. Barton (2006), example 3.14: y = sqrt(x) ties with y = -1 at x = 1/4, F = 1/4.
    text = """upper { var x in [-1, 1]; minimize y^2 + (x - 0.25)^2; }
    lower f { var y in [-1, 1]; minimize y^3/3 - x*y; }"""
    found = bl.solve(bl.parse(text), backend="exact", progress=False)
    assert found.certificate is not None
    assert found.certificate.kind == "global"
    assert pytest.approx(0.25, abs=1e-6) == found.F


def test_a_convex_follower_of_degree_four_is_proved() -> None:
    # B. Colson (2002), BIPA1: y = (15 - x)/2 is at most x from x = 5 on; F = 250 there.
    text = """upper { var x in [0, 5]; minimize -(x - 10)^3 - (y - 10)^3;
      subject to c: y <= x; }
    lower f { var y in [0, 20]; minimize (x + 2*y - 15)^4; subject to r: x + y <= 20; }"""
    found = bl.solve(bl.parse(text), backend="exact", progress=False)
    assert found.certificate is not None
    assert found.certificate.kind == "global"
    assert pytest.approx(250.0, abs=1e-4) == found.F
