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
LOGISTIC = """
model logistic; dim n, m, p; param X[n, p], y[n], V[m, p], v[m];
upper { var a[p] in [-5, 2] start -1; minimize mean(softplus(-v * (V @ w))) + 0.01 * sumsq(a); }
lower fit { var w[p]; minimize mean(softplus(-y * (X @ w))) + sum(exp(a) * w^2) / 2; }
"""
SOFTMAX = """
model softmax; dim n, m, p; set K = 0..1; param X[n, p], y[n], V[m, p], v[m];
upper {
  var a in [-5, 2] start -1;
  minimize mean(softmax_cross_entropy(V @ w, (v + 1) / 2));
}
lower fit {
  var w[p, K];
  minimize mean(softmax_cross_entropy(X @ w, (y + 1) / 2)) + exp(a) * sumsq(w) / 2;
}
"""


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

    @pytest.mark.parametrize("text", [LOGISTIC, SOFTMAX], ids=["logistic", "softmax"])
    def test_methods_on_full_passes_find_the_same(self, text: str, tmp_path: Path) -> None:
        """Whatever they ask of an oracle beyond the protocol, for solves and preconditioners."""
        draw = np.random.default_rng(0)
        arrays = {"X": draw.normal(size=(400, 3)), "V": draw.normal(size=(200, 3))}
        truth = draw.normal(size=3)
        for rows, labels in (("X", "y"), ("V", "v")):
            noise = draw.normal(size=len(arrays[rows]))
            arrays[labels] = np.sign(arrays[rows] @ truth + noise)
        inside = bl.solve(bl.parse(text, data=arrays), backend="direct", progress=False)
        assert inside.success
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        (tmp_path / "m.blv").write_text(text)
        for backend in ("direct", "aid", "qnbo", "nbo", "itd", "bagdc", "f2ba", "pbgd"):
            model = bl.load(tmp_path / "m.blv", data=[tmp_path / f"{n}.npy" for n in arrays])
            found = bl.solve(model, backend=backend, progress=False)
            assert found.success, (backend, found.message)
            assert pytest.approx(inside.F, rel=1e-8) == found.F, backend


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVELPY_MEMORY", "1e-6")


def test_with_enough_memory_it_is_no_fact(model: bl.Model) -> None:
    assert bl.analyze(model).streamed is None
