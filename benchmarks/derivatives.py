"""Compiled derivatives against PyTorch by hand; index form against matrix form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import bilevelpy as bl
from benchmarks.measure import Row, compare, side_by_side

ROWS, COLUMNS = 20_000, 500

MATRIX = """
model logistic;
dim n, p;
param X[n, p], y[n];
upper { var lam in [-5, 5]; minimize sumsq(w); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) + exp(lam) * sumsq(w)/2; }
"""
INDEX = MATRIX.replace(
    "mean(logistic(-y * (X @ w)))",
    "mean(logistic(-y[i] * sum(X[i, j] * w[j] for j in p)) for i in n)",
).replace("exp(lam) * sumsq(w)/2", "exp(lam) * sum(w[j]^2 for j in p)/2")


def run() -> Iterator[Row]:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((ROWS, COLUMNS))
    y = np.sign(X @ draw.standard_normal(COLUMNS) + draw.standard_normal(ROWS))
    w, v, lam = 0.1 * draw.standard_normal(COLUMNS), draw.standard_normal(COLUMNS), np.array([-1.0])
    matrix = bl.compile(bl.parse(MATRIX, data={"X": X, "y": y}))
    index = bl.compile(bl.parse(INDEX, data={"X": X, "y": y}))

    A, t, W, V = (torch.from_numpy(a) for a in (X, y, w, v))
    ridge = float(np.exp(lam[0]))

    def gradient() -> torch.Tensor:
        pull = torch.sigmoid(-t * (A @ W)).mul_(-t / ROWS)
        return (pull @ A).add_(W, alpha=ridge)

    s = torch.sigmoid(t * (A @ W))
    curvature = s * (1 - s) / ROWS

    def product() -> torch.Tensor:
        return ((A @ V).mul_(curvature) @ A).add_(V, alpha=ridge)

    np.testing.assert_allclose(matrix.grad_f(lam, w), gradient().numpy(), rtol=1e-9, atol=1e-12)
    pull, pull_index = matrix.pullback(lam, w), index.pullback(lam, w)
    np.testing.assert_allclose(pull(v)[0], product().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pull_index(v)[0], pull(v)[0], rtol=1e-9, atol=1e-12)

    size = f"logistic loss, {ROWS:,} x {COLUMNS}"
    ours, theirs = side_by_side(lambda: matrix.grad_f(lam, w), gradient)
    yield compare(f"gradient: {size}", ours, theirs, "1.1", "PyTorch by hand")
    ours, theirs = side_by_side(lambda: pull(v), product)
    yield compare(
        f"Hessian-vector product: {size}",
        ours,
        theirs,
        "1.2",
        "PyTorch by hand; ours has f_xy v too",
    )
    ours, theirs = side_by_side(lambda: index.grad_f(lam, w), lambda: matrix.grad_f(lam, w))
    yield compare(f"index form, gradient: {size}", ours, theirs, "1.2", "the matrix form")
    ours, theirs = side_by_side(lambda: pull_index(v), lambda: pull(v))
    yield compare(f"index form, product: {size}", ours, theirs, "1.2", "the matrix form")
