"""Verdicts on single terms, moduli of coefficients, quadratic forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bilevelpy.analysis.structure import Evidence
from tests.unit.analysis.models import facts

HEAD = """
model m; dim n = 3;
param c in [0, inf], P[n, n] in psd, A[n, n], B[n, n], k[n];
upper {{ var x in [-2, 3], z[n] in [-1, 2]; minimize x^2 + sumsq(y) + sumsq(v); }}
"""
LOWER = "lower L {{ var y[n], v[n] in [0, inf]; minimize {f}; }}"
DATA = {
    "c": 0.5,
    "P": np.eye(3),
    "A": np.ones((3, 3)),
    "B": np.eye(3),
    "k": np.array([1.0, -1.0, 2.0]),
}


def verdict(f):
    return facts((HEAD + LOWER).format(f=f), probed=False, **DATA)


@pytest.mark.parametrize(
    "f",
    [
        "sumsq(A @ y - k)",
        "c*sum(exp(y + x))",
        "logsumexp(A @ y)",
        "sum(max(y, 0))",
        "norm1(y)",
        "norminf(A @ y)",
        "y' @ P @ y",
        "y' @ (P + c*eye(n)) @ y",
        "sumsq(A @ y)",
        "(A @ y)' @ P @ (A @ y)",
        "quad(y - z, P)",
        "sum(y[i]*P[i,j]*y[j] for i in n, j in n)",
        "(x^2 + 1)*sum((y[i] - z[i])*B[i,j]*(y[j] - z[j]) for i in n, j in n)",
        "quad(A @ y, B)",
        "y' @ A @ y",
        "quad(y, P - eye(n))",
        "sum(logistic(y*k))",
        "-sum(log(v))",
        "sum(v*log(v))",
        "sum(1/(v + 1))",
        "sum(v^3)",
        "sum(y^4)",
        "sum(v^1.5)",
        "-sum(sqrt(v))",
        "sum(relu(y)^2)",
        "sum(huber(y, 2))",
        "exp(x)*sumsq(y) - dot(k, y)",
        "(x^2 - x + 1)*sumsq(y)",
        "max(y)",
        "x*sum(y)",
        "sum((2 - y)*(1 - y))",
        "sum(cosh(y))",
        "-min(y)",
        "norm2(A @ y - k)",
        "sum(exp(z)*y^2)",
        "sum(y[i]^2 for i in n where i > 1)",
        "-sum(logsoftmax(y))",
        "logsumexp(y - x)",
    ],
)
def test_convex_terms(f):
    s = verdict(f)
    assert s.convexity.value in ("convex", "strongly convex"), s.convexity.reason
    assert s.convexity.evidence is Evidence.PROVED


@pytest.mark.parametrize(
    ("f", "at"),
    [
        ("x*sumsq(y)", "x*sumsq(y)"),
        ("sum(y^3)", "y^3"),
        ("y' @ (A - 2*eye(n)) @ y", "y' @ (A - 2*eye(n)) @ y"),
        ("sum(1/y)", "y"),
        ("sum(sin(y)) + sumsq(y)", "sin(y)"),
        ("sum(log(1 + y^2))", "log(1 + y^2)"),
        ("sum(y*v)", "y*v"),
        ("sum(exp(-y^2))", "exp(-y^2)"),
        ("-sum(softplus(y))", "-sum(softplus(y))"),
        ("sum(sqrt(abs(y)))", "sqrt(abs(y))"),
        ("sum(z*y^2)", "z*y^2"),
        ("quad(y, P - 2*eye(n))", "quad(y, P - 2*eye(n))"),
        (
            "sum(y[i]*(A[i,j] - B[i,j])*y[j] for i in n, j in n)",
            "sum(y[i]*(A[i,j] - B[i,j])*y[j] for i in n, j in n)",
        ),
    ],
)
def test_terms_that_no_rule_shows_to_be_convex(f, at):
    s = verdict(f)
    assert s.convexity.value == "unknown"
    assert [w.code for w in s.warnings] == ["BLV0502"]
    span = s.warnings[0].primary.span
    shown = s.sources["model.blv"].text[span.start : span.end]
    assert at in shown or shown in at


def test_convex_terms_are_named_beside_the_offending_one():
    s = verdict("sum(sin(y)) + c*sumsq(y) - dot(k, y)")
    assert s.warnings[0].notes[0] == "convex: c*sumsq(y)"


@pytest.mark.parametrize(
    ("f", "mu"),
    [
        ("sumsq(y)/2 + sumsq(v)", 1.0),
        ("c*sumsq(y) + c*sumsq(v)", 1.0),
        ("exp(x)*sumsq(y) + sumsq(v)", 2 * math.exp(-2)),
        ("(x^2 - x + 1)*sumsq(y) + sumsq(v)", 1.5),
        ("(exp(x) - x)*sumsq(y) + sumsq(v)", 2.0),
        ("sum(exp(z)*(2*y - x)^2) + 9*sumsq(v)", 8 * math.exp(-1)),
        ("sum((2 - y)*(1 - 3*y)) + 9*sumsq(v)", 6.0),
        ("norm2(y)^2 + sumsq(v - z)", 2.0),
        ("mean(y^2) + mean(v^2)", 2 / 3),
        ("sum(cosh(y)) + sumsq(v)", 1.0),
        ("sumsq(y) + sumsq(y - z) + 9*sumsq(v)", 4.0),
        ("quad(y, 3*B) + 9*sumsq(v)", 6.0),
        ("exp(x)*sum(y[i]*B[i,j]*y[j] for i in n, j in n) + 9*sumsq(v)", 2 * math.exp(-2)),
        ("quad(y, A) + 9*sumsq(v)", None),
        ("sumsq(y)", None),
        ("sumsq(y) + sum(v[i]^2 for i in n where i > 1)", None),
        ("sumsq(A @ y) + sumsq(v)", None),
        ("x*sumsq(y) + sumsq(v)", None),
    ],
)
def test_moduli(f, mu):
    s = verdict(f)
    if mu is None:
        assert s.modulus.value is None
        assert s.convexity.value != "strongly convex"
    else:
        assert s.modulus.evidence is Evidence.PROVED
        assert s.modulus.value == pytest.approx(mu, rel=2e-3)
        assert s.modulus.value <= mu * (1 + 1e-12)


def test_repeated_powers_do_not_hang():
    power = "x"
    for _ in range(30):
        power = f"({power} + 1)^2"
    assert verdict(f"{power}*sumsq(y) + sumsq(v)").modulus.value is not None


def test_hessian_movement():
    assert verdict("sumsq(y) + x*sum(y)").lower_hessian.value == "constant"
    assert verdict("exp(x)*sumsq(y)").lower_hessian.value == "depends on x"
    assert verdict("sum(y^4) + x*sum(y)").lower_hessian.value == "depends on y"
    assert verdict("sum(y^4) + x*sumsq(y)").lower_hessian.value == "depends on both"
    assert verdict("sum(exp(y + x))").lower_hessian.value == "depends on both"
    assert verdict("(sum(y) + x)^2").lower_hessian.value == "constant"


def test_forms():
    forms = [
        verdict(f).lower.form.value
        for f in ("sum(y)", "sumsq(y)", "sum(y^3)", "sum(exp(y))", "prod(y)")
    ]
    assert forms == ["linear", "quadratic", "polynomial", "nonlinear", "polynomial"]


INTERCEPT = """
dim n, p;
param X[n, p], y[n];
upper { var lam[p] in [-40, 40] start 0; minimize sumsq(w); }
lower fit { var w[p], b; minimize mean(%s) + sum(exp(lam) * w^2); }
"""


@pytest.mark.parametrize(
    ("loss", "first", "unique"),
    [
        ("softplus(-y * (X @ w + b))", 1.0, True),
        # Units of the features say nothing about it.
        ("softplus(-y * (X @ w + b))", 1e5, True),
        # A flat side of a squared hinge can be as long as it likes.
        ("relu(1 - y * (X @ w + b))^2", 1e5, None),
        # No curvature along an intercept that nothing reads, F no more than f.
        ("softplus(-y * (X @ w + 0 * b))", 1e5, True),
    ],
)
def test_a_convex_analytic_loss_curved_at_the_start_has_one_minimiser(
    loss: str, first: float, unique: bool | None
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3)) * [first, 1.0, 1e-4]
    s = facts(INTERCEPT % loss, X=X, y=np.sign(rng.normal(size=30)))
    assert s.convexity.value == "convex"
    assert s.unique.value is unique


@pytest.mark.parametrize(
    ("loss", "upper", "unique"),
    [
        ("softplus(-y * (X @ w + b))", "mean(softplus(-y * (Z @ w + b)))", True),
        ("(X @ w + b - y)^2", "mean((Z @ w + b - y)^2)", True),
        # A penalty above tells copies apart, and so does what is left of them elsewhere.
        ("softplus(-y * (X @ w + b))", "sumsq(w)", None),
        ("softplus(-y * (X @ w + b))", "mean(softplus(-y * (V @ w + b)))", None),
    ],
)
def test_minimisers_that_differ_where_f_and_F_are_flat_are_one(
    loss: str, upper: str, unique: bool | None
) -> None:
    rng = np.random.default_rng(0)
    X, Z, V = (rng.normal(size=(40, 4)) * [1.0, 1e3, 1.0, 1.0] for _ in range(3))
    for A in (X, Z):
        A[:, 3] = A[:, 0]
        A[:, 2] = 1.0
    text = f"""dim n, p; param X[n, p], Z[n, p], V[n, p], y[n];
    upper {{ var c in [-5, 5] start 0; minimize {upper} + c^2; }}
    lower fit {{ var w[p], b; minimize exp(c) * mean({loss}); }}"""
    s = facts(text, X=X, Z=Z, V=V, y=np.sign(rng.normal(size=40)))
    assert s.convexity.value == "convex"
    assert s.unique.value is unique
