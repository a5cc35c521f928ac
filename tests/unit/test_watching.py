"""Reports on held-out data: when the best was passed, and ending there."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"watch": ["max heldout"]}, "did you mean `held_out`"),
        ({"watch": ["many"]}, "not a single number"),
        ({"stop_by": "held_out"}, "takes `max held_out` or `min held_out`"),
        ({"stop_by": "min held_out", "patience": 0}, "at least 1"),
    ],
)
def test_wrong_requests(options: dict[str, object], says: str) -> None:
    with pytest.raises(bl.UsageError, match=says):
        bl.solve(bl.parse(MODEL), **options)  # type: ignore[arg-type]
