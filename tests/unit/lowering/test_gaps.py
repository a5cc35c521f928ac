"""Large matrices with many zeros: NumPy programs skip them in products, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import bilevelpy as bl
from bilevelpy.lowering.programs import gaps
from bilevelpy.lowering.programs.gaps import WORTH, Gaps
from bilevelpy.solving.facts import oracle

TEXT = """
dim n, m, p;
set CLASS = 0..2;
param X[n, p], c[n], V[m, p], t[m];
upper { var lam in [-6, 2]; minimize mean(softplus(-t * (V @ v))) + sumsq(W) / 100; }
lower fit {
  var W[p, CLASS], v[p];
  let Z[i in n, k in CLASS] = (X @ W)[i, k];
  minimize mean(softmax_cross_entropy(Z, c)) + mean(softplus(-t * (V @ v)))
      + exp(lam) * (sumsq(W) + sumsq(v)) / 2;
}
"""


def matrix(rows: int, columns: int, share: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.standard_normal((rows, columns)) * (draw.random((rows, columns)) < share)


@pytest.mark.parametrize("columns", [0, 1, 7, 40])
@pytest.mark.parametrize(("share", "skips"), [(0.1, True), (0.6, False)])
def test_products_stay_what_they_are(share: float, skips: bool, columns: int) -> None:
    A, draw = matrix(500, 210, share), np.random.default_rng(1)
    found = Gaps(A)
    for _ in range(2 * WORTH):
        v, u = (draw.standard_normal((k, columns) if columns else k) for k in (210, 500))
        np.testing.assert_allclose(found.product(v, False), A @ v, atol=1e-12)
        np.testing.assert_allclose(found.product(u, True), A.T @ u, atol=1e-12)
    assert sp.issparse(found._rows) is skips


def test_a_copy_stays_within_its_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    A = matrix(500, 210, 0.1)
    monkeypatch.setattr(gaps, "budget", lambda: 8 * 12 * (np.count_nonzero(A) - 1))
    found = Gaps(A)
    for k in range(WORTH):
        found.product(np.full(210, k), False)
    assert found._rows is None


def test_the_latest_predictors_are_kept() -> None:
    A = matrix(500, 210, 0.6)
    found, v = Gaps(A), np.linspace(0.0, 1.0, 210)
    first = found.product(v, False)
    assert found.product(v.copy(), False) is first
    np.testing.assert_array_equal(found.product(v[:, None], False)[:, 0], first)
    assert found.product(2.0 * v, False)[3] == pytest.approx(2.0 * first[3])
    again = found.product(v, False)
    assert again is not first
    np.testing.assert_array_equal(again, first)


def test_what_a_program_returns_is_not_what_is_kept() -> None:
    draw = np.random.default_rng(3)
    data = {"X": draw.standard_normal((1200, 100))}
    text = """dim n, p; param X[n, p];
        upper { var u[n] in [0, 1]; minimize dot(u, X @ w); }
        lower fit { var w[p]; minimize sumsq(w - u[1]); }"""
    functions = oracle(bl.parse(text, data=data))
    x, y = functions.x0, torch.ones(100, dtype=torch.float64)
    first = functions.grad_F(x, y)[0]
    kept = first.clone()
    first.zero_()
    torch.testing.assert_close(functions.grad_F(x, y)[0], kept)


def test_programs_share_the_products_of_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    data = {
        "X": matrix(700, 150, 0.1), "c": draw.integers(0, 3, 700), "V": matrix(800, 150, 0.1),
        "t": np.sign(draw.standard_normal(800)),
    }  # fmt: skip
    text = TEXT
    plain = oracle(bl.parse(text, data=data))
    x, y = plain.x0 - 1.0, 0.1 * torch.ones(plain.m, dtype=torch.float64)
    with monkeypatch.context() as context:
        context.setattr(gaps, "WORTH", 1)
        o = oracle(bl.parse(text, data=data))
        for _ in range(2):
            got = (o.f(x, y), o.grad_f(x, y), o.hvp(x, y)(y), o.grad_F(x, y)[1])
        assert {g._rows is None for _, g in o.tensors._gaps.values()} == {False}
        assert len(o.tensors._gaps) == 2
    want = (plain.f(x, y), plain.grad_f(x, y), plain.hvp(x, y)(y), plain.grad_F(x, y)[1])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=1e-13)
