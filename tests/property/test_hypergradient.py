"""Hypergradients of random models against the implicit formula in NumPy and central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bilevelpy as bl

# The formula is exact: what is left is rounding, times the condition number of these problems.
EXACT = 1e-9
# A central difference of F(x, y(x)) at a step of 1e-5 has an error of about 1e-10 / 1e-5.
DIFFERENCE = 1e-5

QUADRATIC = """
model quadratic;
dim n, m;
param A[m, m], B[n, m], E[m, m], G[n, n], K[n, m], a[m], e[m], h[n];
upper {
  var x[n];
  minimize quad(y, E)/2 + quad(x, G)/2 + x' @ K @ y + dot(e, y) + dot(h, x);
}
lower f {
  var y[m];
  minimize quad(y, A)/2 + x' @ B @ y + dot(a, y);
}
"""
RIDGE = """
model ridge;
dim s, t, p;
param X[s, p], b[s], V[t, p], c[t];
upper { var lam[p]; minimize sumsq(V @ w - c)/2; }
lower fit { var w[p]; minimize sumsq(X @ w - b)/2 + sum(exp(lam) * w^2)/2; }
"""
LOGISTIC = """
model logistic;
dim s, t, p;
param X[s, p], b[s], V[t, p], c[t];
upper { var lam[p]; minimize mean(softplus(-c * (V @ w))); }
lower fit {
  var w[p];
  minimize mean(softplus(-b[i] * sum(X[i, j] * w[j] for j in p)) for i in s)
         + sum(exp(lam[j]) * w[j]^2 for j in p)/2;
}
"""


def close(found: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    assert np.linalg.norm(found - exact) <= tolerance * (1 + np.linalg.norm(exact))


def check_difference(oracle: bl.Oracle, x: np.ndarray, rng: np.random.Generator) -> None:
    """The slope along one direction, with responses solved anew."""
    v = rng.normal(size=x.size)
    v /= np.linalg.norm(v)
    step = 1e-5
    up, down = (oracle.F(x + s * v, oracle.response(x + s * v)) for s in (step, -step))
    slope = oracle.hypergradient(x) @ v
    assert abs((up - down) / (2 * step) - slope) <= DIFFERENCE * (1 + abs(slope))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_quadratic(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(m, m))
    d = {
        "A": R @ R.T + np.eye(m),
        "B": rng.normal(size=(n, m)),
        "E": np.eye(m) + np.diag(rng.uniform(size=m)),
        "G": np.eye(n),
        "K": rng.normal(size=(n, m)),
        "a": rng.normal(size=m),
        "e": rng.normal(size=m),
        "h": rng.normal(size=n),
    }
    oracle = bl.compile(bl.parse(QUADRATIC, data=d))
    x = rng.normal(size=n)
    y = -np.linalg.solve(d["A"], d["B"].T @ x + d["a"])
    u = np.linalg.solve(d["A"], d["E"] @ y + d["K"].T @ x + d["e"])
    exact = d["G"] @ x + d["K"] @ y + d["h"] - d["B"] @ u
    close(oracle.response(x), y, EXACT)
    close(oracle.hypergradient(x), exact, EXACT)
    check_difference(oracle, x, rng)


@settings(max_examples=15, deadline=None)
@given(p=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_ridge(p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, V = rng.normal(size=(p + 5, p)), rng.normal(size=(7, p))
    b, c = rng.normal(size=p + 5), rng.normal(size=7)
    oracle = bl.compile(bl.parse(RIDGE, data={"X": X, "b": b, "V": V, "c": c}))
    lam = rng.uniform(-2, 1, size=p)
    H = X.T @ X + np.diag(np.exp(lam))
    w = np.linalg.solve(H, X.T @ b)
    u = np.linalg.solve(H, V.T @ (V @ w - c))
    close(oracle.response(lam), w, EXACT)
    close(oracle.hypergradient(lam), -np.exp(lam) * w * u, EXACT)
    check_difference(oracle, lam, rng)


@settings(max_examples=15, deadline=None)
@given(p=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_logistic(p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, V = rng.normal(size=(30, p)), rng.normal(size=(20, p))
    b, c = rng.choice([-1.0, 1.0], size=30), rng.choice([-1.0, 1.0], size=20)
    oracle = bl.compile(bl.parse(LOGISTIC, data={"X": X, "b": b, "V": V, "c": c}))
    lam = rng.uniform(-2, 1, size=p)
    w = np.zeros(p)
    for _ in range(50):  # Newton from 0 with halving: the objective is strongly convex
        s = 1 / (1 + np.exp(b * (X @ w)))
        g = -X.T @ (b * s) / 30 + np.exp(lam) * w
        H = (X.T * (s * (1 - s))) @ X / 30 + np.diag(np.exp(lam))
        w = w - np.linalg.solve(H, g)
    t = 1 / (1 + np.exp(c * (V @ w)))
    u = np.linalg.solve(H, -V.T @ (c * t) / 20)
    close(oracle.response(lam), w, EXACT)
    close(oracle.hypergradient(lam), -np.exp(lam) * w * u, EXACT)
    check_difference(oracle, lam, rng)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_do_not_matter(factor: float) -> None:
    rng = np.random.default_rng(5)
    d = {"X": rng.normal(size=(9, 4)), "b": rng.normal(size=9)}
    d |= {"V": rng.normal(size=(7, 4)), "c": rng.normal(size=7)}
    lam = rng.normal(size=4)
    plain = bl.compile(bl.parse(RIDGE, data=d)).hypergradient(lam)
    scaled = {**d, "b": factor * d["b"], "c": factor * d["c"]}
    found = bl.compile(bl.parse(RIDGE, data=scaled)).hypergradient(lam)
    np.testing.assert_allclose(found, factor**2 * plain, rtol=1e-8)
