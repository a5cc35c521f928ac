"""Quadratic objectives by their kept matrix: the same numbers as from the data, or not used."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tests.unit.lowering.programs import RIDGE, oracle, point, ridge_data

WEIGHTED = """
dim n, p;
param X[n, p], y[n], s[n];
upper { var lam[p]; minimize sumsq(lam); }
lower fit { var w[p], b;
  minimize sum(s[i] * (sum(X[i, j] * w[j] for j in p) + b - y[i])^2 for i in n)
    + sum(exp(lam[j]) * w[j]^2 for j in p) + b^2; }
"""
FORM = """
dim n;
param A[n, n];
upper { var x[n]; minimize sumsq(x); }
lower follow { var y[n]; minimize quad(y - x, A) / 2 + sumsq(A @ y - x); }
"""
POISONED = """
dim n, p;
param X[n, p];
upper { var label[n]; minimize sumsq(label); }
lower fit { var w[p]; minimize sumsq(X @ w - label) + sumsq(w); }
"""


def weighted(rows: int = 30):
    draw = np.random.default_rng(1)
    return oracle(
        WEIGHTED,
        X=draw.standard_normal((rows, 3)),
        y=draw.standard_normal(rows),
        s=draw.random(rows),
    )


def exact_hessian(o, x, y):
    def f(v):
        return o.function((o.f_expr,))(*o.upper.split(x), *_views(o, v))

    return torch.autograd.functional.hessian(f, y)


def _views(o, v):
    return [v[p.start : p.stop].view(p.shape) for p in o.lower.pieces]


@pytest.mark.parametrize("text", [RIDGE, WEIGHTED, FORM, POISONED])
def test_matrix_and_products(text):
    draw = np.random.default_rng(2)
    if text is RIDGE:
        o = oracle(RIDGE, **ridge_data())
    elif text is WEIGHTED:
        o = weighted()
    elif text is FORM:
        o = oracle(FORM, A=draw.standard_normal((4, 4)))
    else:
        o = oracle(POISONED, X=draw.standard_normal((20, 3)))
    x, y = point(o)
    assert o.quadratic is not None
    assert not o.quadratic.reads_y
    assert o.quadratic.constant == (text in (FORM, POISONED))
    H = exact_hessian(o, x, y)
    torch.testing.assert_close(o.hessian(x, y), H)
    torch.testing.assert_close(o.quadratic.diagonal(x, y), H.diagonal())
    v = torch.from_numpy(draw.standard_normal(o.m))
    torch.testing.assert_close(o.quadratic.product(x, y)(v), H @ v)


def test_evaluations_without_the_data():
    o = weighted()
    x, y = point(o)
    assert o.expanded is not None
    value, slope = o.value_grad_f(x, y)
    o.__dict__["expanded"] = None
    direct, direct_slope = o.value_grad_f(x, y)
    assert value == pytest.approx(direct, rel=1e-13)
    torch.testing.assert_close(slope, direct_slope, rtol=1e-12, atol=1e-12)


def test_a_fit_without_residual_keeps_its_digits():
    """Expanded, a residual of 1e-9 of the targets would be lost in their squares."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((40, 3))
    exact = X @ np.array([1.0, 2.0, 3.0])
    text = """
    dim n, p; param X[n, p], y[n];
    upper { var lam; minimize lam^2; }
    lower fit { var w[p]; minimize sumsq(X @ w - y) + 1e-18 * exp(lam) * sumsq(w); }
    """
    o = oracle(text, X=X, y=exact + 1e-9 * draw.standard_normal(40))
    assert o.quadratic is not None
    assert o.expanded is None


def test_sparse_rows_make_the_same_matrix():
    draw = np.random.default_rng(4)
    X = draw.standard_normal((30, 5)) * (draw.random((30, 5)) < 0.4)
    data = {**ridge_data(30, 20, 5), "X": X}
    dense, sparse = oracle(RIDGE, **data), oracle(RIDGE, **{**data, "X": sp.csr_array(X)})
    x, y = point(dense)
    torch.testing.assert_close(sparse.hessian(x, y), dense.hessian(x, y))


def test_other_objectives_have_no_such_form():
    for text in (
        "sum(softplus(y)) + x * y[1]",
        "sum(y[i] * y[j] * x for i in n, j in n where i < j) + sumsq(y)",
        "sumsq(y)^2 + x * y[1]",
    ):
        o = oracle(
            f"dim n = 3; upper {{ var x; minimize x^2; }} lower l {{ var y[n]; minimize {text}; }}"
        )
        assert o.quadratic is None or o.quadratic.reads_y, text


KINKED = """
dim n, p;
param X[n, p], y[n];
upper { var u[p] in [0, 2]; minimize sumsq(u); }
lower fit { var w[p]; minimize LOSS; }
"""


@pytest.mark.parametrize(
    "loss",
    [
        "sum(u[j] * abs(w[j]) for j in p) + sumsq(X @ w - y)",
        "sum(max(0, 1 - y[i] * (X[i, :] @ w)) for i in n) + sumsq(w)",
        "max(X[i, :] @ w for i in n) + sumsq(w)",
    ],
)
def test_second_derivatives_do_not_tell_of_kinks(loss: str) -> None:
    """An expansion at y = 0 would have them on one side of each."""
    rng = np.random.default_rng(0)
    o = oracle(KINKED.replace("LOSS", loss), X=rng.standard_normal((30, 4)), y=np.full(30, 0.1))
    assert o.has_kinks
    assert o.expanded is None
    assert o.joint_quadratic is None
    x, y = torch.ones(4, dtype=torch.float64), torch.tensor([3.0, -2.0, 1.0, -4.0]).double()
    X, w = o.bound.data.arrays["X"], y.numpy()
    wanted = {
        "u[": float(np.abs(w).sum() + ((X @ w - 0.1) ** 2).sum()),
        "max(0": float(np.maximum(0.0, 1.0 - 0.1 * (X @ w)).sum() + w @ w),
        "max(X": float((X @ w).max() + w @ w),
    }
    assert o.f(x, y) == pytest.approx(next(v for k, v in wanted.items() if k in loss[:9]))


def test_data_that_is_made_of_absolute_values_has_no_kinks() -> None:
    text = KINKED.replace("LOSS", "sum(abs(y[i]) * (X[i, :] @ w - y[i])^2 for i in n) + sumsq(w)")
    rng = np.random.default_rng(0)
    assert not oracle(text, X=rng.standard_normal((30, 4)), y=rng.standard_normal(30)).has_kinks
