"""Adversaries, who want what the leader does not: cutting planes over x alone."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.adversaries.zero_sum import is_zero_sum
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# The worst distribution in a ball of relative entropy about q.
BALL = """
dim s, a;
param L[s, a], q[s];
upper { var x[a] in simplex; minimize sum(p[k] * L[k, i] * x[i] for k in s, i in a); }
lower adversary {
  var p[s] in [1e-6, 1];
  maximize sum(p[k] * L[k, i] * x[i] for k in s, i in a);
  subject to
    one: sum(p) == 1;
    ball: sum(p[k] * log(p[k] / q[k]) for k in s) <= 0.1;
}
"""
# Some of the items are chosen; an adversary chooses costs, and what would have been best.
REGRET = """
dim n, s;
param c[s, n];
upper {
  var x[n] in binary;
  minimize sum(c[k, i] * z[k] * x[i] for k in s, i in n)
      - sum(c[k, i] * v[k, i] for k in s, i in n);
  subject to chosen: sum(x) == 5;
}
lower adversary {
  var z[s] in binary, v[s, n] in [0, 1];
  maximize sum(c[k, i] * z[k] * x[i] for k in s, i in n)
      - sum(c[k, i] * v[k, i] for k in s, i in n);
  subject to
    one: sum(z) == 1;
    other[k in s]: sum(v[k, i] for i in n) == 5 * z[k];
    only[k in s, i in n]: v[k, i] <= z[k];
}
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_a_ball_of_entropy(seed: int) -> None:
    """By its dual: the least over x, alpha and nu of nu + 0.1 alpha + alpha log-sum-exp."""
    rng = np.random.default_rng(seed)
    L, q = rng.uniform(-2, 3, (5, 3)).round(2), np.full(5, 0.2)
    result = bl.solve(bl.parse(BALL, L=L, q=q), time_limit=40, progress=False)
    p = cp.Variable(5)
    loss = L.T @ p
    top = cp.Variable()
    ball = cp.sum(cp.rel_entr(p, q)) <= 0.1
    # The saddle point from the other side: the adversary's best mixed answer to the best x.
    cp.Problem(cp.Maximize(top), [top <= loss, cp.sum(p) == 1, p >= 1e-6, ball]).solve()
    assert result.backend == "exact"
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(float(top.value), abs=1e-5) == result.F


@pytest.mark.parametrize("seed", [0, 5])
def test_least_greatest_regret(seed: int) -> None:
    """By enumeration; twelve items had no proof in 30 s."""
    c = np.random.default_rng(seed).integers(1, 20, (6, 12)).astype(float)
    result = bl.solve(bl.parse(REGRET, c=c), time_limit=30, progress=False)
    best = np.sort(c, 1)[:, :5].sum(1)
    least = min(
        float((c[:, list(chosen)].sum(1) - best).max())
        for chosen in itertools.combinations(range(12), 5)
    )
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-6) == result.F


@pytest.mark.parametrize(
    ("upper", "lower", "row", "expected"),
    [
        ("x^2 - 2 * x * y + z", "x * y - z / 2", "y + z <= 3", True),
        ("x^2 - 2 * x * y + z", "x * y - z", "y + z <= 3", False),  # not in proportion
        ("2 * x * y - z", "x * y - z / 2", "y + z <= 3", False),  # wants the same
        ("-2 * x * y + z + z^2", "x * y - z / 2", "y + z <= 3", False),
        ("-2 * x * y + z", "x * y - z / 2", "y + z <= x", False),  # the row moves
    ],
)
def test_who_is_an_adversary(upper: str, lower: str, row: str, expected: bool) -> None:
    text = f"""
    upper {{ var x in [0, 1]; minimize {upper}; }}
    lower f {{ var y in integers(0, 2), z in [0, 2]; minimize {lower}; subject to r: {row}; }}
    """
    assert is_zero_sum(system(bl.parse(text).bound)) is expected


def test_several_adversaries_and_a_leader_with_costs_of_her_own() -> None:
    text = """
    set K = 1..2;
    param a[K] = [1, -1];
    upper { var x in [-2, 2]; minimize x^2 / 2 + sum(3 * (x - a[k]) * adv.y[k] for k in K); }
    lower adv[k in K] { var y in integers(-1, 1); maximize (x - a[k]) * y; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=20, progress=False)
    x = np.linspace(-2, 2, 4001)
    least = (x**2 / 2 + 3 * np.abs(x - 1) + 3 * np.abs(x + 1)).min()
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-5) == result.F
