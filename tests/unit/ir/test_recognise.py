"""Functions that are written out against the same by name: value, range, curvature."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

MODEL = """
model written;
dim n;
param t[n] in [0, 1];
upper {{ var x; minimize x^2 + sumsq(y); }}
lower L {{ var y[n]; minimize {objective}; }}
"""
T = np.linspace(0.1, 0.9, 4)


def soft(z):
    return np.logaddexp(0.0, z)


WRITTEN = {
    "sum(log(1 + exp(y)))": lambda y: soft(y).sum(),
    "sum(log1p(exp(2*y)))": lambda y: soft(2 * y).sum(),
    "sum(log(3 + exp(y)))": lambda y: np.logaddexp(np.log(3), y).sum(),
    "sum(log(exp(y) + exp(t)))": lambda y: np.logaddexp(y, T).sum(),
    "log(sum(exp(y[i]) for i in n))": lambda y: np.logaddexp.reduce(y),
    "-sum(log(1/(1 + exp(-t*y))))": lambda y: soft(-T * y).sum(),
    "-sum(log(1 - 1/(1 + exp(-y))))": lambda y: soft(y).sum(),
    "-sum(t*log(sigmoid(y)) + (1 - t)*log(1 - sigmoid(y)))": lambda y: (
        T * soft(-y) + (1 - T) * soft(y)
    ).sum(),
    "-sum(log(exp(y[i])/sum(exp(y[j]) for j in n)) for i in n)": lambda y: (
        len(y) * np.logaddexp.reduce(y) - y.sum()
    ),
    "-sum(log(1/exp(y)))": lambda y: y.sum(),
    "sum(1/(1 + exp(-y)))": lambda y: (1 / (1 + np.exp(-y))).sum(),
    "sum(1/exp(y))": lambda y: np.exp(-y).sum(),
    "sum(max(2*y - t, t - 2*y))": lambda y: np.abs(2 * y - T).sum(),
}


@pytest.mark.parametrize("objective", WRITTEN)
def test_values_are_those_of_the_named_function(objective):
    model = bl.parse(MODEL.format(objective=objective), data={"t": T})
    y = np.random.default_rng(1).normal(size=4)
    assert bl.compile(model).f([1.0], y) == pytest.approx(WRITTEN[objective](y), rel=1e-14)


@pytest.mark.parametrize("objective", [w for w in WRITTEN if "log" in w])
def test_large_scores_do_not_overflow(objective):
    model = bl.parse(MODEL.format(objective=objective), data={"t": T})
    y = np.array([800.0, -900.0, 1000.0, 3.0])
    oracle = bl.compile(model)
    assert oracle.f([1.0], y) == pytest.approx(WRITTEN[objective](y), rel=1e-14)
    assert np.isfinite(oracle.grad_f([1.0], y)).all()


@pytest.mark.parametrize(
    "loss",
    ["log(1 + exp(-t*y))", "log(exp(y) + exp(t))", "-log(1 - sigmoid(y))", "-log(sigmoid(t*y))"],
)
def test_losses_that_are_written_out_are_known_to_be_convex(loss):
    model = bl.parse(MODEL.format(objective=f"sum({loss}) + sumsq(y)/2"), data={"t": T})
    found = bl.analyze(model).convexity
    assert (found.value, str(found.evidence)) == ("strongly convex", "proved")


@pytest.mark.parametrize("objective", ["sum(log(exp(y) - 1))", "sum(log(2 + sin(y)))"])
def test_what_has_no_name_stays(objective):
    model = bl.parse(MODEL.format(objective=objective), data={"t": T})
    y = np.array([0.5, 1.0, 1.5, 2.0])
    expected = np.log(np.exp(y) - 1) if "exp" in objective else np.log(2 + np.sin(y))
    assert bl.compile(model).f([1.0], y) == pytest.approx(expected.sum(), rel=1e-14)


def test_a_maximum_of_opposites_is_an_absolute_value():
    lasso = MODEL.format(objective="sumsq(y - t)/2 + exp(x)*sum(max(y, -y))")
    assert bl.dispatch(bl.analyze(bl.parse(lasso, data={"t": T}))).chosen == "direct"
