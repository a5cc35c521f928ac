"""Pessimistic leaders with few choices, followers that optimality conditions do not settle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl

# A knapsack whose items tie in profit but not in what they cost the leader.
KNAPSACK = """
model knapsack;
set ITEM = {"a", "b", "c", "d"};
param profit[ITEM] = {"a": 4, "b": 4, "c": 3, "d": 1};
param weight[ITEM] = {"a": 2, "b": 2, "c": 2, "d": 1};
param harm[ITEM] = {"a": 1, "b": 7, "c": 2, "d": 1};
upper STANCE {
  var ban[ITEM] in binary;
  minimize sum(harm[i] * take[i] for i in ITEM) + 2 * sum(ban);
  subject to few: sum(ban) <= 1;
}
lower thief {
  var take[ITEM] in integers(0, 2);
  maximize sum(profit[i] * take[i] for i in ITEM);
  subject to
    room: sum(weight[i] * take[i] for i in ITEM) <= 3;
    banned[i in ITEM]: take[i] <= 2 - 2 * ban[i];
}
"""


def enumerated(worst: bool) -> float:
    profit, weight, harm = np.array([4, 4, 3, 1]), np.array([2, 2, 2, 1]), np.array([1, 7, 2, 1])
    takes = np.array(list(itertools.product(range(3), repeat=4)))
    values = []
    for ban in itertools.product((0, 1), repeat=4):
        if sum(ban) > 1:
            continue
        allowed = takes[(takes @ weight <= 3) & (takes <= 2 - 2 * np.array(ban)).all(axis=1)]
        best = allowed[allowed @ profit == (allowed @ profit).max()]
        values.append((max if worst else min)((best @ harm).tolist()) + 2 * sum(ban))
    return float(min(values))


@pytest.mark.parametrize("stance", ["optimistic", "pessimistic"])
def test_ties_among_whole_numbers(stance: str) -> None:
    res = bl.solve(bl.parse(KNAPSACK.replace("STANCE", stance)), time_limit=30)
    assert res.success
    assert res.certificate.kind == "global"
    wanted = enumerated(worst=stance == "pessimistic")
    assert abs(res.F - wanted) < 1e-6


def test_the_two_readings_differ_here() -> None:
    assert enumerated(worst=True) > enumerated(worst=False)


def test_a_leader_of_real_numbers_is_refused() -> None:
    text = KNAPSACK.replace("STANCE", "pessimistic").replace(
        "ban[ITEM] in binary", "ban[ITEM] in [0, 1]"
    )
    with pytest.raises(bl.BackendError, match="whole numbers"):
        bl.solve(bl.parse(text), backend="exact")


@pytest.mark.parametrize(("stance", "best"), [("optimistic", -0.3), ("pessimistic", 0.0)])
def test_ties_of_whole_numbers_below_a_square(stance: str, best: float) -> None:
    """At x = 1 both 0 and 1 are as near to x / 2: real numbers would have one response."""
    text = """
    upper STANCE { var x in integers(0, 2); minimize y - 0.3 * x; }
    lower f { var y in integers(0, 2); minimize (2 * y - x)^2; }
    """
    res = bl.solve(bl.parse(text.replace("STANCE", stance)), time_limit=30)
    assert res.certificate.kind == "global"
    assert abs(res.F - best) < 1e-9


@pytest.mark.parametrize("follower", ["integers(0, 2)", "[0, 2]"])
def test_a_stopped_pessimistic_run_keeps_its_best_point(follower: str) -> None:
    """Of 16 choices the first that is tried is not the best."""
    text = KNAPSACK.replace("STANCE", "pessimistic").replace("integers(0, 2)", follower)
    text = text.replace("sum(ban) <= 1", "sum(ban) <= 4")
    seen: list[float] = []

    def stop(state: bl.IterationState) -> bool:
        seen.append(state.F)
        return True

    result = bl.solve(bl.parse(text), callback=stop, progress=False)
    assert result.status is bl.Status.INTERRUPTED
    assert pytest.approx(min(seen), abs=1e-6) == result.F
    assert bl.solve(bl.parse(text)).F < result.F - 1e-6


@pytest.mark.parametrize("follower", ["integers(0, 2)", "[0, 2]"])
def test_all_best_responses_meet_the_rows_of_the_leader(follower: str) -> None:
    """Nothing is worth anything to the follower: he may take up to 2 - x of both."""
    text = f"""
    upper pessimistic {{
      var x in integers(0, MOST);
      minimize -y[1] - x;
      subject to little: y[1] + y[2] / 2 <= 0.4;
    }}
    lower f {{
      var y[2] in {follower};
      minimize 0 * y[1];
      subject to room: y[1] + y[2] + x <= 2;
    }}
    """
    result = bl.solve(bl.parse(text.replace("MOST", "2")), backend="exact", time_limit=30)
    assert result.certificate.kind == "global"
    assert pytest.approx(-2.0, abs=1e-6) == result.F
    none = bl.solve(bl.parse(text.replace("MOST", "1")), backend="exact", time_limit=30)
    assert none.status == "infeasible"
    assert "all of them" in none.message


def test_a_whole_follower_without_a_bound_rules_x_out() -> None:
    """At x = 0 more of z is better for ever; at x = 1 none is the best."""
    text = """
    upper pessimistic { var x in LEADER; minimize 3 * x - z; }
    lower f { var y in integers(0, 5), z in [0, inf]; minimize y - z + 2 * x * z; }
    """
    result = bl.solve(bl.parse(text.replace("LEADER", "binary")), backend="exact", time_limit=30)
    assert result.certificate.kind == "global", result.message
    assert pytest.approx(3.0, abs=1e-6) == result.F
    none = bl.parse(text.replace("LEADER", "integers(0, 0)"))
    assert bl.solve(none, backend="exact", time_limit=30).status == "infeasible"
