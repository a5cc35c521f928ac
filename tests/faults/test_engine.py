"""Faults of engines that the package works around; each fails again once the guard is taken out."""

from __future__ import annotations

import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


def test_dual_reductions_do_not_lose_the_optimum() -> None:
    """SCIP 10.0 returns -2 as optimal with its dual reductions. At x1 = 0 the follower takes y = 4,
    the row holds, and F = 0.
    """
    text = """
    upper { var x[2] in integers(0, 3); maximize -2 * x[1]; subject to cc: -4 * y <= 4; }
    lower f { var y in [0, 4]; minimize (3 * x[1] - 4) * y; subject to r: -2 * y <= 1; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success, result.message
    assert pytest.approx(0, abs=1e-7) == result.F


def test_no_nonlinear_equation_beside_special_ordered_sets() -> None:
    """SCIP 10.0 returns 3 as optimal where the follower's strong duality is added as a row. At
    x = (3, 0) the follower takes y = (4, 0), and F = 14.
    """
    text = """
    upper { var x[2] in integers(0, 3);
            maximize 2*x[1] - 3*x[2] + 2*y[1] + 4*x[2]*y[1]; }
    lower f { var y[2] in [0, 4];
              minimize -y[1] + y[2] + 2*x[2]*y[1] - 4*x[2]*y[2];
              subject to r: -y[2] - 4*x[1] + 2*x[2] <= 6; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success, result.message
    assert pytest.approx(14, abs=1e-6) == result.F
