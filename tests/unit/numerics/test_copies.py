"""Fits without a penalty whose features are copies or constants, in units far apart."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

MODEL = """dim n, m, p; param X[n, p], y[n], Z[m, p], t[m];
upper { var c in [-5, 5] start 1; minimize mean(logistic(-t * (Z @ w + b))) + (c - 1)^2; }
lower fit { var w[p], b; minimize exp(c) * mean(logistic(-y * (X @ w + b))); }"""


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_copies_have_one_prediction(unit: float) -> None:
    rng = np.random.default_rng(46)
    X, true = rng.normal(size=(300, 5)), rng.normal(size=5)
    labels = np.where(X @ true + rng.normal(size=300) > 0, 1.0, -1.0)
    X[:, 3], X[:, 4] = X[:, 2], 1.0
    A, y, B, t = X[:200], labels[:200], X[200:], labels[200:]
    w = np.zeros(5)  # the last feature is the intercept
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(y * (A @ w)))
        w += np.linalg.pinv(A.T @ (A * (p * (1 - p))[:, None])) @ (A.T @ (y * p))
    best = float(np.mean(np.log1p(np.exp(-t * (B @ w)))))
    units = np.array([unit, 1.0 / unit, 1.0, 1.0, 1.0])
    model = bl.parse(MODEL, X=A * units, y=y, Z=B * units, t=t)
    result = bl.solve(model, time_limit=20, progress=False)
    assert result.success
    assert result.backend == "direct"
    assert pytest.approx(best, rel=1e-7) == result.F
    assert B * units @ result["w"] + result["b"] == pytest.approx(B @ w, abs=1e-5)
