"""Several backends on one model: one table, one figure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import bilevelpy as bl

RIDGE = """
model ridge;
upper { var lam in [-5, 5] start 0; minimize (w - 1)^2; }
lower fit { var w; minimize (w - 2)^2 + exp(lam) * w^2; }
"""
# e^lam = 1 makes w = 2 / (1 + e^lam) = 1.
BACKENDS = ["auto", "direct", "aid", "slbamm", "blocc"]


@pytest.fixture(scope="module")
def comparison():
    return bl.compare(bl.parse(RIDGE), backends=[*BACKENDS, "direct"], tol=1e-6)


def test_every_backend_that_accepts_runs_once(comparison) -> None:
    assert list(comparison.results) == BACKENDS[:-1]
    assert list(comparison.refused) == ["blocc"]
    assert "constraints" in comparison.refused["blocc"]


def test_rows_have_what_a_reader_compares(comparison) -> None:
    rows = {row["backend"]: row for row in comparison.rows()}
    assert list(rows) == ["auto: direct", "direct", "aid", "slbamm"]
    for row in rows.values():
        assert row["status"] == "converged"
        assert row["certificate"] == "local"
        assert row["F"] == pytest.approx(0.0, abs=1e-8)
        assert row["gradients"] > 0
        assert row["values"] > 0
        assert row["seconds"] > 0
    assert rows["auto: direct"]["gradients"] == rows["direct"]["gradients"]


def test_the_table_is_aligned_and_complete(comparison) -> None:
    lines = repr(comparison).splitlines()
    head = lines[0]
    for name in ("backend", "status", "F", "cert.", "hypergrad.", "iter.", "evals.", "s"):
        assert name in head.split()
    assert max(map(len, lines)) <= 80
    column = head.index("status")
    assert all(line[column:].startswith("converged") for line in lines[2:6])
    assert lines[6].startswith("blocc: is for lower levels with constraints")
    assert all(line.startswith("  ") for line in lines[7:])


@pytest.mark.parametrize("seconds", [0.002081, 9.99951, 54.3219, 999.94, 86_399.5])
def test_times_take_no_more_than_their_column(comparison, seconds: float) -> None:
    slow = {k: replace(r, time={"total": seconds}) for k, r in comparison.results.items()}
    lines = repr(replace(comparison, results=slow)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(float(line.split()[-1]) == pytest.approx(seconds, rel=0.05) for line in lines[2:6])


def test_json(comparison) -> None:
    content = comparison.as_dict()
    assert set(content["results"]) == set(BACKENDS[:-1])
    json.dumps(content)


def test_the_figure_shows_time_and_evaluations(comparison, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = comparison.plot(tmp_path / "runs.svg")
    labels = {axes.get_xlabel() for axes in figure.axes}
    assert any("seconds" in label for label in labels)
    assert any("evaluations" in label for label in labels)
    drawn = {line.get_label() for axes in figure.axes for line in axes.lines}
    assert set(BACKENDS[:-1]) <= drawn
    assert (tmp_path / "runs.svg").stat().st_size > 0


def test_ctrl_c_ends_the_comparison_not_one_run() -> None:
    """The driver ends an interrupted run with a result; the backends after it do not begin."""

    def interrupt(state: object) -> None:
        raise KeyboardInterrupt

    found = bl.compare(bl.parse(RIDGE), backends=["aid", "direct"], callback=interrupt)
    assert found.results["aid"].status == "interrupted"
    assert found.refused == {"direct": "not run: interrupted"}
