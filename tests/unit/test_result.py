"""Results: access by name, saving and loading, plots."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl


def make(status: str = "converged") -> bl.Result:
    """A result with everything that is hard to write: NaN, infinity, scalars, two followers."""
    history = [
        bl.Record(k, 0.1 * k, 2.0**-k, 0.5, 10.0**-k, 10.0 ** (-2 * k), {"F": k, "f": 2 * k})
        for k in range(5)
    ]
    certificate = bl.Certificate(
        "local", 1e-12, math.nan, 1e-9, 0.0, 0.0, 1e-8, None, ("first", "second")
    )
    return bl.Result(
        model="toy",
        status=bl.Status(status),
        message="done",
        F=0.25,
        f={"fit": math.nan, "other": 1.0},
        upper={"lam": np.array([[1.0, 2.0], [3.0, math.inf]]), "s": np.array(4.0)},
        lower={"fit": {"w": np.arange(3.0)}, "other": {"w": np.array(1.0), "v": np.zeros((0,))}},
        reports={"mse": 0.5, "each": np.array([1.0, math.nan])},
        certificate=certificate,
        backend="direct",
        decision=None,
        iterations=4,
        counts={"F": 4, "f": 8},
        time={"total": 0.4},
        history=history,
        provenance={"seed": 0},
        warnings=("mind the gap",),
    )


def test_values_by_name() -> None:
    r = make()
    assert r["s"] == r["upper.s"] == 4.0
    np.testing.assert_array_equal(r["fit.w"], np.arange(3.0))
    with pytest.raises(KeyError, match="several variables are called `w`"):
        r["w"]
    with pytest.raises(KeyError, match="no variable `z`; there are: lam"):
        r["z"]
    with pytest.raises(KeyError, match="no multipliers"):
        r.dual("fit.cap")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_saved_and_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    before = make()
    before.save(path)
    after = bl.load_result(path)
    np.testing.assert_equal(after.upper, before.upper)
    np.testing.assert_equal(after.lower["fit"], before.lower["fit"])
    np.testing.assert_equal(after.reports, before.reports)
    np.testing.assert_equal(after.f, before.f)
    assert after.history == before.history
    assert after.certificate is not None
    assert after.certificate.reasons == ("first", "second")
    assert math.isnan(after.certificate.lower_gap_relative)
    assert (after.status, after.F, after.provenance) == (before.status, before.F, before.provenance)


def test_the_json_object_is_json(tmp_path: Path) -> None:
    content = json.loads(json.dumps(make().as_dict(), allow_nan=False))
    assert content["objective"] == {"upper": 0.25, "lower": {"fit": None, "other": 1.0}}
    assert content["upper"] == {"lam": [[1.0, 2.0], [3.0, "inf"]], "s": 4.0}
    assert content["success"] is True


def test_other_files_are_errors_of_usage(tmp_path: Path) -> None:
    with pytest.raises(bl.UsageError, match=r"\.json or \.npz"):
        make().save(tmp_path / "r.pickle")
    (tmp_path / "r.json").write_text('{"model": 1}')
    with pytest.raises(bl.UsageError, match="does not hold a saved result"):
        bl.load_result(tmp_path / "r.json")


def test_raise_for_status() -> None:
    assert make().raise_for_status().success
    with pytest.raises(bl.NotConverged, match="stalled: done"):
        make("stalled").raise_for_status()


def test_history_as_a_table() -> None:
    table = make().to_pandas()
    assert list(table["iteration"]) == list(range(5))
    assert {"F", "hypergradient_norm", "lower_residual"} <= set(table.columns)
    # Counts have names of objectives, and a report may have any.
    result = make()
    result.history = [replace(r, reports={"time": 9.0}) for r in result.history]
    table = result.to_pandas()
    assert list(table["F"]) == [2.0**-k for k in range(5)]
    assert list(table["f"]) == [0.5] * 5
    assert list(table["counts.f"]) == [0, 2, 4, 6, 8]
    assert list(table["time"]) == pytest.approx([0.1 * k for k in range(5)])
    assert list(table["reports.time"]) == [9.0] * 5


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(tmp_path: Path, suffix: str) -> None:
    import sys

    path = tmp_path / f"p{suffix}"
    loaded = "matplotlib.pyplot" in sys.modules  # by an earlier test, perhaps
    figure = make().plot(path)
    assert len(figure.axes) == 6
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") or b"<?xml" in start
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    with pytest.raises(bl.UsageError, match="a plot is written as"):
        make().plot(tmp_path / "p.txt")


def test_plot_of_a_run_without_progress() -> None:
    r = make()
    r.history = [bl.Record(0, 0.0, math.nan, math.nan, math.nan, 0.0, {})]
    for history in (r.history, []):
        r.history = history
        (axes,) = r.plot().axes
        assert [t.get_text() for t in axes.texts] == ["no value of $F$ was recorded"]


def test_every_answer_has_the_counts_and_the_limit_that_was_asked_for() -> None:
    text = "model m; upper { var x in binary; minimize (x - 0.3)^2 + y; }"
    follower = "lower l { var y in [0, 2]; minimize y; subject to c: y >= x; }"
    result = bl.solve(bl.parse(text + follower), time_limit=60)
    assert result.backend == "exact"
    assert {"F", "f", "grad_F", "grad_f", "hvp"} <= result.as_dict()["counts"].keys()
    assert result.provenance["options"]["time_limit"] == 60
