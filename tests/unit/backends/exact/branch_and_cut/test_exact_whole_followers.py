"""Whole followers below leaders of real numbers: tolerances, cuts, splits where responses tie."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# Of each the best value was found by cases over the followers' whole numbers, in which F is linear.
RESPONSE_OF_NOTHING = """
upper {
  var x0 in [0, 5], x1 in [0, 4];
  minimize -2 * x0 * y0 - 2 * x1 * y1 - 2 * y1 + 2 * x0 + x1;
  subject to
    u0: -x0 + 2 * x1 <= 4;
}
lower f {
  var y0 in binary;
  var y1 in integers(0, 4);
  maximize 6 * y0 + 2 * y1 - 2 * x0 * y0 + 2 * x1 * y1;
}
"""
VALUE_OF_NOTHING = """
upper {
  var x0 in [0, 4], x1 in [0, 8];
  minimize -x0 * y0 + 2 * x1 * y1;
}
lower f {
  var y0 in integers(-1, 2);
  var y1 in integers(-1, 3);
  maximize x0 * y0 + 2 * x1 * y1;
}
"""
ROW_MET_BY_NOTHING = """
upper { var x0 in [-2, 0]; maximize x0 * y0 - y0; }
lower f {
  var y0 in binary;
  var y1 in integers(0, 2);
  var y2 in binary;
  var y3 in binary;
  minimize -4 * y0 + y2 + 5 * y3 + x0 * y0;
  subject to
    r0: 2 * y0 - y1 - y2 + 2 * y3 - x0 >= 0.5;
    r1: 3 * y0 - y1 + 2 * x0 <= 1;
    r2: 2 * y2 - y3 - x0 >= 1;
}
"""
UNITS = """
upper {
  var x0 in [0, 5], x1 in [-2, 7], x2 in [0, 10];
  maximize 100 * x0 * y0 + 200 * x1 * y1 - 100 * x2 * y0 - 3 * x1;
  subject to
    u0: 2 * x0 + 2 * x1 <= 6;
}
lower f {
  var y0 in integers(0, 4);
  var y1 in binary;
  minimize -200 * y0 + 200 * y1 + 100 * x0 * y0 + 200 * x1 * y1 - 100 * x2 * y0;
}
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (RESPONSE_OF_NOTHING, -32.5),
        (VALUE_OF_NOTHING, -8.0),
        (ROW_MET_BY_NOTHING, -1.0),
        (UNITS, 803.0),
    ],
)
def test_responses_that_tie_are_told_apart(text: str, wanted: float) -> None:
    result = bl.solve(bl.parse(text), time_limit=30)
    assert result.success
    assert result.certificate.kind == "global"
    assert pytest.approx(wanted, abs=1e-5 * abs(wanted)) == result.F


def test_a_proof_where_tolerances_times_coefficients_are_worth_a_step() -> None:
    """What is tolled cannot be used: F is 0 everywhere, and flows have no bounds."""
    text = """
    set ARC = {"a", "b", "c"};
    param cost[ARC] = {"a": 4, "b": 6, "c": 9}, toll[ARC] = {"a": 9, "b": 7, "c": 60};
    upper {
      var x[ARC] in binary;
      maximize sum(toll[a] * x[a] * y[a] for a in ARC);
      subject to effort: sum(x) <= 2;
    }
    lower traveller {
      var y[ARC] in [0, inf];
      minimize sum((cost[a] + toll[a] * x[a]) * y[a] for a in ARC);
      subject to
        demand: sum(y) == 1;
        gone[a in ARC]: y[a] <= 1 - x[a];
    }
    """
    result = bl.solve(bl.parse(text), time_limit=30)
    assert result.success
    assert result.certificate.kind == "global"
    assert pytest.approx(0.0, abs=1e-6) == result.F


def test_a_kink_leaves_a_follower_whole() -> None:
    text = """
    upper pessimistic { var x in binary; maximize x * y; }
    lower f {
      var y in integers(1, 4);
      minimize -2 * y^2 + max(y - x - 2, 0);
      subject to r: y + x * y >= 2;
    }
    """
    result = bl.solve(bl.parse(text), time_limit=30)
    assert result.success
    assert pytest.approx(4.0) == result.F


@pytest.mark.parametrize(
    ("follower", "status"),
    [
        # Down for ever; up for ever along y = z; held by a row; held by a whole number.
        ("var y in integers(-inf, 3); minimize y + x;", "infeasible"),
        (
            "var y in integers(0, inf), z in [0, inf]; maximize 2*y - z; "
            "subject to r: y <= 3 + z + x;",
            "infeasible",
        ),
        (
            "var y in integers(0, inf), z in [0, inf]; maximize 2*y - 3*z; "
            "subject to r: y <= 3 + z;",
            "converged",
        ),
        (
            "var y in integers(0, inf), z in binary; maximize 2*y - 3*z; "
            "subject to r: y <= 3 + 9*z;",
            "converged",
        ),
    ],
)
def test_whole_followers_whose_objective_falls_for_ever(follower: str, status: str) -> None:
    text = f"upper {{ var x in [0, 1]; minimize x; }} lower f {{ {follower} }}"
    found = bl.solve(bl.parse(text), time_limit=10, progress=False)
    assert found.status == status
    assert (status == "infeasible") == ("`f` is unbounded at every x" in found.message)


def test_items_taken_away_beside_one_that_stands_alone() -> None:
    """Nodes of a graph are taken away, the follower keeps an independent set of most weight. The
    fifth has no neighbour, so it is a follower in real numbers, whole but for rounding.
    """
    model = """
    dim n, e;
    param D[e, n], p[n];
    upper { var x[n] in binary; minimize dot(p, y); subject to few: sum(x) <= 1; }
    lower f {
      var y[n] in binary;
      maximize dot(p, y);
      subject to edge[k in e]: sum(D[k, i] * y[i] for i in n) <= 1; off[i in n]: y[i] <= 1 - x[i];
    }
    """
    edges = np.array([(0, 2), (1, 2), (0, 3), (0, 5), (2, 6), (3, 6), (5, 6), (1, 7), (2, 7)])
    D = np.zeros((9, 8))
    D[np.arange(9)[:, None], edges] = 1.0
    p = np.array([18.0, 3.0, 18.0, 15.0, 1.0, 11.0, 19.0, 18.0])
    y = np.array(list(itertools.product((0, 1), repeat=8)))
    y = y[(y @ D.T <= 1).all(axis=1)]
    least = min((y @ p)[(y <= 1 - x).all(axis=1)].max() for x in (*np.eye(8), np.zeros(8)))
    found = bl.solve(bl.parse(model, data={"D": D, "p": p}), backend="exact", time_limit=30.0)
    assert found.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-6) == found.F


def test_fixed_whole_numbers_keep_their_values() -> None:
    """SCIP would round the ends of 1 - 4e-8 apart, and call nothing the optimum."""
    columns = lift(system(bl.parse("upper { var a in binary, b in binary; minimize -a; }").bound))
    model = Model(columns.columns, {0: 1.0 - 4e-8})
    model.row(model.variables[0] + model.variables[1], -math.inf, 2.0)
    model.scip.setObjective(-model.variables[1], "minimize")
    found = model.solve(Limits(10.0, feasible=1e-8))
    assert found.objective == pytest.approx(-1.0)
    assert found.values == pytest.approx([1.0 - 4e-8, 1.0], abs=1e-12)
