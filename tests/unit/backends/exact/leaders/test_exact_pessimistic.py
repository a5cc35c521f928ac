"""Pessimistic leaders: bound and point from the optimistic side."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

import bilevelpy as bl

pytest.importorskip("pyscipopt")

# Wages by outcome; the agent chooses an action, or mixes some.
WAGES = """
dim a, o;
param P[a, o], cost[a], value[o];
upper pessimistic {
  var w[o] in [0, 20];
  maximize sum(P[i, j] * (value[j] - w[j]) * z[i] for i in a, j in o);
}
lower agent {
  var z[a] in simplex;
  maximize sum(P[i, j] * w[j] * z[i] for i in a, j in o) - sum(cost[i] * z[i] for i in a);
}
"""


@pytest.mark.parametrize(("seed", "actions", "outcomes"), [(0, 4, 3), (3, 10, 5)])
def test_an_agent_who_is_not_kind(seed: int, actions: int, outcomes: int) -> None:
    """The value is approached and not attained: with the agent's goodwill one linear program for
    every action says what it is.
    """
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(outcomes), actions)
    cost = np.sort(rng.uniform(0, 4, actions))
    value = np.sort(rng.uniform(0, 20, outcomes))
    result = bl.solve(bl.parse(WAGES, P=P, cost=cost, value=value), time_limit=30, progress=False)
    most = max(
        P[i] @ value - found.fun
        for i in range(actions)
        if (
            found := linprog(P[i], A_ub=P - P[i], b_ub=cost - cost[i], bounds=[(0, 20)] * outcomes)
        ).status
        == 0
    )
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert most * (1 - 1e-4) <= result.F <= most + 1e-6
    near = result.certificate.details["gap"] > 2e-6
    assert ("a supremum of" in str(result.certificate)) is near
    w = result["w"]
    own = P @ w - cost
    worst = min(P[i] @ (value - w) for i in range(actions) if own[i] > own.max() - 1e-6)
    assert pytest.approx(worst, abs=1e-6) == result.F


def test_a_leader_without_goodwill_may_do_worse_for_good() -> None:
    """At every x the follower is indifferent: the worst of his responses is far from the best."""
    text = """
    upper pessimistic { var x in [0, 2]; minimize x - y[1]; }
    lower f { var y[2] in [0, 1]; minimize (y[2] - 0.5 * x); subject to r: y[1] + y[2] >= x; }
    """
    result = bl.solve(bl.parse(text), backend="exact", progress=False)
    # y[2] >= x - 1: y[2] = 0 up to x = 1, and y[1] may be as small as x.
    assert result.success
    assert pytest.approx(0.0, abs=1e-5) == result.F
