"""Products of the leader's objective made linear by the followers' conditions."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.linearization.linear_objective import linear_objective
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

TOLL = """
upper { var t[2] in [0, 4]; maximize sum(t[a] * f[a] for a in 2); }
lower d {
  var f[3] in [0, 5];
  minimize (1 + t[1]) * f[1] + (2 + t[2]) * f[2] + 4 * f[3];
  subject to all: sum(f) == 6; roof: f[1] + f[2] <= 5.5;
}
"""
PRICE = """
upper { var q in [0, 10]; maximize (dual(m.balance) - 1) * own - 2 * q; }
lower m {
  var own in [0, inf], y[2] in [0, 4];
  minimize own + 3 * y[1] + 5 * y[2];
  subject to balance: own + sum(y) == 7; limit: own <= q;
}
"""
FAMILY = """
set I = {"a", "b"};
param c[I] = {"a": 1, "b": 2};
upper { var t[I] in [0, 3]; maximize sum(t[i] * m.y[i] for i in I) - sum(t); }
lower m[i in I] { var y in [0, 4], z in [0, inf]; minimize (c[i] + t[i]) * y + 3 * z;
                  subject to need: y + z >= 2; }
"""


def conditions(text: str) -> KKT:
    return kkt(system(bl.parse(text).bound))


def complementary_points(program: KKT, count: int = 12) -> list[np.ndarray]:
    """Points of the program: x at random, a best response and its multipliers (by SCIP)."""
    pytest.importorskip("pyscipopt")
    from bilevelpy.backends.exact.engine.outcome import Limits
    from bilevelpy.backends.exact.relaxations.relax import Relaxed

    rng = np.random.default_rng(0)
    columns, found = program.columns, []
    for _ in range(count):
        upper = program.system.upper_columns
        fixed = {int(j): rng.uniform(columns.lower[j], columns.upper[j]) for j in upper}
        outcome = Relaxed(program, fixed).model(None).solve(Limits())
        if outcome.values is not None:
            found.append(outcome.values)
    return found


@pytest.mark.parametrize("text", [TOLL, PRICE, FAMILY])
def test_products_are_gone_and_every_feasible_point_keeps_its_value(text: str) -> None:
    program = conditions(text)
    linear = linear_objective(program)
    assert (program.objective.degree, linear.objective.degree) == (2, 1)
    points = complementary_points(program)
    assert len(points) >= 8
    for v in points:
        assert linear.objective.value(v) == pytest.approx(program.objective.value(v), abs=1e-6)


@pytest.mark.parametrize(
    "objective",
    [
        "sum(t[a] * f[3] for a in 2)",  # no follower pays that
        "sum(t[a] * f[a] for a in 2) - t[1]^2",
        "t[1] * t[2]",
        "sumsq(f)",
    ],
)
def test_products_that_no_condition_explains_stay(objective: str) -> None:
    text = TOLL.replace("maximize sum(t[a] * f[a] for a in 2)", f"maximize {objective}")
    program = conditions(text)
    assert linear_objective(program) is program


def test_a_linear_objective_stays_as_it_is() -> None:
    program = conditions(TOLL.replace("maximize sum(t[a] * f[a] for a in 2)", "maximize f[1]"))
    assert linear_objective(program) is program


@pytest.mark.parametrize(
    ("text", "best"),
    [
        # Grid over the tolls, the follower by hand: both arcs at 4 - length, f = (5, .5) or less.
        (TOLL, 16.0),
        # Own supply below 3 leaves the price at 5: (5 - 1) 3 - 2 * 3.
        (PRICE, 6.0),
        # Tolls of 2 and 1 keep both at y = 2 (optimistic): 4 + 2 - 3.
        (FAMILY, 3.0),
    ],
)
def test_solved_to_the_known_optimum(text: str, best: float) -> None:
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(text))
    assert result.success, result.message
    assert pytest.approx(best, abs=1e-5) == result.F
