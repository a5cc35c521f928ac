"""Solves in processes that are killed at random moments, several times in a row, end as in one
go.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.system import storage
from bilevelpy.testing import CASES
from tests.experiments.processes import CONTEXT, cut_short

# A principal and an agent: the run ends at a local optimum at once, and goes on from another point.
AGENT = """\
upper { var b in [0.1, 5] start 0.4; maximize e * (3 - b) - 0.1 * (b - 1)^4; }
lower agent { var e in [0.01, 10]; maximize b * log(1 + e) - e; }
"""
# Shares of a budget that answer to prices: a simplex below, and a valley that is not convex.
SHARES = """\
dim n = 5;
param t[n] = [0.3, 0.25, 0.2, 0.15, 0.1];
upper { var x[n] in [-3, 3]; minimize sum((y - t)^2) + 0.01 * sum((x^2 - x)^2); }
lower shares { var y[n] in simplex; minimize sumsq(y - x) + 0.1 * sum(y^4); }
"""
PACE = 0.004


def _data(name: str) -> tuple[str, dict[str, Any]]:
    case = next(c for c in CASES if c.name == name)
    return case.text, dict(case.data)


def _work(text: str, data: dict[str, Any], folder: Path, options: dict[str, Any]) -> None:
    """A solve that goes on where it was, with a checkpoint at every iteration."""
    import bilevelpy.records.checkpoint

    bilevelpy.records.checkpoint.INTERVAL, bilevelpy.records.checkpoint.SHARE = 0.0, float("inf")
    result = bl.solve(
        bl.parse(text, data=data), checkpoint=folder / "run.ckpt", resume=True,
        callback=lambda state: time.sleep(PACE), **options,
    )  # fmt: skip
    result.save(folder / "done.npz")


@pytest.mark.parametrize(
    ("text", "data", "options"),
    [
        pytest.param(SHARES, {}, {"tol": 1e-9}, id="simplex"),
        pytest.param(AGENT, {}, {}, id="looking around"),
        pytest.param(*_data("ridge as a finite sum"), {"backend": "saba"}, id="saba"),
        pytest.param(
            *_data("ridge as a finite sum"), {"backend": "f2sa", "max_iter": 20}, id="f2sa"
        ),
    ],
)
def test_killed_several_times(
    text: str, data: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    whole = bl.solve(bl.parse(text, data=data), **options)
    kept, moments = tmp_path / "run.ckpt", random.Random(0)
    count = 0

    def work() -> Any:
        process = CONTEXT.Process(target=_work, args=(text, data, tmp_path, options))
        process.start()
        return process

    for _ in range(4):
        after = moments.uniform(0.0, 0.4) * max(len(whole.history), 5) * PACE
        count += cut_short(work, kept, after)
        if kept.exists():
            storage.read_npz(kept)  # complete whenever it is there
    assert count
    last = work()
    last.join(120)
    assert last.exitcode == 0
    again = bl.load_result(tmp_path / "done.npz")
    assert pytest.approx(whole.F, rel=1e-8) == again.F
    for name, value in whole.upper.items():
        np.testing.assert_allclose(again.upper[name], value, rtol=1e-8, atol=1e-8)
    assert (again.status, again.backend) == (whole.status, whole.backend)
    assert [r.iteration for r in again.history] == [r.iteration for r in whole.history]
