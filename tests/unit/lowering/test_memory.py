"""What a program will take, and the refusal of what cannot exist."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.errors import ModelError
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs import memory
from bilevelpy.lowering.programs.memory import forecast, memory_words
from bilevelpy.lowering.sums.streaming import StreamedOracle, make_oracle
from bilevelpy.model import Given, read_model
from bilevelpy.system.memory import in_words
from tests.unit.lowering.programs import RIDGE, bound, ridge_data

PAIRS = """
dim n = 100000;
upper { var x; minimize x^2; }
lower l { var y[n]; minimize sum((y[i] - y[j])^2 for i in n, j in n) + sumsq(y); }
"""
MANY = """
upper { var x; minimize x^2 + sum(x / i^2 for i in 1..1000000000000); }
lower l { var y; minimize (y - x)^2; }
"""

VARIABLES = "upper { var x[1000000000]; minimize sum(x); }"


@pytest.mark.parametrize(
    ("text", "size"), [(PAIRS, "320.0 GB"), (MANY, "32.0 TB"), (VARIABLES, "48.0 GB")]
)
def test_too_large_is_told_with_place_and_size(text, size, monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 16_000_000_000)
    with pytest.raises(ModelError) as caught:
        TorchOracle(bound(text))
    (error,) = caught.value.diagnostics
    assert error.code == "BLV0603"
    assert size in error.message
    assert error.primary is not None


def in_files(folder, text, rows, monkeypatch):
    """A ridge model whose data memory may not hold."""
    files = []
    for name, array in ridge_data(rows, 50, 4).items():
        np.save(folder / f"{name}.npy", array)
        files.append((name, str(folder / f"{name}.npy")))
    (folder / "ridge.blv").write_text("model ridge;" + text)
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-6")
    return read_model(str(folder / "ridge.blv"), Given(None, {}, tuple(files), {}))


def test_data_in_files_that_is_no_sum_over_rows_is_told_with_its_size(tmp_path, monkeypatch):
    text = RIDGE.replace("mse(X, y, w)/2", "log(1 + mse(X, y, w))")
    model = in_files(tmp_path, text, 100, monkeypatch)
    with pytest.raises(ModelError) as caught:
        make_oracle(model.bound).objectives_by_rows  # noqa: B018
    (error,) = caught.value.diagnostics
    assert error.code == "BLV0603"
    assert "4 kB" in error.message, "100 rows of 4 features and their responses in float64"
    assert error.primary is not None
    assert "rows of `X`" in error.primary.text


def test_data_in_files_counts_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "BLOCK", 1000)
    model = in_files(tmp_path, RIDGE, 4000, monkeypatch)
    whole = forecast(bound(RIDGE, **ridge_data(4000, 50, 4)))
    found = forecast(model.bound)
    assert found.data < 0.05 * whole.data, "what is small is in memory"
    assert 2000 <= found.evaluation < 0.05 * whole.evaluation
    assert forecast(make_oracle(model.bound).bound).data < 5000, "statistics"


def test_forecast_counts_data_and_intermediates():
    data = ridge_data(100, 50, 4)
    found = forecast(bound(RIDGE, **data))
    assert found.data == sum(np.asarray(a).nbytes for a in data.values())
    # At least the predictions and residuals of the rows, twice; no more than a few vectors.
    assert 16 * 200 <= found.evaluation <= 16 * 1000
    assert "of data" in memory_words(bound(RIDGE, **data), 1e6)


def test_words():
    assert [in_words(v) for v in (5, 2e3, 3e6, 4.2e9, 8e12)] == [
        "5 B", "2 kB", "3 MB", "4.2 GB", "8.0 TB",
    ]  # fmt: skip


def test_rows_are_let_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hessian by blocks keeps none of them: without a collection in between, for these come
    seldom and a block may be a hundred megabytes.
    """
    rng = np.random.default_rng(0)
    for name, shape in (("X", (400, 6)), ("y", 400)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=shape))
    (tmp_path / "m.blv").write_text(
        "model m; dim n, p; param X[n, p], y[n];\n"
        "upper { var t in [-3, 3]; minimize mean((X @ w - y)^2) + t^2; }\n"
        "lower fit { var w[p]; minimize mean(softplus(-y * (X @ w))) + exp(t) * sumsq(w); }\n"
    )
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-6")
    model = bl.load(tmp_path / "m.blv", data=[tmp_path / f"{n}.npy" for n in ("X", "y")])
    oracle = make_oracle(model.bound, 0.0)
    assert isinstance(oracle, StreamedOracle)
    held: list[weakref.ref[Any]] = []
    made = StreamedOracle._rows_alone

    def watched(self: StreamedOracle, *where: Any) -> Any:
        alone = made(self, *where)
        held.extend(weakref.ref(a) for a in alone.bound.data.arrays.values() if 1 < len(a) < 400)
        return alone

    monkeypatch.setattr(StreamedOracle, "_rows_alone", watched)
    monkeypatch.setattr("bilevelpy.lowering.sums.streaming.long_block", lambda: 6 * 8 * 40)
    gc.collect()
    gc.disable()
    try:
        oracle.hessian(oracle.x0, oracle.y0 + 0.1)
        assert len(held) >= 10
        assert not any(ref() is not None for ref in held)
    finally:
        gc.enable()
