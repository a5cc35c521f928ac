"""Sweeps: the grid, what varies from row to row, and the same numbers in processes as in one."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.sweeping import random_start

# y = a x / 2, so F = (a x / 2 - 3)^2 has its minimum 0 at x = 6 / a.
MODEL = """\
model swept;
param a in [0.1, inf] = 1;
upper { var x in [0, 100]; minimize (y - 3)^2; }
lower g { var y; minimize (y - a * x)^2 + y^2; }
report answer = y;
"""
# F = -cos(x) near the start: every start has its own local minimum.
WAVES = """\
model waves;
upper { var x in [-20, 20] start 6; minimize y^2 / 100 - cos(y); }
lower g { var y; minimize (y - x)^2; }
"""


def test_every_combination_is_solved_in_the_order_of_the_grid() -> None:
    table = bl.sweep(bl.parse(MODEL), params={"a": [1.0, 2.0]}, seeds=[0, 1], jobs=1)
    assert [(row["a"], row["seed"]) for row in table.rows()] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert table.success
    for run in table.runs:
        assert run.result is not None
        assert run.result["x"] == pytest.approx(6 / run.job.values["a"], rel=1e-5)


def test_processes_find_the_same_as_one(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    path = tmp_path / "swept.blv"
    path.write_text(MODEL)
    one = bl.sweep(path, params={"a": [1.0, 3.0]}, jobs=1)
    two = bl.sweep(path, params={"a": [1.0, 3.0]}, jobs=2)
    assert [r["F"] for r in one.rows()] == [r["F"] for r in two.rows()]
    assert [r["answer"] for r in one.rows()] == [r["answer"] for r in two.rows()]


def test_random_starts_reach_the_best_of_several_minima() -> None:
    table = bl.sweep(bl.parse(WAVES), starts=12, jobs=1)
    found = {round(row["F"], 3) for row in table.rows()}
    assert len(found) > 1, "all starts fell into one basin"
    best = table.best().result
    assert best is not None
    assert abs(best.F + 1) < 1e-6
    assert best["x"] == pytest.approx(0, abs=1e-4)


def test_a_run_that_its_value_makes_impossible_is_a_row() -> None:
    table = bl.sweep(bl.parse(MODEL), params={"a": [1.0, -1.0]}, jobs=1)
    assert [row["status"] for row in table.rows()] == ["converged", "refused"]
    assert "BLV0405" in table.rows()[1]["message"]
    assert not table.success
    assert table.best().job.values["a"] == 1.0


@pytest.mark.parametrize(
    ("domain", "inside"),
    [
        ("in [2, 5]", lambda v: (v >= 2).all() and (v <= 5).all()),
        ("in [0, inf] start 4", lambda v: (v >= 0).all()),
        ("in simplex", lambda v: (v >= 0).all() and math.isclose(v.sum(), 1)),
        ("in ball(0.5)", lambda v: np.linalg.norm(v) <= 0.5),
    ],
)
def test_random_starts_lie_in_the_domain(domain: str, inside: object) -> None:
    model = bl.parse(
        f"dim n = 4; upper {{ var x[n] {domain}; minimize sum(y^2); }}"
        " lower g { var y[n]; minimize sum((y - x)^2); }"
    )
    drawn = [random_start(model, 0, k)["upper.x"] for k in (1, 2)]
    assert all(inside(v) for v in drawn)  # type: ignore[operator]
    assert not np.allclose(*drawn)
    assert np.array_equal(drawn[0], random_start(model, 0, 1)["upper.x"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"params": {"b": [1]}}, "no param `b`"),
        ({"params": {"a": []}}, "no values"),
        ({"backends": ["qnob"]}, "did you mean `qnbo`"),
        ({"starts": 0}, "starts must be at least 1"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"tol": 2.0}, "tol must lie between 0 and 1"),
        ({"seeds": range(10**6)}, "at most 100000"),
    ],
)
def test_what_cannot_be_swept_is_said_before_the_first_run(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(bl.UsageError, match=says):
        bl.sweep(bl.parse(MODEL), **changes)  # type: ignore[arg-type]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "swept.blv", tmp_path / "table.csv"
    path.write_text(MODEL)
    given = ["sweep", str(path), "--param", "a=1,2", "--jobs", "1", "--out", str(out)]
    assert main(given) == 0
    assert "converged" in capsys.readouterr().out
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["a"]) for row in rows] == [1, 2]
    assert main([*given[:2], "--param", "a=1,oops"]) == 2
    assert "values in JSON" in capsys.readouterr().err
    assert main([*given[:2], "--param", "a=1,-1", "--jobs", "1"]) == 1
