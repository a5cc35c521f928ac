"""Runs that begin in single precision or on another device, and end in float64 on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.device import DeviceOracle
from bilevelpy.solving.facts import oracle
from tests.another_device import another_device

TEXT = """
dim n, m, p;
param X[n, p], s[n], V[m, p], t[m];
upper { var lam[p] in [-6, 2] start 0; minimize mean(softplus(-t * (V @ w))); }
lower fit { var w[p]; minimize mean(softplus(-s * (X @ w))) + sum(exp(lam) * w^2) / 2; }
"""
# Single precision has seven digits, of which a gradient that nearly vanishes keeps few.
SINGLE = 1e-4


def model() -> bl.Model:
    draw = np.random.default_rng(0)
    X, V = draw.standard_normal((60, 4)), draw.standard_normal((40, 4))
    w = np.array([1.0, -2.0, 0.0, 0.5])
    s, t = (np.sign(M @ w + draw.standard_normal(len(M))) for M in (X, V))
    return bl.parse(TEXT, data={"X": X, "s": s, "V": V, "t": t})


def test_single_precision_is_close_and_float64() -> None:
    home = oracle(model())
    there = DeviceOracle(home, "cpu", torch.float32)
    x, y = home.x0 - 1.0, home.y0 + 0.3
    assert there.f(x, y) == pytest.approx(home.f(x, y), rel=1e-6)
    for single, double in (
        (there.grad_f(x, y), home.grad_f(x, y)),
        (there.hvp(x, y)(y), home.hvp(x, y)(y)),
        (there.cross(x, y)(y), home.cross(x, y)(y)),
        (there.hessian(x, y), home.hessian(x, y)),
        (there.grad_F(x, y)[1], home.grad_F(x, y)[1]),
    ):
        assert single.dtype is torch.float64
        torch.testing.assert_close(single, double, rtol=SINGLE, atol=1e-6)


@pytest.mark.parametrize("backend", ["direct", "aid", "qnbo"])
def test_a_run_in_single_precision_is_certified_in_float64(backend: str) -> None:
    single = bl.solve(model(), dtype="float32", backend=backend)
    double = bl.solve(model(), backend=backend)
    assert single.success
    assert pytest.approx(double.F, rel=SINGLE) == single.F
    np.testing.assert_allclose(single["w"], double["w"], rtol=0, atol=SINGLE)
    assert single.certificate is not None
    assert single.certificate.lower_gap_relative <= 1e-9
    assert [r.iteration for r in single.history] == list(range(len(single.history)))
    # Solves below what single precision resolves took hundreds of thousands.
    assert single.counts["f"] < 30_000


@pytest.mark.parametrize("backend", ["direct", "aid", "qnbo"])
def test_a_run_that_begins_on_a_gpu_ends_where_others_do(backend: str) -> None:
    """On a device that is emulated: a GPU's roundings are its own."""
    with another_device() as operations:
        there = bl.solve(model(), device="cuda", backend=backend, force=True, max_iter=40)
    here = bl.solve(model(), backend=backend, force=True)
    assert operations["aten.mv.default"] > 20
    assert there.status == here.status
    assert pytest.approx(here.F, rel=1e-6) == there.F


def test_a_callback_ends_it_there_and_then() -> None:
    seen: list[int] = []

    def stop(state: bl.IterationState) -> bool:
        seen.append(state.iteration)
        return state.iteration == 3

    result = bl.solve(model(), dtype="float32", backend="direct", callback=stop)
    assert (seen, result.status) == ([0, 1, 2, 3], "interrupted")
    assert pytest.approx(result.history[3].F, rel=1e-6) == result.F
    assert len(result.history) == 4


def test_a_run_that_was_ended_there_is_resumed_there(tmp_path: Path) -> None:
    there: dict[str, Any] = {"dtype": "float32", "backend": "direct"}
    kept = tmp_path / "run.npz"
    bl.solve(model(), callback=lambda state: state.iteration == 3, checkpoint=kept, **there)
    again = bl.solve(model(), checkpoint=kept, resume=True, **there)
    whole = bl.solve(model(), **there)
    assert not again.warnings
    assert [r.F for r in again.history] == [r.F for r in whole.history]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(bl.UsageError, match="device `cuda` is not available here"):
        bl.solve(model(), device="cuda")


def test_unknown_devices_are_said() -> None:
    with pytest.raises(bl.UsageError, match="device `gpu7` is not available here"):
        bl.solve(model(), device="gpu7")


def test_a_device_that_no_method_would_use_is_looked_for() -> None:
    pytest.importorskip("pyscipopt")
    text = "upper { var x in [0, 1]; minimize x; } lower f { var y in [0, 1]; minimize (y - x)^2; }"
    with pytest.raises(bl.UsageError, match="device `foo` is not available"):
        bl.solve(bl.parse(text), backend="exact", device="foo")
