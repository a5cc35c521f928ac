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
