"""Reports on held-out data: when the best was passed, and ending there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bilevelpy as bl

# x goes from 0 to about 2 where F is least; the held-out error is least at x = 1 on the way.
MODEL = """\
model passing;
dim n = 3;
param t[n] = [1, 2, 3];
upper { var x[n] in [-9, 9] start 0; minimize sum((exp(w / 3) - exp(2 * t / 3))^2); }
lower g { var w[n]; minimize sum((w - x)^2); }
report held_out = sum((w - t)^2);
report loss = sum((exp(w / 3) - exp(2 * t / 3))^2);
report many = w;
"""


def test_the_result_says_when_the_best_value_was_passed() -> None:
    result = bl.solve(bl.parse(MODEL), watch=["min held_out"])
    assert result.success
    (said,) = [w for w in result.warnings if "held_out" in w]
    best = min(result.history, key=lambda r: r.reports["held_out"])
    assert f"best at iteration {best.iteration} of {result.iterations}" in said
    assert best.reports["held_out"] < result.reports["held_out"]


def test_a_report_that_is_best_at_the_end_is_no_news() -> None:
    result = bl.solve(bl.parse(MODEL), watch=["min loss", "held_out"])
    assert not [w for w in result.warnings if "was best" in w]


def test_a_run_ends_where_the_report_is_best() -> None:
    model = bl.parse(MODEL)
    free = bl.solve(model, watch=["min held_out"])
    least = min(r.reports["held_out"] for r in free.history)
    result = bl.solve(model, stop_by="min held_out", patience=2)
    assert result.reports["held_out"] == pytest.approx(least, rel=1e-6)
    assert result.status == "stalled"
    assert "stopped by `held_out`" in result.message
    assert result.iterations < free.iterations


def test_whatever_ends_the_run_the_best_point_is_returned() -> None:
    """A run that converges before its patience is at an end has passed the best point too."""
    model = bl.parse(MODEL)
    free = bl.solve(model, watch=["min held_out"])
    least = min(r.reports["held_out"] for r in free.history)
    for limit in (500, free.iterations - 1):
        result = bl.solve(model, stop_by="min held_out", patience=1000, max_iter=limit)
        assert result.reports["held_out"] == pytest.approx(least, rel=1e-6)
        assert "which is returned" in result.message
        assert result.status == ("stalled" if limit == 500 else "iteration_limit")
        assert not [w for w in result.warnings if "was best" in w]
    # The last point is the best one: nothing to go back to.
    assert bl.solve(model, stop_by="min loss").success


def _best(model: bl.Model) -> bl.Record:
    """Where the held-out error is least along a run that nothing ends."""
    free = bl.solve(model, watch=["min held_out"])
    return min(free.history, key=lambda r: r.reports["held_out"])


def _kept(folder: Path) -> dict[str, Any]:
    return {"checkpoint": folder / "run.ckpt", "resume": True}


@pytest.mark.parametrize("cut", [2, 3, 4, 5])
def test_a_resumed_run_remembers_the_best_point(cut: int, tmp_path: Path) -> None:
    """Cut before and after the best point: the same point, counted over both runs."""
    model = bl.parse(MODEL)
    best = _best(model)
    saved = {**_kept(tmp_path), "stop_by": "min held_out"}
    bl.solve(model, max_iter=cut, patience=1000, **saved)
    result = bl.solve(model, patience=1000, **saved)
    assert result.reports["held_out"] <= best.reports["held_out"] * (1 + 1e-6)
    # Another report has a best of its own, and starts to look for it here.
    saved["stop_by"] = "max held_out"
    again = bl.solve(model, patience=1000, **saved)
    assert again.reports["held_out"] >= result.reports["held_out"]


def test_what_was_best_before_a_resume_is_told_after_it(tmp_path: Path) -> None:
    model = bl.parse(MODEL)
    best = _best(model)
    saved = {**_kept(tmp_path), "watch": ["min held_out"]}
    bl.solve(model, max_iter=best.iteration + 1, **saved)
    result = bl.solve(model, **saved)
    (said,) = [w for w in result.warnings if "held_out" in w]
    assert f"best at iteration {best.iteration} of " in said


def test_a_backend_without_iterations_says_that_it_follows_nothing() -> None:
    model = bl.parse("""model line;
        upper { var x in [0, 4]; maximize y; }
        lower g { var y in [0, 9]; maximize y; subject to room: y <= 4 - x; }
        report seen = y;""")
    result = bl.solve(model, backend="exact", stop_by="max seen", watch=["seen"])
    assert result.success
    assert len([w for w in result.warnings if "has no effect: `exact`" in w]) == 2
    with pytest.raises(bl.UsageError, match="no report `sen`"):
        bl.solve(model, backend="exact", stop_by="max sen")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"watch": ["max heldout"]}, "did you mean `held_out`"),
        ({"watch": ["many"]}, "not a single number"),
        ({"watch": "max heldout"}, "did you mean `held_out`"),
        ({"watch": 3}, "watch takes a list of names, found 3"),
        ({"patience": -1}, "patience takes a whole number from 1 on, found -1"),
        ({"verify": "off"}, "verify takes True or False, found 'off'"),
        ({"resume": 1}, "resume takes True or False, found 1"),
        ({"force": "no"}, "force takes True or False, found 'no'"),
        ({"progress": "yes"}, "progress takes True or False, or None"),
        ({"stop_by": 3}, "stop_by takes"),
        ({"stop_by": "held_out"}, "takes `max held_out` or `min held_out`"),
        (
            {"stop_by": "min held_out", "patience": 0},
            "from 1 on, found 0",
        ),
    ],
)
def test_wrong_requests(options: dict[str, object], says: str) -> None:
    with pytest.raises(bl.UsageError, match=says):
        bl.solve(bl.parse(MODEL), **options)  # type: ignore[arg-type]
