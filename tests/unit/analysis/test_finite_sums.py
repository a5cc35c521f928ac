"""Which axes are those of a finite sum: rows of data, and not what the leader has an entry for."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

X, V = np.arange(24.0).reshape(8, 3) / 7, np.ones((5, 3))
DATA = {"X": X, "y": X[:, 0], "V": V, "v": V[:, 0], "G": 4}
MODEL = """
model sums; dim n, m, p, G; param X[n, p], y[n], V[m, p], v[m];
upper {{ var s[{axis}]; minimize mean((V @ w - v)^2) + sumsq(s); }}
lower f {{ var w[p]; minimize {below}; }}
"""
CASES = {
    "penalties of features": ("p", "mean((X @ w - y)^2) + sum(exp(s) * w^2)", ("n",)),
    "weights of rows": ("n", "sum(sigmoid(s) * (X @ w - y)^2) + sumsq(w)", ("n",)),
    "targets of rows": ("n", "sum((X @ w - y - s)^2) + sumsq(w)", ("n",)),
    "distances to points": ("G", "sum((w[j] - s[g])^2 for g in G, j in p)", ()),
    "penalties of groups": (
        "G",
        "mean((X @ w - y)^2) + sum(exp(s[g]) * (w[j] - g)^2 for g in G, j in p)",
        ("n",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_axes_of_the_lower_sum(case: str) -> None:
    axis, below, expected = CASES[case]
    model = bl.parse(MODEL.format(axis=axis, below=below), data=DATA)
    facts = bl.analyze(model)
    assert facts.finite_sum_lower.value == expected
    assert facts.finite_sum_upper.value == ("m",)
    if not expected:
        rejected = bl.dispatch(facts).rejected["saba"]
        assert "needs a lower objective that is a sum over data" in rejected
