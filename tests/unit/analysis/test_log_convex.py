"""Logarithms of sums of exponentials are proved convex however they are written, as cvxpy's own
functions are.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl

TEXT = """
param A[3, 4], a[3];
upper { var x; minimize x^2 + sumsq(w) + y^2 + z^2; }
lower f { var y, z, w[4]; minimize COST + y^2 + z^2 + sumsq(w); }
"""
A = np.random.default_rng(0).standard_normal((3, 4))
a = np.array([0.5, 1.0, 2.0])
y, z, w = cp.Variable(), cp.Variable(), cp.Variable(4)


def lse(*parts: Any) -> Any:
    return cp.log_sum_exp(cp.hstack(parts))


ZERO = cp.Constant(0.0)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("log(1 + exp(y))", cp.logistic(y)),
        ("log(1 + exp(-y))", cp.logistic(-y)),
        ("log(2 + 3 * exp(y - z))", lse(ZERO + np.log(2.0), y - z + np.log(3.0))),
        ("log(exp(y) + exp(z))", lse(y, z)),
        ("log(exp(y) + exp(z) + exp(y + z) + 1)", lse(y, z, y + z, ZERO)),
        ("log(1 + exp(y) + exp(2 * y))", lse(ZERO, y, 2 * y)),
        ("log(1 + exp(y)^2)", cp.logistic(2 * y)),
        ("log1p(exp(y) + exp(z))", lse(ZERO, y, z)),
        ("log((exp(y) + exp(-y)) / 2)", lse(y, -y) - np.log(2.0)),
        ("log(cosh(y - z))", lse(y - z, z - y) - np.log(2.0)),
        ("log(mean(exp(w)))", cp.log_sum_exp(w) - np.log(4.0)),
        ("log(sum(exp(w)) + exp(y))", lse(w, y)),
        ("log(sum(a[i] * exp(sum(A[i, k] * w[k] for k in 4)) for i in 3))",
         cp.log_sum_exp(A @ w + np.log(a))),
        ("sum(log(1 + exp(w[k]) + exp(y)) for k in 4)",
         sum(lse(ZERO, w[k], y) for k in range(4))),
        ("sum(log(1 + exp(-sum(A[i, k] * w[k] for k in 4))) for i in 3)",
         cp.sum(cp.logistic(-A @ w))),
    ],
)  # fmt: skip
def test_written_out(written: str, known: Any) -> None:
    model = bl.parse(TEXT.replace("COST", written), data={"A": A, "a": a})
    fact = bl.analyze(model).by_text
    assert (fact.value, fact.evidence) == ("strongly convex", "proved")
    assert known.is_convex()
    point = np.random.default_rng(1).standard_normal(6)
    y.value, z.value, w.value = point[0], point[1], point[2:]
    expected = known.value + point @ point
    assert bl.compile(model).f(np.zeros(1), point) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    "written",
    [
        "log(exp(y) + exp(z) - 1/2)",
        "log(3 + tanh(y))",
        "log(1 + y^2)",  # a square is convex, its logarithm is not
        "log(1 + exp(-y^2))",
        "log(1 + exp(y) * z^2)",
        "-log(1 + exp(y) + exp(z))",
    ],
)
def test_others_are_not_proved(written: str) -> None:
    model = bl.parse(TEXT.replace("COST", "8 * " + written), data={"A": A, "a": a})
    fact = bl.analyze(model).by_text
    assert fact.evidence != "proved" or fact.value == "nonconvex"
