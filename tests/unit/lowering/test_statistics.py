"""Quadratic sums over rows of files by their statistics: the same functions as with all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums import statistics
from bilevelpy.lowering.sums.sampled import SampledOracle
from bilevelpy.lowering.sums.streaming import StreamedOracle, make_oracle

HEAD = "model s; dim n, m, p = 4, k = 2; param X[n, p], y[n], Y[n, k], v[n], Xv[m, p], yv[m];\n"
ABOVE = "upper { var lam[p] in [-5, 5] start 0; minimize %s; }\n"
BELOW = "lower fit { var w[p]; var b; var W[p, k]; minimize %s + sum(exp(lam) * w^2); }\n"
LOSS = "mean((Xv @ w - yv)^2)"
RIDGE = "mean((X @ w + b - y)^2) + sumsq(W) + b^2"


def data(rows: int = 400) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return {
        "X": rng.normal(size=(rows, 4)) @ rng.normal(size=(4, 4)) + 2.0,
        "y": rng.normal(size=rows),
        "Y": rng.normal(size=(rows, 2)),
        "v": rng.random(rows),
        "Xv": rng.normal(size=(rows // 2, 4)),
        "yv": rng.normal(size=rows // 2),
    }


def in_files(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> bl.Model:
    """A model whose data memory may not hold."""
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-6")
    for name, array in values.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "m.blv").write_text(text)
    return bl.load(folder / "m.blv", data=[folder / f"{n}.npy" for n in values])


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (LOSS, RIDGE),
        (LOSS, "0.5 * sum(v[i] * (X[i, :] @ w - y[i])^2 for i in n) + sumsq(W) + b^2"),
        (LOSS, "mean((X @ W - Y)^2) + mean((X @ w - y)^2) + b^2 + sum(W)^2"),
        ("mean((Xv @ (w + lam) - yv)^2)", "mean((X @ (w - lam) - b)^2) + sumsq(W) + b^2"),
        ("mean((yv - lam[1])^2) + " + LOSS, "mean(X @ w) + b^2 + sumsq(W)"),
        (LOSS, "exp(lam[1]) * b^2 + 3 * exp(lam[2]) * mean((X @ w + b - y)^2) + sumsq(W)"),
        (LOSS, "1e6 - 3 * mean(y * (X @ w)) + b^2 + sumsq(W) + sum((X @ w)^2)"),
    ],
)
def test_every_function_is_that_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upper: str, lower: str
) -> None:
    text, values = HEAD + ABOVE % upper + BELOW % lower, data()
    monkeypatch.setattr(statistics, "BLOCK", 1 << 11)
    oracle = make_oracle(in_files(tmp_path, text, monkeypatch, values).bound)
    inside = TorchOracle(bl.parse(text, data=values).bound)
    assert oracle.summary is not None
    assert not isinstance(oracle, StreamedOracle)
    assert oracle.summary.error < 1e-12
    torch.manual_seed(0)
    for _ in range(3):
        x, y, u = torch.randn(inside.n).double(), torch.randn(inside.m).double(), 3.0
        v = torch.randn(inside.m).double()
        assert oracle.F(x, u * y) == pytest.approx(inside.F(x, u * y), rel=1e-11)
        assert oracle.f(x, u * y) == pytest.approx(inside.f(x, u * y), rel=1e-11)
        torch.testing.assert_close(oracle.grad_F(x, y), inside.grad_F(x, y), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(oracle.grad_f(x, y), inside.grad_f(x, y), rtol=1e-9, atol=1e-9)
        found, wanted = oracle.pullback(x, y)(v), inside.pullback(x, y)(v)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_nothing_cancels_where_the_fit_is_almost_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, truth = data(), np.array([1.0, -2.0, 3.0, 0.5])
    noise = 1e-6 * np.random.default_rng(5).normal(size=200)
    values["yv"] = 1e3 * (values["Xv"] @ truth) + noise
    text = HEAD + ABOVE % LOSS + BELOW % RIDGE
    oracle = make_oracle(in_files(tmp_path, text, monkeypatch, values).bound)
    inside = TorchOracle(bl.parse(text, data=values).bound)
    y = inside.y0.clone()
    y[:4] = torch.from_numpy(np.linalg.lstsq(values["Xv"], values["yv"], rcond=None)[0])
    exact = inside.F(inside.x0, y)
    assert exact < 1e-11
    assert oracle.F(inside.x0, y) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(
    "lower",
    [
        "mean(softplus(X @ w + b - y)) + b^2 + sumsq(W)",
        "mean((X @ w - y)^4) + b^2 + sumsq(W)",
    ],
)
def test_what_is_not_quadratic_stays_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lower: str
) -> None:
    text, values = HEAD + ABOVE % LOSS + BELOW % lower, data()
    oracle = make_oracle(in_files(tmp_path, text, monkeypatch, values).bound)
    inside = TorchOracle(bl.parse(text, data=values).bound)
    assert isinstance(oracle, StreamedOracle)
    assert oracle.summary is not None
    assert oracle.summary.names == ("Xv", "yv")
    x, y = inside.x0 + 0.1, inside.y0 + 0.3
    assert oracle.F(x, y) == pytest.approx(inside.F(x, y), rel=1e-11)
    torch.testing.assert_close(oracle.grad_f(x, y), inside.grad_f(x, y), rtol=1e-9, atol=1e-9)


def test_data_that_is_only_summed_up_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, values = HEAD + ABOVE % ("sum(yv) * sum(lam) + " + LOSS) + BELOW % RIDGE, data()
    oracle = make_oracle(in_files(tmp_path, text, monkeypatch, values).bound)
    inside = TorchOracle(bl.parse(text, data=values).bound)
    x, y = inside.x0 + 0.1, inside.y0 + 0.3
    assert oracle.F(x, y) == pytest.approx(inside.F(x, y), rel=1e-11)


def test_statistics_that_rows_do_not_confirm_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + ABOVE % LOSS + BELOW % RIDGE
    model = in_files(tmp_path, text, monkeypatch, data())
    products = statistics.batched_gradients
    wrong = 1.0 + 1e-6
    monkeypatch.setattr(
        statistics, "batched_gradients", lambda *a: [wrong * p for p in products(*a)]
    )
    assert make_oracle(model.bound).summary is None


def test_a_time_limit_ends_the_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + ABOVE % LOSS + BELOW % RIDGE
    model = in_files(tmp_path, text, monkeypatch, data())
    assert make_oracle(model.bound, seconds=0.0).summary is None
    assert make_oracle(model.bound, seconds=60.0).summary is not None


def test_the_answer_reports_and_batches_are_those_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = data()
    text = HEAD + ABOVE % LOSS + BELOW % RIDGE + "report error = mean(abs(X @ fit.w - y));\n"
    inside = bl.solve(bl.parse(text, data=values), tol=1e-8)
    model = in_files(tmp_path, text, monkeypatch, values)
    found = bl.solve(model, tol=1e-8)
    assert (found.backend, found.success) == ("direct", True)
    assert pytest.approx(inside.F, rel=1e-10) == found.F
    assert found.reports["error"] == pytest.approx(inside.reports["error"], rel=1e-6)
    facts = bl.analyze(model)
    assert facts.statistics is not None
    assert "from two passes" in facts.statistics.reason


def test_batches_are_drawn_from_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, values = HEAD + ABOVE % LOSS + BELOW % RIDGE, data()
    oracle = make_oracle(in_files(tmp_path, text, monkeypatch, values).bound)
    inside = TorchOracle(bl.parse(text, data=values).bound)
    x, y = inside.x0 + 0.1, inside.y0 + 0.3
    sampled = SampledOracle(oracle, batch=50)
    slopes = torch.stack([sampled.at(j, 0).grad_f(x, y) for j in range(sampled.counts[0])])
    assert float(slopes.std(0).max()) > 0.0
    torch.testing.assert_close(slopes.mean(0), inside.grad_f(x, y), rtol=1e-9, atol=1e-9)
    curvature = torch.stack([sampled.at(j, 0).hessian(x, y) for j in range(sampled.counts[0])])
    torch.testing.assert_close(curvature.mean(0), inside.hessian(x, y), rtol=1e-9, atol=1e-9)
