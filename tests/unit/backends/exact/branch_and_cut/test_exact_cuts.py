"""Followers that optimality conditions do not settle: nonconvex, integer, conic, with kinks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine import scip as exact_scip
from bilevelpy.backends.exact.relaxations.relax import Relaxed

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


def test_rows_of_whole_numbers_are_broken_by_a_whole_step() -> None:
    """The coefficients 3 and 2 of x make steps of 1, by which cuts leave out points that only seem
    to forbid a response.
    """
    text = """
    upper {
      var x0 in integers(0, 3), x1 in integers(0, 3);
      minimize 3 * x0 - 4 * x1 - 3 * y0 + y1 + (y0 - 1)^2;
    }
    lower follow {
      var y0 in integers(-1, 3), y1 in integers(-1, 4);
      minimize -3 * y0 - 4 * y1;
      subject to
      r0: x0 - 3 * x1 + y0 + 2 * y1 <= 7;
      r1: -2 * x0 + x1 + 3 * y0 + y1 >= 7;
      r2: -3 * x0 - 2 * x1 + y0 + 3 * y1 <= 2;
    }
    """
    result = bl.solve(bl.parse(text), time_limit=60)
    best = math.inf
    for x0, x1 in itertools.product(range(4), repeat=2):
        responses = [
            (-3 * a - 4 * b, 3 * x0 - 4 * x1 - 3 * a + b + (a - 1) ** 2)
            for a, b in itertools.product(range(-1, 4), range(-1, 5))
            if x0 - 3 * x1 + a + 2 * b <= 7
            and -2 * x0 + x1 + 3 * a + b >= 7
            and -3 * x0 - 2 * x1 + a + 3 * b <= 2
        ]
        if responses:
            best = min(best, min(responses)[1])
    assert pytest.approx(best, abs=1e-6) == result.F
    assert result.certificate is not None
    assert result.certificate.kind == "global"


def test_what_is_no_best_response_is_not_called_one() -> None:
    text = """
    upper { var x in binary; minimize x + y0; subject to c0: y0 + 2 * y1 <= 0; }
    lower follow {
      var y0 in [0, 3], y1 in [0, 2], y2 in integers(0, 3);
      minimize -3 * y1 - 4 * y2 + x * y0;
      subject to
      r0: y2 - y0 <= 0.5;
      r1: 3 * y0 + y1 <= 1;
    }
    """
    result = bl.solve(bl.parse(text), time_limit=60)
    assert result.status == "infeasible"
    assert "the follower prefers another one" in result.message


def test_other_points_of_a_relaxation_give_cuts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relaxations of an interdiction take longer than its follower: with more cuts after each one
    there are fewer, and the value is the same.
    """
    rng = np.random.default_rng(4)
    text = """
    dim n = 10;
    param p[n], w[n], v[n];
    upper { var x[n] in integers(0, 2); minimize sum(p[i] * y[i] for i in n);
            subject to able: sum(v[i] * x[i] for i in n) <= 18; }
    lower f { var y[n] in binary; maximize sum(p[i] * y[i] for i in n);
              subject to room: sum(w[i] * y[i] for i in n) <= 25;
              left[i in n]: y[i] + x[i] / 2 <= 1; }
    """
    data = {
        "p": rng.integers(5, 30, 10).astype(float),
        "w": rng.integers(3, 12, 10).astype(float),
        "v": rng.integers(3, 12, 10).astype(float),
    }
    counts, values = [], []
    solve = Relaxed.solve
    for others in (0, exact_scip.OTHERS):
        count = 0

        def counted(self: Relaxed, *args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            return solve(self, *args, **more)

        monkeypatch.setattr(exact_scip, "OTHERS", others)
        monkeypatch.setattr(Relaxed, "solve", counted)
        result = bl.solve(bl.parse(text, data=data), backend="exact", progress=False)
        assert result.certificate is not None
        assert result.certificate.kind == "global"
        counts.append(count)
        values.append(result.F)
        monkeypatch.undo()
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert counts[1] < counts[0]
