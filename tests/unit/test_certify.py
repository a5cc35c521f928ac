"""Answers from elsewhere: what is right is certified, what is not is told why."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.exporters.languages.ampl import ampl_names
from bilevelpy.exporters.matrices.lp import lp_names
from bilevelpy.exporters.matrices.mps import mps_names
from bilevelpy.exporters.naming import Namer
from bilevelpy.exporters.solution import read_solution
from bilevelpy.reductions.columns import make_columns

MODELS = Path(__file__).parents[2] / "models"

QUADRATIC = """
model q;
dim n;
param A[n, n], z[n];
upper { var x[n] start 1; minimize sumsq(x - z) / 2 + quad(y, A) / 2; }
lower follow { var y[n]; minimize quad(y, A) / 2 - dot(x, y); }
"""
rng = np.random.default_rng(5)
A = np.diag([1.0, 3.0, 10.0, 40.0]) + 0.1
Z = rng.standard_normal(4)
# By hand: y = A^-1 x, and grad Phi = x - z + A^-1 x = 0.
X = np.linalg.solve(np.eye(4) + np.linalg.inv(A), Z)
Y = np.linalg.solve(A, X)

PACKING = """
model packing;
set ITEM = {"a", "b", "c", "d"};
param worth[ITEM], weight[ITEM], cost[ITEM];
upper {
  var stop[ITEM] in binary;
  minimize sum(worth[i] * pack[i] for i in ITEM);
  subject to budget: sum(cost[i] * stop[i] for i in ITEM) <= 3;
}
lower packer {
  var pack[ITEM] in binary;
  maximize sum(worth[i] * pack[i] for i in ITEM);
  subject to
    room: sum(weight[i] * pack[i] for i in ITEM) <= 5;
    free[i in ITEM]: pack[i] <= 1 - stop[i];
}
"""
WORTH, WEIGHT, COST = [6, 5, 4, 3], [3, 2, 2, 1], [2, 1, 1, 1]


@pytest.fixture(scope="module")
def quadratic() -> bl.Model:
    return bl.parse(QUADRATIC, A=A, z=Z)


@pytest.fixture(scope="module")
def packing() -> bl.Model:
    labels = ["a", "b", "c", "d"]
    tables = {
        name: dict(zip(labels, values, strict=True))
        for name, values in (("worth", WORTH), ("weight", WEIGHT), ("cost", COST))
    }
    return bl.parse(PACKING, data=tables)


def best_packing(stop: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """What the packer does, by enumeration."""
    fits = [
        p
        for p in itertools.product((0, 1), repeat=4)
        if np.dot(WEIGHT, p) <= 5 and all(a + b <= 1 for a, b in zip(stop, p, strict=True))
    ]
    found = max(fits, key=lambda p: int(np.dot(WORTH, p)))
    return int(np.dot(WORTH, found)), found


def answered() -> dict[tuple[int, ...], tuple[int, tuple[int, ...]]]:
    """Every affordable choice of the leader with its answer."""
    choices = itertools.product((0, 1), repeat=4)
    return {s: best_packing(s) for s in choices if np.dot(COST, s) <= 3}


def test_a_closed_form_is_certified(quadratic: bl.Model) -> None:
    found = bl.certify(quadratic, {"x": X, "y": Y})
    assert found.success
    assert found.certificate.kind == "global"
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["y"], Y)
    F = found.F
    assert pytest.approx(((X - Z) @ (X - Z) + Y @ A @ Y) / 2, rel=1e-12) == F


def test_another_response_is_refused_with_its_gap(quadratic: bl.Model) -> None:
    other = Y * (1 + 1e-2)
    found = bl.certify(quadratic, {"x": X, "follow.y": other})
    assert not found.success
    gap = (other - Y) @ A @ (other - Y) / 2
    assert found.certificate.lower_gap == pytest.approx(gap, rel=1e-6)
    assert "still falls" in found.message
    assert np.array_equal(found["y"], other)


def test_a_point_that_is_not_stationary_is_refused_with_its_slope(quadratic: bl.Model) -> None:
    x = X + 1e-2
    found = bl.certify(quadratic, {"x": x, "y": np.linalg.solve(A, x)})
    slope = np.linalg.norm(x - Z + np.linalg.solve(A, x))
    assert not found.success
    assert found.certificate.hypergradient_norm == pytest.approx(slope, rel=1e-6)


def test_the_response_is_computed_where_it_is_not_given(quadratic: bl.Model) -> None:
    found = bl.certify(quadratic, {"x": X})
    assert found.success
    assert found["y"] == pytest.approx(Y, rel=1e-9)


@pytest.mark.parametrize("part", [1e-2, 1e-1])
def test_a_start_far_away_makes_no_response_good(part: float) -> None:
    model = bl.load(MODELS / "toy_conditioned.blv")
    found = bl.solve(model, progress=False)
    y = found["y"] * (1 + part * np.cos(np.arange(100)))
    assert not bl.certify(model, {"x": found["x"], "y": y}).success
    assert bl.certify(model, found).success


KINDS = {
    # The leader has y[2], which the follower does not care about, at 1.
    "ties": (
        "upper { var x in [-1, 1]; minimize sumsq(x - 0.5) + sumsq(y[2] - 1); }"
        " lower f { var y[n] in [-2, 2]; minimize (y[1] - x)^2; }",
        [0.5, 1.0],
    ),
    "kinks": (
        "upper { var x in [0, 1]; minimize (x - 0.25)^2 + (y[1] - 1.75)^2; }"
        " lower f { var y[n]; minimize sumsq(y - [2, 0.1]) / 2 + x * sum(abs(y)); }",
        [1.75, 0.0],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_responses_the_leaders_is_computed(kind: str) -> None:
    text, wanted = KINDS[kind]
    model = bl.parse(f"model m; dim n = 2; {text}".replace("[2, 0.1]", "c").replace(
        "dim n = 2;", "dim n = 2; param c[n] = [2, 0.1];"))  # fmt: skip
    x = 0.5 if kind == "ties" else 0.25
    found = bl.certify(model, {"x": x}, time_limit=20)
    assert found.success
    assert found["y"] == pytest.approx(wanted, abs=1e-5)
    assert pytest.approx(0, abs=1e-8) == found.F


def test_written_steps_are_taken() -> None:
    model = bl.parse(
        "model s; upper { var x start 0; minimize (y - 1)^2; }"
        " lower f { var y start 0; minimize (y - x)^2 / 2; assume steps(3, 0.5); }"
    )
    assert bl.certify(model, {"x": 8 / 7})["y"] == pytest.approx(1)
    assert bl.certify(model, {"x": 8 / 7}).success
    assert not bl.certify(model, {"x": 8 / 7, "y": 8 / 7}).success


def test_whole_numbers_are_compared_with_all_others(packing: bl.Model) -> None:
    every = answered()
    least = min(value for value, _ in every.values())
    for stop, (value, pack) in every.items():
        found = bl.certify(packing, {"stop": stop, "pack": pack})
        assert value == found.F
        assert found.success is (value == least), stop
        if value == least:
            assert found.certificate.kind == "global"
            continue
        details = found.certificate.details
        assert details["better_F"] < value
        better = tuple(round(v) for v in details["better"]["stop"])
        assert every[better][0] == details["better_F"]


def test_a_follower_who_could_do_better_is_told(packing: bl.Model) -> None:
    stop, (value, _) = next((s, a) for s, a in answered().items() if a[0] > 5)
    lazy = bl.certify(packing, {"stop": stop, "pack": 0})
    assert not lazy.success
    assert lazy.certificate.lower_gap == pytest.approx(value)
    assert "packer" in lazy.message


def test_rows_of_the_leader_are_checked(packing: bl.Model) -> None:
    found = bl.certify(packing, {"stop": 1, "pack": 0})
    assert not found.success
    assert found.certificate.upper_feasibility == pytest.approx(sum(COST) - 3)
    assert "budget" in found.message


def test_whole_responses_are_computed_too(packing: bl.Model) -> None:
    for stop, (value, _) in answered().items():
        assert value == bl.certify(packing, {"stop": stop}).F


@pytest.mark.parametrize(("stance", "good"), [("optimistic", 1.0), ("pessimistic", 0.0)])
def test_ties_are_for_the_stance_to_settle(stance: str, good: float) -> None:
    # The follower does not care; the leader gains by y.
    model = bl.parse(
        f"model t; upper {stance} {{ var x in binary; minimize x - y; }}"
        " lower f { var y in [0, 1]; minimize 0 * y; }"
    )
    assert bl.certify(model, {"x": 0, "y": good}).success
    other = bl.certify(model, {"x": 0, "y": 1 - good})
    assert not other.success
    assert "response" in other.message


def test_a_part_of_a_response_is_none() -> None:
    model = bl.parse(
        "model p; upper { var x in [0, 1]; minimize (x - y)^2 + z; }"
        " lower f { var y, z; minimize (y - x)^2 + (z - 1)^2; }"
    )
    with pytest.raises(bl.UsageError, match=r"lacks `f.z` of the followers, and has others"):
        bl.certify(model, {"x": 1, "y": 1})


def test_a_response_that_is_almost_best_has_another_f() -> None:
    # f is off by 3e-7 where F is off by 8e-4.
    model = bl.parse(
        "model r; upper { var x in integers(0, 3); minimize (x - 1)^2 + y; }"
        " lower f { var y; minimize (y - x)^2 / 2; }"
    )
    assert bl.certify(model, {"x": 1, "y": 1}).certificate.kind == "global"
    off = bl.certify(model, {"x": 1, "y": 1.0008})
    assert not off.success
    assert "F moves by 8.0e-04" in off.message


def test_a_game_is_in_equilibrium_or_not() -> None:
    model = bl.load(MODELS / "applications" / "nash_cournot.blv")
    assert bl.certify(model, {"Q": 6, "q": [2, 2]}).success
    assert not bl.certify(model, {"Q": 6, "q": [2.1, 1.9]}).success
    assert bl.certify(model, {"Q": 6})["q"] == pytest.approx([2, 2], abs=1e-4)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"y": Y}, r"it lacks `x` of the leader"),
        ({"x": X, "w": 1.0}, r"answer: there is no variable `w`"),
        ({"x": X, "upper.x": X}, r"answer: `x` and `upper.x` are one variable"),
        ({"x": X[:3]}, r"answer: `x` has shape \(4,\), found \(3,\)"),
        ({"x": X * np.nan}, r"answer: `x` must be finite"),
        ([1.0, 2.0], "answer takes a mapping of variables to values"),
        ("nowhere.json", "nowhere.json"),
        ("answer.csv", r"takes a .npz, .json or .sol file"),
    ],
)
def test_what_is_no_answer_is_told(quadratic: bl.Model, answer: Any, message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        bl.certify(quadratic, answer)


def test_leaders_who_read_prices_get_those_that_belong_to_the_point() -> None:
    model = bl.load(MODELS / "applications" / "generation_investment_pessimistic.blv")
    found = bl.certify(model, {"halves": 99, "y": [49.5, 150, 0.5]})
    assert found.success
    assert pytest.approx(-188100, abs=1) == found.F
    assert pytest.approx(-188100, abs=1) == bl.certify(model, {"halves": 99}).F
    other = bl.certify(model, {"halves": 99, "y": [49, 150, 1]})
    assert not other.success
    assert "no shadow prices belong to the point" in other.message
    half = bl.certify(model, {"halves": 88.5})
    assert "`halves` leaves its domain by 5.0e-01" in half.message
    other = bl.certify(model, {"halves": 80})
    assert other.certificate.details["better_F"] < -152000
    assert "another point (halves = " in other.message


SCIP = """objective value:                                   -6
halves[2,4]                                         2 \t(obj:0)
halves[1,2]                                         2 \t(obj:0)
halves[3,4]                                         4 \t(obj:0)
flow[1,2]                                           2 \t(obj:0)
flow[1,3]                                           1 \t(obj:0)
flow[2,4]                                           2 \t(obj:0)
flow[3,4]                                           1 \t(obj:0)
nu.drivers.balance[1]                              -4 \t(obj:0)
"""
HIGHS = """Model status
Optimal

# Primal solution values
Feasible
Objective -6
# Columns 6
halves(1,2) 2
halves(1,3) 0
halves(2,4) 2
halves(3,4) 4
flow(1,2) 2
flow(1,3) 1
flow(2,4) 2
flow(3,4) 1
# Rows 1
drivers.cap(1,2) 2

# Dual solution values
Feasible
# Columns 2
flow(1,2) -7
"""
CBC = """Optimal - objective value -6.00000000
      0 halves_1_2_     2     0
      3 halves_2_4_     2     0
      4 halves_3_4_     4     0
**    5 flow_1_2_       2     0
      6 flow_1_3_       1     0
      8 flow_2_4_       2     0
      9 flow_3_4_       1    -3
"""
GLPK = """   No. Column name  St   Activity     Lower bound   Upper bound
------ ------------ -- ------------- ------------- -------------
     1 halves[1,2]  *              2             0             4
     4 halves[2,4]
                    *              2             0             4
     5 halves[3,4]  *              4             0             4
     6 flow[1,2]    B              2             0
     7 flow[1,3]    B              1             0
     9 flow[2,4]    B              2             0
    10 flow[3,4]    B              1             0
"""


PRETTY = """Columns
    Index Status        Lower        Upper       Primal         Dual  Type        Name
        0                   0            4            2               Integer     halves(1,2)
        1                   0          inf           -0               Continuous  halves(1,3)
        2     BS            0          inf            2            0  Continuous  halves(2,4)
        3     NB            0          inf            4           -1  Continuous  halves(3,4)
        4                   0            2            2               Continuous  flow(1,2)
        5                   0            2            1               Continuous  flow(1,3)
        6                   0            2            2               Continuous  flow(2,4)
        7                   0            2            1               Continuous  flow(3,4)
Rows
    Index Status        Lower        Upper       Primal         Dual  Name
        0                   0            0            9               flow(2,3)

Model status: Optimal
"""


@pytest.mark.parametrize(
    "text",
    [SCIP, HIGHS, PRETTY, CBC, GLPK],
    ids=["scip", "highs", "highs in columns", "cbc", "glpk"],
)
def test_solutions_of_other_solvers_are_read(text: str, tmp_path: Path) -> None:
    model = bl.load(MODELS / "applications" / "toll_setting.blv")
    path = tmp_path / "tolls.sol"
    path.write_text(text, "utf-8")
    values = read_solution(path, model.bound)
    assert values["upper.halves"].tolist() == [2, 0, 0, 2, 4]
    assert values["drivers.flow"].tolist() == [2, 1, 0, 2, 1]
    found = bl.certify(model, path)
    assert found.success
    assert pytest.approx(6) == found.F


@pytest.mark.parametrize(
    "text",
    [
        "solution status: optimal solution found\nobjective value:  7\n"
        "objective    3 \t(obj:1)\nlow.rows    3\n",
        "Optimal - objective value 7.00000000\n  0 objective   3   0\n  2 low_rows   3   0\n",
        "Optimal (within gap tolerance) - objective value 7.00\n 0 objective 3 0\n 2 rows 3 0\n",
        "Model status\nOptimal\n\n# Primal solution values\nFeasible\nObjective 7\n# Columns 3\n"
        "objective 3\nstatus 0\nrows 3\n# Rows 1\nlow_rows 8\n",
        "Rows:       3\nStatus:     INTEGER OPTIMAL\nObjective:  obj = 7 (MINimum)\n\n"
        "   No.   Row name        Activity     Lower bound   Upper bound\n"
        "     1 low_rows                  8                           9\n\n"
        "   No. Column name       Activity     Lower bound   Upper bound\n"
        "     1 objective     *              3             0             9\n"
        "     3 rows                         3             0             9\n",
    ],
    ids=["scip", "cbc", "cbc with a gap", "highs", "glpk"],
)
def test_variables_may_be_called_like_words_of_a_heading(text: str, tmp_path: Path) -> None:
    model = bl.parse(
        "upper { var objective in [0, 9], status in [0, 1]; minimize (objective - 3)^2 + status; }"
        "lower low { var rows in [0, 9]; minimize (rows - objective)^2; }"
    )
    path = tmp_path / "words.sol"
    path.write_text(text, "utf-8")
    values = read_solution(path, model.bound)
    assert values == {"upper.objective": 3, "upper.status": 0, "low.rows": 3}


def test_names_in_a_solution_may_have_their_level(tmp_path: Path) -> None:
    model = bl.parse("upper { var x; minimize x^2 + y; } lower low { var y; minimize (y - x)^2; }")
    path = tmp_path / "levels.sol"
    path.write_text("upper.x 1\nLOW_Y 2\n", "utf-8")
    assert read_solution(path, model.bound) == {"upper.x": 1, "low.y": 2}


@pytest.mark.parametrize("names", [lp_names, mps_names, ampl_names, None])
def test_names_that_formats_change_are_found_again(
    names: Callable[[], Namer] | None, tmp_path: Path
) -> None:
    """Else these variables count as 0, and a good point is called infeasible."""
    long = "very_" * 60
    model = bl.parse(
        'set S = {"north sea", "north-sea", "Köln", "Kiel", "日", "月", "a,b"};'
        f"upper {{ var free, end, x, X, x_1, {long}a, {long}b; minimize x; }}"
        "lower low { var e[S]; minimize sumsq(e); }"
    )
    columns = make_columns(model.bound)
    given = columns.names if names is None else names().names(columns.names)
    path = tmp_path / "named.sol"
    path.write_text("".join(f"{n}   {k + 1}\n" for k, n in enumerate(given)), "utf-8")
    values = read_solution(path, model.bound)
    assert [v for value in values.values() for v in np.ravel(value)] == [*range(1, 15)]


def test_values_that_are_none_are_told(tmp_path: Path, quadratic: bl.Model) -> None:
    path = tmp_path / "x.sol"
    path.write_text("x[1] 1\nx[2] nan\n", "utf-8")
    with pytest.raises(bl.UsageError, match=r"`x\[2\]` has no finite value"):
        bl.certify(quadratic, path)


def test_time_that_is_up_is_told() -> None:
    fresh = bl.parse(QUADRATIC, A=A, z=Z)  # its derivatives are written out on the way
    with pytest.raises(bl.UsageError, match="the time limit of 1e-09 s was over"):
        bl.certify(fresh, {"x": X}, time_limit=1e-9)


def test_a_solution_of_another_model_is_none(tmp_path: Path, quadratic: bl.Model) -> None:
    path = tmp_path / "tolls.sol"
    path.write_text(SCIP, "utf-8")
    with pytest.raises(bl.UsageError, match=r"names no variable of the model.*`x\[1\]`"):
        bl.certify(quadratic, path)


def test_the_command_has_the_exit_codes_of_a_solve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, good, bad = str(MODELS / "simplex.blv"), tmp_path / "good.json", tmp_path / "bad.json"
    found = bl.solve(model, progress=False)
    found.save(good)
    moved = {**found.upper, "w": (found["w"] + 0.1).tolist()} if "w" in found.lower else None
    values = {name: (np.asarray(v) + 0.05).tolist() for name, v in found.upper.items()}
    bad.write_text(json.dumps(moved or values), "utf-8")
    assert main(["certify", model, str(good)]) == 0
    assert "certificate  local" in capsys.readouterr().out
    assert main(["certify", model, str(bad), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["status"] == "stalled"
    assert printed["certificate"]["reasons"]
    assert main(["certify", model, str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
