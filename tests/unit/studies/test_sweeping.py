"""Sweeps: the grid, what varies from row to row, and the same numbers in processes as in one."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.result import Status
from bilevelpy.studies import sweeping
from bilevelpy.studies.sweeping import random_start

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


def test_an_internal_error_of_one_run_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(model: bl.Model, seed: int, index: int) -> dict[str, np.ndarray]:
        if index == 1:
            raise ZeroDivisionError("a fault")
        return random_start(model, seed, index)

    monkeypatch.setattr(sweeping, "random_start", start)
    table = bl.sweep(bl.parse(MODEL), starts=3, jobs=1)
    assert [row["status"] for row in table.rows()] == ["converged", "refused", "converged"]
    assert table.rows()[1]["message"] == "internal error: ZeroDivisionError: a fault"


def test_runs_of_a_process_that_was_killed_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib gives up the pool of a killed process: what was complete is kept, what was under way
    is lost, and the others go on in a new pool.
    """
    joblib = pytest.importorskip("joblib")
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    class Dying:
        pools = 0

        def __init__(self, **options: object) -> None:
            Dying.pools += 1

        def __call__(self, tasks: Iterator[tuple[Any, Any, Any]]) -> Iterator[Any]:
            handed = list(tasks)
            complete = {1: handed[1:2], 2: handed[:1]}.get(Dying.pools, [])
            for function, arguments, keywords in complete:
                yield function(*arguments, **keywords)
            raise TerminatedWorkerError

    monkeypatch.setattr(joblib, "Parallel", Dying)
    path = tmp_path / "swept.blv"
    path.write_text(MODEL)
    table = bl.sweep(path, params={"a": [float(k) for k in range(11)]}, jobs=2)
    # Two pools complete a run each and lose two, the third one two and nothing more is tried after
    # the fourth.
    done = [k for k, row in enumerate(table.rows()) if row["status"] == "converged"]
    assert (done, Dying.pools) == ([1, 3], 4)
    assert "ended from outside" in table.rows()[0]["message"]
    assert len(table.rows()) == 11


def test_ctrl_c_keeps_the_runs_that_were_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bilevelpy import solving

    seen = 0

    def run(*arguments: Any) -> bl.Result:
        nonlocal seen
        seen += 1
        result = whole(*arguments)
        # The driver ends an interrupted run with this status, it does not raise.
        return result if seen < 3 else replace(result, status=Status.INTERRUPTED)

    whole = solving.run
    monkeypatch.setattr(solving, "run", run)
    path, out = tmp_path / "swept.blv", tmp_path / "table.json"
    path.write_text(MODEL)
    given = ["sweep", str(path), "--param", "a=1,2,3,4", "--jobs", "1", "--out", str(out)]
    assert main(given) == 130
    assert seen == 3, "the fourth run has not begun"
    assert "interrupted: 2 of 4 runs are complete" in capsys.readouterr().out
    saved = json.loads(out.read_text())
    assert [row["a"] for row in saved["runs"]] == [1, 2]
    assert saved["unfinished"] == 2
    assert not saved["success"]


def test_what_is_complete_is_written_while_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process that is killed takes hours of runs with it."""
    from bilevelpy import solving

    path, out, seen = tmp_path / "swept.blv", tmp_path / "table.csv", list[int]()

    def run(*arguments: Any) -> bl.Result:
        seen.append(len(out.read_text().splitlines()) if out.exists() else 0)
        return whole(*arguments)

    whole = solving.run
    monkeypatch.setattr(solving, "run", run)
    monkeypatch.setattr(sweeping, "INTERVAL", 0.0)
    path.write_text(MODEL)
    main(["sweep", str(path), "--param", "a=1,2,3", "--jobs", "1", "--out", str(out)])
    assert seen == [0, 2, 3], "a line of names, and one for each run"


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
        ({"seeds": [0, -5]}, "seed must not be negative"),
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


def test_a_table_of_many_reports_fits_a_terminal() -> None:
    text = MODEL + "".join(f"report long_name_{k} = x + {k};\n" for k in range(12))
    table = bl.sweep(bl.parse(text), params={"a": [1.0, 2.0]}, backends=["aid", "blocc"], jobs=1)
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert "answer" in lines[0]
    assert "long_name_11" not in lines[0]
    assert "not shown, but in `rows()` and in files: " in repr(table)
    assert "long_name_11" in table.rows()[0]
    assert "2: `blocc` is for lower levels with constraints" in repr(table)


def test_a_table_of_long_vectors_fits_a_terminal() -> None:
    text = MODEL.replace("param a", "param w[40] = 1; param a")
    table = bl.sweep(bl.parse(text), params={"w": [list(range(40)), [1.0] * 40]}, jobs=1)
    assert max(map(len, repr(table).splitlines())) <= 80
    assert "[0, 1, 2, 3, ..." in repr(table) or "[0, 1, 2, 3 ..." in repr(table)


@pytest.mark.parametrize(
    ("text", "values"),
    [("a=1,inf", [1, math.inf]), ("a=-inf, 2.5", [-math.inf, 2.5]), ('a=1,"inf"', [1, "inf"])],
)
def test_infinite_values_on_the_command_line(text: str, values: list[Any]) -> None:
    from bilevelpy.cli.sweep import _grid

    assert _grid([text]) == {"a": values}
    with pytest.raises(bl.UsageError, match="found `1,x`"):
        _grid(["a=1,x"])
