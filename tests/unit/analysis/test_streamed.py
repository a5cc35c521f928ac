"""Data that memory does not hold is a fact, and the dispatcher's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl

TEXT = """
model s; dim n, p; param X[n, p], y[n];
upper { var lam in [-5, 5] start 0; minimize mean((X @ w - y)^2) + lam^2; }
lower fit { var w[p]; minimize mean(%s(X @ w - y)) + exp(lam) * sumsq(w); }
"""
SMOOTH = TEXT % "huber"


@pytest.fixture
def model(tmp_path: Path) -> bl.Model:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.normal(size=(300, 3)))
    np.save(tmp_path / "y.npy", rng.normal(size=300))
    (tmp_path / "m.blv").write_text(SMOOTH)
    return bl.load(tmp_path / "m.blv", data=[tmp_path / "X.npy", tmp_path / "y.npy"])


@pytest.mark.usefixtures("small_memory")
class TestSmallMemory:
    def test_the_structure_says_so_and_batches_are_preferred(self, model: bl.Model) -> None:
        facts = bl.analyze(model)
        assert facts.streamed is not None
        assert facts.streamed.value == 8 * (300 * 3 + 300)
        assert "stay in files" in facts.streamed.reason
        assert bl.dispatch(facts).chosen == "saba"

    def test_the_answer_is_that_of_memory(self, model: bl.Model) -> None:
        streamed = bl.solve(model, tol=1e-6, max_iter=40)
        assert streamed.backend == "saba"
        assert streamed.success
        arrays = {name: np.array(a) for name, a in model.bound.data.arrays.items()}
        inside = bl.solve(bl.parse(SMOOTH, data=arrays), backend="direct")
        assert pytest.approx(inside.F, rel=1e-8) == streamed.F
        assert streamed.f["fit"] == pytest.approx(inside.f["fit"], rel=1e-6)
        np.testing.assert_allclose(streamed["w"], inside["w"], rtol=1e-4)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-6")


def test_with_enough_memory_it_is_no_fact(model: bl.Model) -> None:
    assert bl.analyze(model).streamed is None
