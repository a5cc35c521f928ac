"""Faults of engines that the package works around; each fails again once the guard is taken out."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
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


def test_logarithms_of_zero_do_not_end_the_process() -> None:
    """With the conditions of this follower, whose slopes are logarithms of what may be 0, SoPlex of
    SCIP 10.0.2 writes past its memory: the process of this run would be aborted.
    """
    text = """
    upper { var r in [0.01, 1] start 0.2; minimize (p[1] - 0.5)^2 + 0.1 * r; }
    lower adversary { var p[3] in [0, 1]; maximize p[1] + 0.2 * p[2] - 0.5 * p[3];
                      subject to one: sum(p) == 1; ball: -entropy(p) + log(3) <= r; }
    """
    code = (
        "import bilevelpy as bl\n"
        f"r = bl.solve(bl.parse({text!r}), backend='exact', time_limit=10, progress=False)\n"
        "assert abs(r.F - 0.0057160) < 1e-6, r.F\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_responses_below_what_its_logarithms_take_are_not_cut_off() -> None:
    """SCIP keeps arguments of logarithms above 1e-9. The best response to r = 0.01 is far below
    that in most entries, and F = 0.251 there.
    """
    text = """
    upper { var r in [0.01, 1] start 0.2; minimize (p[3] - 0.5)^2 + 0.1 * r; }
    lower choice { var p[3] in [0, 1]; maximize 2 * p[1] - p[2] + 0.1 * p[3] + r * entropy(p);
                   subject to one: sum(p) == 1; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=10, progress=False)
    weights = np.exp(np.array([2.0, -1.0, 0.1])[:, None] / np.linspace(0.01, 1.0, 991))
    least = ((weights[2] / weights.sum(0) - 0.5) ** 2 + 0.1 * np.linspace(0.01, 1.0, 991)).min()
    assert least + 1e-6 > result.F or result.certificate.kind != "global"


RELOCATION = """
dim i, j;
param C[i, j], p[j];
upper { var x[j] in binary; maximize sum(C * y) - sum(p * x); subject to few: sum(x) <= 2; }
lower f {
  var y[i, j] in [0, 1], o[j] in binary;
  minimize sum(C * y);
  subject to
    all[a in i]: sum(y[a, b] for b in j) == 1;
    near[a in i, b in j]: y[a, b] <= o[b];
    hit[b in j]: o[b] <= 1 - x[b];
    most: sum(o) <= 3;
}
"""


@pytest.mark.parametrize("seed", [18, 48])
def test_cuts_leave_no_binary_at_the_tolerance(seed: int) -> None:
    """Strong branching of SCIP 10.0 fixes a binary at 1 whose value is the tolerance and rounding:
    its side down ends at -1. So it does where cuts are weakened by that.
    """
    rng, sites = np.random.default_rng(seed), range(8)
    customers, places = rng.random((10, 1, 2)), rng.random((1, 8, 2))
    costs = np.linalg.norm(100.0 * (customers - places), axis=2).round()
    costs *= rng.integers(1, 20, (10, 1))
    prices = rng.integers(1, 200, 8)
    open_ = {s: costs[:, s].min(axis=1).sum() for s in itertools.combinations(sites, 3)}
    attacks = [set(x) for n in range(3) for x in itertools.combinations(sites, n)]
    least = [min(v for s, v in open_.items() if not x & set(s)) for x in attacks]
    best = max(v - sum(prices[j] for j in x) for v, x in zip(least, attacks, strict=True))
    model = bl.parse(RELOCATION, data={"C": costs, "p": prices})
    assert pytest.approx(best, rel=1e-6) == bl.solve(model, backend="exact").F
