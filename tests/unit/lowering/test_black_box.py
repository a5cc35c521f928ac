"""Functions that give values only, against the same functions written with torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bilevelpy as bl

A = np.array([[2.0, 0.3, 0.0], [0.3, 1.5, -0.2], [0.0, -0.2, 3.0]])
TEXT = """
model priced;
dim n;
extern cost(y[n], x[n]) -> []PROPERTIES;
param t[n];
upper { var x[n] in [-2, 2] start 0.5; minimize sumsq(y - t)/2 + 0.1*sumsq(x); }
lower L { var y[n] start 0.1; assume unique; minimize cost(y, x); }
"""
FAMILY = """
model simulators;
dim k, n;
extern run(y[n], p) -> [n];
param p[k], t[n];
upper { var x[n] start 0.2; minimize sum((y[i, j] - t[j])^2 for i in k, j in n) + sumsq(x); }
lower plant[i in k] {
  var y[n];
  assume unique;
  minimize sum((run(y, p[i])[j] - x[j])^2 for j in n) + sumsq(y);
}
"""
T = {"t": np.linspace(-0.5, 0.5, 3)}


def by_torch(y, x):
    return y @ torch.from_numpy(A) @ y / 2 - torch.sin(x) @ y + 0.1 * (y**4).sum()


def by_numpy(y, x):
    y, x = np.asarray(y), np.asarray(x)
    return y @ A @ y / 2 - np.sin(x) @ y + 0.1 * (y**4).sum()


def by_numbers(y, x):
    """What calls a program of its own gets: plain floats."""
    y, x = y.tolist(), x.tolist()
    bent = sum(A[i, j] * y[i] * y[j] for i in range(3) for j in range(3)) / 2
    return (
        bent - sum(math.sin(b) * a for a, b in zip(y, x, strict=True)) + sum(0.1 * a**4 for a in y)
    )


def model(cost, properties=""):
    return bl.parse(TEXT.replace("PROPERTIES", properties), data=T, externs={"cost": cost})


@pytest.mark.parametrize("cost", [by_numpy, by_numbers])
def test_derivatives_are_those_of_the_function(cost):
    exact, found = bl.compile(model(by_torch)), bl.compile(model(cost))
    x, y, v = np.array([0.3, 0.2, -0.4]), np.array([0.5, -0.2, 0.1]), np.array([1.0, 2.0, 3.0])
    assert found.f(x, y) == pytest.approx(exact.f(x, y), rel=1e-14)
    np.testing.assert_allclose(found.grad_f(x, y), exact.grad_f(x, y), atol=1e-9)
    np.testing.assert_allclose(found.hessian(x, y), exact.hessian(x, y), atol=1e-6)
    for ours, theirs in zip(found.pullback(x, y)(v), exact.pullback(x, y)(v), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("properties", "backend"), [("", "zo"), (" : smooth, convex(y)", "direct")]
)
def test_a_black_box_below_is_solved_and_certified(properties, backend):
    result = bl.solve(model(by_numpy, properties))
    assert result.backend == backend
    assert result.success
    known = bl.solve(model(by_torch, " : smooth, convex(y)"))
    assert abs(result.F - known.F) <= 1e-7
    np.testing.assert_allclose(result["x"], known["x"], atol=1e-4)


def test_a_vector_for_every_follower():
    data = {"p": [0.5, 1.0, 2.0, 0.1], "t": [0.1, 0.4]}

    def numpy(y, p):
        return np.tanh(np.asarray(y)) * float(p)

    def made(run):
        return bl.compile(bl.parse(FAMILY, data=data, externs={"run": run}))

    exact, found = made(lambda y, p: torch.tanh(y) * p), made(numpy)
    x, y = np.array([0.3, -0.2]), np.linspace(-0.5, 0.5, 8)
    np.testing.assert_allclose(found.grad_f(x, y), exact.grad_f(x, y), atol=1e-9)
    np.testing.assert_allclose(found.hessian(x, y), exact.hessian(x, y), atol=1e-6)
    np.testing.assert_allclose(found.hypergradient(x), exact.hypergradient(x), atol=1e-5)


def test_many_arguments_are_told():
    text = """
    model wide;
    dim n = 120;
    extern cost(y[n]) -> [] : smooth;
    upper { var x in [0, 1]; minimize x^2 + sumsq(y); }
    lower L { var y[n]; minimize cost(y) + sumsq(y - x); }
    """
    wide = bl.parse(text, externs={"cost": lambda y: float((y**2).sum())})
    with pytest.warns(UserWarning, match="one gradient takes 240"):
        bl.compile(wide)


def test_failures_name_the_function():
    def fails(y, x):
        if float(y[0]) > 0.99:
            raise ValueError("the simulator left its range")
        return by_numpy(y, x)

    oracle = bl.compile(model(fails))
    with pytest.raises(bl.BackendError, match=r"'cost' failed: the simulator left its range"):
        oracle.f(np.zeros(3), np.ones(3))
