"""Sparse models: a second run from where no weight is large enough to hold a variable at 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.solving.facts import oracle
from bilevelpy.solving.small_weights import FAR, with_small_weights

FIT = """
dim n, m, p; param X[n, p], y[n], V[m, p], v[m];
upper { var l[p] in [-8, 1] start -3; minimize mean(logistic(-v * (V @ w))); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) + sum(exp(l) * abs(w)); }
"""


def model(text: str = FIT, n: int = 200, p: int = 20) -> bl.Model:
    r = np.random.default_rng(0)
    w = r.standard_normal(p) * (r.random(p) < 0.3)
    X, V = r.standard_normal((n, p)), r.standard_normal((n, p))
    y, v = (np.sign(A @ w + 0.7 * r.standard_normal(n)) for A in (X, V))
    return bl.parse(text, data={"X": X, "y": y, "V": V, "v": v})


def test_what_a_descent_set_to_zero_is_found_again() -> None:
    result = bl.solve(model())
    alone = bl.solve(model(), backend="direct")
    assert result.success
    assert result.backend == "direct"
    assert result.F < 0.85 * alone.F
    assert "local optimum of `direct`" in " ".join(result.warnings)


def point(text: str, y: float) -> Any:
    functions = oracle(model(text, 12, 3))
    x = torch.full((functions.n,), -1.0, dtype=torch.float64)
    return with_small_weights(functions, x, torch.tensor([y, 1.0, 1.0], dtype=torch.float64))


def test_each_weight_falls_where_it_may() -> None:
    found = point(FIT, 0.0)
    assert found["l"].tolist() == pytest.approx([-3.0 - FAR * 5.0] * 3)
    turned = point(FIT.replace("exp(l)", "exp(-l)"), 0.0)
    assert turned["l"].tolist() == pytest.approx([-3.0 + FAR * 4.0] * 3)
    open_below = point(FIT.replace("[-8, 1]", "[-inf, 1]"), 0.0)
    assert open_below is None


def test_there_is_none_where_nothing_is_zero_or_one_weight_moves_all() -> None:
    assert point(FIT, 0.5) is None
    assert point(FIT.replace("l[p]", "l"), 0.0) is None
    assert point(FIT.replace("abs(w)", "w^2"), 0.0) is None
