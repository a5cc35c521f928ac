"""Leaders of few choices above convex followers that are neither linear nor quadratic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

import bilevelpy as bl
from bilevelpy.backends.exact.relaxations import relax as exact_relax

pytest.importorskip("pyscipopt")
pytest.importorskip("casadi")

NETWORK = """
model network;
set NODE = {"a", "b", "c", "d"};
set ARC within NODE * NODE = {
  ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("b", "c"), ("a", "d")
};
set NEW within ARC = {("b", "c"), ("a", "d")};
param t0[ARC] = {("a", "b"): 1, ("a", "c"): 3, ("b", "d"): 3, ("c", "d"): 1, ("b", "c"): 0.5,
  ("a", "d"): 4};
param cap[ARC] = {("a", "b"): 2, ("a", "c"): 4, ("b", "d"): 4, ("c", "d"): 2, ("b", "c"): 3,
  ("a", "d"): 2};
param demand[NODE] = {"a": -6, "b": 0, "c": 0, "d": 6};
upper {
  var build[NEW] in binary;
  minimize sum(t0[i, j] * (1 + 0.15 * (v[i, j] / cap[i, j])^4) * v[i, j] for (i, j) in ARC)
    + 0.5 * sum(build);
  ROWS
}
lower traffic {
  var v[ARC] in [0, inf];
  minimize sum(t0[i, j] * (v[i, j] + 0.03 * v[i, j]^5 / cap[i, j]^4) for (i, j) in ARC);
  subject to flow[n in NODE]:
    sum(v[i, j] for (i, j) in ARC where j == n) - sum(v[i, j] for (i, j) in ARC where i == n)
    == demand[n];
  subject to only[(i, j) in NEW]: v[i, j] <= LIMIT * build[i, j];
}
"""
"""Discrete network design with the travel times of the Bureau of Public Roads (Leblanc 1975)."""

T0 = np.array([1, 3, 3, 1, 0.5, 4])
CAP = np.array([2, 4, 4, 2, 3, 2])
ENDS = np.array(
    [[-1, -1, 0, 0, 0, -1], [1, 0, -1, 0, -1, 0], [0, 1, 0, -1, 1, 0], [0, 0, 1, 1, 0, 1]]
)
DEMAND = np.array([-6, 0, 0, 6])


def flows(build):
    """User equilibrium by SciPy."""
    high = np.array([np.inf] * 4 + [10.0 * b for b in build])
    found = minimize(
        lambda v: float((T0 * (v + 0.03 * v**5 / CAP**4)).sum()),
        np.where(high > 0, 1.5, 0.0),
        jac=lambda v: T0 * (1 + 0.15 * v**4 / CAP**4),
        hess=lambda v: np.diag(T0 * 0.6 * v**3 / CAP**4),
        bounds=[(0, h) for h in high],
        constraints=[LinearConstraint(ENDS[1:], DEMAND[1:], DEMAND[1:])],
        method="trust-constr",
        options={"gtol": 1e-10, "xtol": 1e-12, "maxiter": 3000},
    )
    return found.x


def cost(build, v):
    """The leader's objective."""
    return float((T0 * (1 + 0.15 * (v / CAP) ** 4) * v).sum() + 0.5 * sum(build))


def text(rows="", limit="10"):
    return NETWORK.replace("ROWS", rows).replace("LIMIT", limit)


def solve(model, **options):
    return bl.solve(bl.parse(model), backend="exact", time_limit=60, progress=False, **options)


def test_every_choice_is_answered(monkeypatch):
    """No global solver has to solve the conditions of such a follower."""

    def never(self, *_, **__):
        raise AssertionError("SCIP was asked")

    monkeypatch.setattr(exact_relax.Relaxed, "solve", never)
    expected = {b: cost(b, flows(b)) for b in itertools.product((0, 1), repeat=2)}
    best = min(expected, key=expected.get)
    found = solve(text())
    assert found.success, found.message
    assert found.certificate.kind == "global"
    assert found.iterations == 4
    assert found["build"].round().tolist() == list(best)
    assert pytest.approx(expected[best], rel=1e-5) == found.F


def test_rows_of_the_leader_that_read_responses():
    best = solve(text())
    most = float(best["v"][2])
    other = solve(text(f'subject to quiet: v["b", "d"] <= {most - 0.1};'))
    assert other.success
    assert other.F > best.F
    assert other["v"][2] <= most - 0.1 + 1e-6


def test_choices_without_a_response_are_left_out():
    model = text("subject to some: sum(build) >= 1;").replace("in [0, inf];", "in [0, 2.5];")
    found = solve(model)
    assert found.success
    assert found["build"].sum() >= 1


def test_no_choice_has_a_response():
    found = solve(text().replace("in [0, inf];", "in [0, 1];"))
    assert found.status == "infeasible"


def test_responses_that_may_differ_are_left_to_the_conditions():
    """Two linear routes beside a congested one: which of them is taken is the leader's choice."""
    model = """
    model routes;
    upper { var open in binary; minimize y[1] + 3 * z + open; }
    lower follow {
      var y[2] in [0, 2], z in [0, 4];
      minimize y[1] + y[2] + exp(z) - z * open;
      subject to need: y[1] + y[2] + z == 2;
    }
    """
    found = solve(model)
    assert found.success
    assert found["y"][0] == pytest.approx(0.0, abs=1e-5)
    assert pytest.approx(0.0, abs=1e-4) == found.F


def test_more_than_sixty_variables():
    n = 80
    draw = np.random.default_rng(0)
    c, w = draw.uniform(1, 3, n), draw.uniform(0, 2, n)
    model = f"""
    model many;
    param c[{n}], w[{n}];
    upper {{ var on[3] in binary; minimize sum(w[i] * y[i] for i in {n}) + sum(on) / 10; }}
    lower share {{
      var y[{n}] in [1e-6, 1];
      minimize sum(y[i] * log(y[i]) + (c[i] - on[1] * w[i] - on[2]) * y[i] for i in {n});
      subject to all: sum(y) == 1 + on[3];
    }}
    """

    def response(on):
        z = np.exp(-(c - on[0] * w - on[1]))
        return (1 + on[2]) * z / z.sum()

    every = itertools.product((0, 1), repeat=3)
    expected = min(float(w @ response(on)) + sum(on) / 10 for on in every)
    found = bl.solve(bl.parse(model, data={"c": c, "w": w}), time_limit=60, progress=False)
    assert found.backend == "exact"
    assert found.success
    assert pytest.approx(expected, rel=1e-6) == found.F


def test_rows_whose_coefficient_vanishes_at_a_choice():
    found = solve(
        """
        model vanishing;
        upper { var x in integers(0, 2); minimize (y - 1)^2 + 0.1 * x; }
        lower f {
          var y in [0, 3], w in [0, 3];
          minimize y^4 + exp(w) - 2 * y;
          subject to a: x * y <= 1; b: (1 - x) * w >= -5; c: y + w >= 0.2;
        }
        """
    )
    assert found.success
    assert found["y"] == pytest.approx(0.5 ** (1 / 3), abs=1e-6)
