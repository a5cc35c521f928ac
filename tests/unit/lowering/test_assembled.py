"""Hessians from their terms, where these read upper variables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

import bilevelpy as bl
from tests.unit.lowering.programs import oracle, point

FEATURES = """
dim n, p, h;
param X[n, p], y[n];
upper { var W[p, h], lam; minimize sumsq(W) + lam^2; }
lower fit { var b[h], c;
  minimize mean((tanh(X @ W) @ b + c - y)^2) + exp(lam) * (sumsq(b) + c^2) / 2; }
"""
HEAD = """
dim n, p, h;
param X[n, p], y[n];
upper { var W[p, h], lam; minimize sumsq(W) + lam^2; }
lower fit { var b[h], c;
  minimize mean(softplus(-y * (tanh(X @ W) @ b + c))) + exp(lam) * (sumsq(b) + c^2) / 2; }
"""
KERNEL = """
dim n;
param D[n, n], y[n];
upper { var g, lam; minimize g^2 + lam^2; }
lower fit { var a[n]; minimize quad(a, exp(-exp(g) * D)) / 2 + exp(lam) * sumsq(a) - dot(a, y); }
"""


def made(text: str):
    draw = np.random.default_rng(0)
    if text is KERNEL:
        P = draw.standard_normal((9, 2))
        D = ((P[:, None] - P[None]) ** 2).sum(2)
        return oracle(KERNEL, D=D, y=draw.standard_normal(9))
    X, y = draw.standard_normal((20, 4)), draw.standard_normal(20)
    return oracle(text, X=X, y=np.sign(y) if text is HEAD else y, h=5)


@pytest.mark.parametrize("text", [FEATURES, HEAD, KERNEL])
def test_matrices_are_those_of_products(text):
    o = made(text)
    assert o.assembled is not None
    for seed in (1, 2):
        x, y = point(o, seed)
        H = o.hessian(x, y)
        columns = torch.stack([o.hvp(x, y)(e) for e in torch.eye(o.m, dtype=torch.float64)])
        np.testing.assert_allclose(H, columns, rtol=1e-12, atol=1e-12)


def test_matrices_of_data_and_of_predictors_have_ways_of_their_own():
    data = {"X": np.ones((6, 2)), "y": np.ones(6)}
    head = "dim n, p; param X[n, p], y[n]; upper { var s[p]; minimize sumsq(s); } "
    for loss in ("sumsq(X @ b - y)", "mean(softplus(X @ b))"):
        o = oracle(head + f"lower f {{ var b[p]; minimize {loss} + sum(exp(s) * b^2); }}", **data)
        assert o.assembled is None


def test_arrays_larger_than_those_of_f_are_not_made():
    # The block of W has an array of n x h x p x p entries.
    o = oracle(
        "dim n, p, h; param X[n, p], y[n]; upper { var s; minimize s^2; } lower f { var W[p, h], "
        "b[h]; minimize sumsq(tanh(X @ W) @ b - exp(s) * y) + sumsq(W) + sumsq(b); }",
        X=np.ones((300, 6)),
        y=np.ones(300),
        h=4,
    )
    assert o.assembled is None


@pytest.mark.parametrize(("text", "moves"), [(FEATURES, False), (KERNEL, False), (HEAD, True)])
def test_quadratics_that_x_moves_are_programs_for_solvers(text, moves):
    o = made(text)
    assert o.assembled.reads_y == moves
    assert (o.kept_quadratic is None) == moves
    if not moves:
        x, y = point(o, 3)
        c, b, H, d = o.kept_quadratic.program(x)
        z = y.numpy()
        assert d is None
        assert o.f(x, y) == pytest.approx(c + b @ z + z @ H @ z / 2)
        np.testing.assert_allclose(b + H @ z, o.value_grad_f(x, y)[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("box", ["", " in [-0.2, 0.3]"])
def test_their_responses_and_hypergradients(box):
    # Ridge on features, with and without bounds, against SciPy and differences.
    draw = np.random.default_rng(4)
    X, y = draw.standard_normal((40, 3)), draw.standard_normal(40)
    text = FEATURES.replace("var b[h], c;", f"var b[h]{box}, c;")
    text = text.replace("sumsq(W) + lam^2", "mean((tanh(X @ W) @ b + c - y)^2) + sumsq(W) / 100")
    compiled = bl.compile(bl.parse(text, data={"X": X, "y": y, "h": 4}))
    x = 0.5 * draw.standard_normal(13)

    def response(x):
        Z = np.column_stack([np.tanh(X @ x[:12].reshape(3, 4)), np.ones(40)])
        rows = np.vstack([Z / np.sqrt(40), np.sqrt(np.exp(x[12]) / 2) * np.eye(5)])
        low, high = (-0.2, 0.3) if box else (-np.inf, np.inf)
        bounds = np.array([[low] * 4 + [-np.inf], [high] * 4 + [np.inf]])
        right = np.concatenate([y / np.sqrt(40), np.zeros(5)])
        return lsq_linear(rows, right, bounds, tol=1e-14).x

    np.testing.assert_allclose(compiled.response(x), response(x), atol=1e-7)
    h = 1e-5
    slope = compiled.hypergradient(x)
    for k in (0, 5, 12):
        step = h * np.eye(13)[k]
        difference = (
            compiled.F(x + step, response(x + step)) - compiled.F(x - step, response(x - step))
        ) / (2 * h)
        assert slope[k] == pytest.approx(difference, rel=1e-4, abs=1e-8)
