"""Verdicts and moduli of random lower objectives against sampling of the compiled functions."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelpy.analysis import analyze
from bilevelpy.analysis.structure import Evidence
from bilevelpy.lowering.oracle import TorchOracle
from tests.unit.analysis.models import bound

HEAD = """
model random; dim n = 3;
param c in [0, inf], P[n, n] in psd, A[n, n], k[n];
upper {{ var x in [-2, 3], z[n] in [-1, 2]; minimize x^2 + sumsq(z) + sumsq(y) + sumsq(v); }}
lower L {{ var y[n], v[n] in [0.5, 4]; minimize {f}; }}
"""
RNG = np.random.default_rng(3)
ROOT = RNG.standard_normal((3, 3))
DATA = {
    "c": 0.7,
    "P": ROOT @ ROOT.T,
    "A": RNG.standard_normal((3, 3)),
    "k": np.array([1.0, -1.0, 2.0]),
}
# Differences of f this small, relative to its size, are rounding.
ROUNDING = 1e-10

FACTORS = ["1", "c", "exp(x)", "x", "(x^2 + 1)", "-2", "(x^2 - x + 1)", "0.5"]
AFFINE = ["y", "v", "(A @ y)", "(y - z)", "(y - v)", "(2*y + k)", "(k*v)", "(x*y - k)"]

UNARY = [
    "{}",
    "{}^2",
    "exp(0.3*{})",
    "logistic({})",
    "{}^3",
    "abs({})",
    "relu({})",
    "{}^4",
    "sqrt(1 + {}^2)",
    "cosh(0.5*{})",
    "huber({})",
    "-{}",
    "tanh({})",
    "log(1 + {}^2)",
    "max({}, 0.5)",
]
POSITIVE = ["v*log(v)", "log(v)", "sqrt(v)", "1/v", "v^1.5", "v^0.5", "1/(v + 1)", "entropy(v)/3"]


@st.composite
def terms(draw):
    kind = draw(st.sampled_from(["sum", "product", "reduce", "positive", "weighted"]))
    factor = draw(st.sampled_from(FACTORS))
    affine = st.sampled_from(AFFINE)
    if kind == "positive":
        return f"{factor}*sum({draw(st.sampled_from(POSITIVE))})"
    if kind == "product":
        a = draw(affine)
        return draw(
            st.sampled_from(
                [f"{factor}*dot({a}, {draw(affine)})", f"quad({a}, P)", f"{factor}*quad({a}, A)"]
            )
        )
    if kind == "reduce":
        name = draw(st.sampled_from(["logsumexp", "max", "norm2", "norm1", "sumsq", "min"]))
        return f"{factor}*{name}({draw(affine)})"
    inner = draw(st.sampled_from(UNARY)).format(draw(affine))
    outer = draw(st.sampled_from(UNARY)).format(f"({inner})") if draw(st.booleans()) else inner
    weight = "exp(z)*" if kind == "weighted" else ""
    return f"{factor}*sum({weight}{outer})"


def texts():
    return st.lists(terms(), min_size=1, max_size=3).map(" + ".join)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(texts())
def test_proved_convexity_holds_between_random_points(f):
    made = bound(HEAD.format(f=f), **DATA)
    s = analyze(made)
    if s.convexity.value not in ("convex", "strongly convex"):
        return
    assert s.convexity.evidence is Evidence.PROVED
    oracle = TorchOracle(made)
    mu = s.modulus.value or 0.0
    rng = np.random.default_rng(0)
    for _ in range(25):
        x = oracle.domain_x.project(torch.tensor(rng.uniform(-3, 3, oracle.n)))
        a, b = (
            oracle.domain_y.project(torch.tensor(rng.uniform(-4, 4, oracle.m))) for _ in range(2)
        )
        middle = oracle.f(x, (a + b) / 2)
        ends = (oracle.f(x, a) + oracle.f(x, b)) / 2
        if not np.isfinite([middle, ends]).all():
            continue
        bowl = mu / 8 * float((a - b) @ (a - b))
        assert middle + bowl <= ends + ROUNDING * (abs(middle) + abs(ends) + bowl + 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(texts())
def test_proved_modulus_is_below_every_eigenvalue(f):
    made = bound(HEAD.format(f=f + " + exp(x)*sumsq(y) + (x^2 + 1)*sum((v - z)^2)"), **DATA)
    s = analyze(made)
    if s.modulus.value is None or not s.lower.smooth.value:
        return
    oracle = TorchOracle(made)
    rng = np.random.default_rng(1)
    for _ in range(5):
        x = oracle.domain_x.project(torch.tensor(rng.uniform(-3, 3, oracle.n)))
        y = oracle.domain_y.project(torch.tensor(rng.uniform(-4, 4, oracle.m)))
        values = np.linalg.eigvalsh(oracle.hessian(x, y).numpy())
        assert s.modulus.value <= values[0] + 1e-9 * max(1.0, values[-1])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(texts())
def test_probing_never_contradicts_the_text(f):
    """What the text proves to be convex is not seen to be nonconvex, and the other way round."""
    made = bound(HEAD.format(f=f), **DATA)
    text, seen = analyze(made), analyze(made, TorchOracle(made))
    if text.convexity.value in ("convex", "strongly convex"):
        assert seen.convexity.value in ("convex", "strongly convex")
    assert seen.dim_y == text.dim_y == 6
