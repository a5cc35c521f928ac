"""Checkpoints hold what a run goes on from; a file with anything else in it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy import checkpoint, storage

MODEL = """\
model kept;
dim n = 3;
param t[n] = [1, 2, 3];
upper { var x[n] in [-9, 9] start 0; minimize sum((exp(w / 3) - exp(2 * t / 3))^2); }
lower g { var w[n]; minimize sum((w - x)^2); }
report held_out = sum((w - t)^2);
report none = sum(w - w) / sum(w - w);
"""


@pytest.fixture
def saved(tmp_path: Path) -> tuple[bl.Model, Path]:
    """A model, and the checkpoint of two iterations."""
    model, path = bl.parse(MODEL), tmp_path / "run.ckpt"
    bl.solve(model, max_iter=2, stop_by="min held_out", watch=["min none"], checkpoint=path)
    return model, path


def test_a_run_comes_back_as_it_was(saved: tuple[bl.Model, Path]) -> None:
    """A report that is no number too: JSON has no NaN."""
    model, path = saved
    found = checkpoint.read(path, model.bound)
    assert found is not None
    assert [record.iteration for record in found.history] == [0, 1, 2]
    assert all(math.isnan(record.reports["none"]) for record in found.history)
    assert found.best is not None
    assert found.best.by == "min held_out"
    result = bl.solve(model, stop_by="min held_out", watch=["min none"], checkpoint=path,
                      resume=True)  # fmt: skip
    assert [record.iteration for record in result.history] == list(range(len(result.history)))


def _first(meta: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {"history": [{**meta["history"][0], **changed}]}


@pytest.mark.parametrize(
    "change",
    [
        lambda a, m: ({"x": a["x"][:1]}, {}),
        lambda a, m: ({"x": a["x"] * math.nan}, {}),
        lambda a, m: ({"y": np.array(["a", "b", "c"])}, {}),
        lambda a, m: ({"best_x": a["x"][:1]}, {}),
        lambda a, m: ({"best_y": a["y"] + math.inf}, {}),
        lambda a, m: ({}, {"best": {**m["best"], "by": "min nothing"}}),
        lambda a, m: ({}, {"best": 3}),
        lambda a, m: ({}, {"history": ["a"]}),
        lambda a, m: ({}, _first(m, iteration="a")),
        lambda a, m: ({}, _first(m, counts={"F": "a"})),
        lambda a, m: ({}, _first(m, reports="a")),
        lambda a, m: ({}, _first(m, more=1)),
    ],
)
def test_what_no_run_has_written_is_refused(
    saved: tuple[bl.Model, Path], change: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    model, path = saved
    arrays, meta = storage.read_npz(path)
    points, told = change(arrays, meta)
    storage.write_npz(path, {**arrays, **points}, {**meta, **told})
    with pytest.raises(bl.UsageError, match=r"cannot resume from .* damaged"):
        bl.solve(model, stop_by="min held_out", checkpoint=path, resume=True)
