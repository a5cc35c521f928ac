"""The second derivative of ``Phi(x) = F(x, y(x))`` and the steps that it gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.direct import Direct, DirectOptions
from bilevelpy.lowering.hessians.structured import StructuredCurvature
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.response import Point, Response
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.numerics.upper import newton as upper_newton
from bilevelpy.numerics.upper.newton import ReducedNewton, reduced_newton
from tests.unit.lowering.programs import oracle as oracle_of

FIT = """
model fit;
dim n, m, p;
param X[n, p], s[n], V[m, p], t[m];
upper { var lam[p] in [-9, 3] start -1; minimize mean(logistic(-t * (V @ w + b))); }
lower train {
  var w[p], b;
  minimize mean(logistic(-s * (X @ w + b))) + sum(exp(lam) * w^2) / 2 + 1e-3 * b^2;
}
"""
NETWORK = """
model network;
dim n, k;
param c[n];
upper { var x[n] start 0.3; minimize sum((y[i] * x[i] - c[i])^2 for i in n) + sum(exp(x)) / 9; }
lower follow {
  var y[n], z[k];
  minimize sum(exp(y[i] * x[i]) + (y[i] - x[i]^2)^2 for i in n)
      + sum((z[j] - sum(y[i] for i in n) / (1 + x[1]^2))^2 for j in k) + sumsq(y) / 5;
}
"""

CLASSES = """
model classes;
dim n, m, p, k;
set KIND = 0..2;
param X[n, p], s[n], V[m, p], t[m], G[k, n];
upper { var v[k] in [-3, 3] start 0.2; minimize mean(softmax_cross_entropy(V @ W, t)) + sumsq(v); }
lower train {
  var W[p, KIND];
  minimize mean(sigmoid(v @ G) * softmax_cross_entropy(X @ W, s)) + sum(exp(v)) * sumsq(W) / 90;
}
"""


def fit_data(seed: int = 0, p: int = 6) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.standard_normal(p)
    X, V = draw.standard_normal((60, p)), draw.standard_normal((40, p))
    s, t = (np.sign(M @ truth + draw.standard_normal(len(M))) for M in (X, V))
    return {"X": X, "s": s, "V": V, "t": t}


def classes() -> TorchOracle:
    """Three classes, and samples in groups with a weight each."""
    data = fit_data()
    labels = {key: (data[key] > 0) + (np.arange(len(data[key])) % 5 == 0) for key in ("s", "t")}
    groups = (np.arange(60) % 4 == np.arange(4)[:, None]).astype(float)
    return oracle_of(CLASSES, **{**data, **labels}, G=groups)


def fit(seed: int = 0, p: int = 6) -> bl.Model:
    return bl.parse(FIT, data=fit_data(seed, p))


def general() -> TorchOracle:
    return oracle_of(NETWORK, c=np.linspace(-1, 1, 4), k=3)


def at(oracle: Oracle, x: torch.Tensor) -> tuple[Response, Point]:
    """A solved point with its hypergradient."""
    response = Direct().response(oracle, DirectOptions())
    response.accuracy.level = response.accuracy.floor = 1e-12
    return response, response.differentiate(response.evaluate(x, None, oracle.y0), None)


def second(response: Response, point: Point) -> np.ndarray:
    newton = response.newton
    assert isinstance(newton, ReducedNewton)
    found = newton._second(point)
    assert found is not None
    known = newton.shrinkage
    return found if known is None else found - np.diag(point.g.numpy() * known.bend)


@pytest.mark.parametrize("make", [lambda: oracle_of(FIT, **fit_data()), general, classes])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("structured", [False, True])
def test_the_second_derivative_is_the_slope_of_the_hypergradient(
    make: Callable[[], TorchOracle],
    scaled: bool,
    structured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upper_newton, "definite", lambda H, flat: H)
    monkeypatch.setattr(StructuredCurvature, "passes", 0.0 if structured else math.inf)
    oracle: Oracle = make()
    if scaled:
        sizes = [2.0 ** (torch.arange(k) % 5 - 2.0).double() for k in (oracle.n, oracle.m)]
        oracle = ScaledOracle(oracle, Units(*sizes))
    x = oracle.domain_x.project(oracle.x0 + 0.1 * torch.cos(torch.arange(oracle.n).double()))
    response, point = at(oracle, x)
    H = second(response, point)
    h = 1e-5
    for k in range(oracle.n):
        step = torch.zeros_like(x)
        step[k] = h
        up, down = (at(oracle, x + sign * step)[1].g for sign in (1, -1))
        slope = ((up - down) / (2 * h)).numpy()
        assert H[:, k] == pytest.approx(slope, abs=2e-7 * max(1.0, np.abs(H).max()))


def test_the_matrix_over_few_columns_replaces_products_with_many_rows() -> None:
    """One matrix over its columns is less work than a product for each of many upper variables, and
    more than one for each of few with many classes.
    """
    many = oracle_of(FIT, **fit_data(p=12))
    few = classes()
    for oracle, expected in ((many, True), (few, False)):
        at(oracle, oracle.x0)
        made = oracle.second_order
        assert made is not None
        assert made.at(oracle.x0, oracle.y0, oracle.y0, lambda: None) is not None
        assert (made._derived.lower is not None) is expected


def test_many_followers_below_few_variables_have_no_whole_matrix() -> None:
    """That of 200 followers would be zeros but for a 200th: products with columns come sooner."""
    text = """
    set K = 1..200; dim n, p; param X[K, n, p], s[K, n];
    upper { var c[p] start 0.5; minimize sum(train.w[k, j]^2 + c[j] for k in K, j in p); }
    lower train[k in K] {
      var w[p];
      minimize sum(logistic(s[k, i] * sum(X[k, i, j] * w[j] for j in p)) for i in n)
          + sumsq(w - c);
    }
    """
    draw = np.random.default_rng(0)
    data = {"X": draw.standard_normal((200, 2, 3)), "s": draw.standard_normal((200, 2))}
    assert oracle_of(text, **data).second_order._derived.lower is None


def test_a_penalty_per_feature_has_all_columns_in_one_product() -> None:
    """And penalties of groups take one as well, whose members share no row."""
    oracle = oracle_of(FIT, **fit_data(p=12))
    _, point = at(oracle, oracle.x0)
    before = oracle.counts.jvp, oracle.counts.hvp
    found = oracle.second_order.at(point.x, point.y, point.adjoint.u, lambda: None)
    mixed = found.f_yx()
    found.reduced(np.zeros((oracle.m, oracle.n)))
    assert (oracle.counts.jvp - before[0], oracle.counts.hvp - before[1]) == (1, 1)
    expected = np.exp(point.x.numpy()) * point.y.numpy()[: oracle.n]
    np.testing.assert_allclose(mixed[: oracle.n], np.diag(expected), rtol=1e-12)
    assert not mixed[oracle.n :].any()


def test_quadratics_have_the_matrix_as_soon_as_its_few_products_are_worth_it() -> None:
    data = fit_data(p=12)
    ridge = FIT.replace("logistic(-s * (X @ w + b))", "(X @ w + b - s)^2")
    for text, kept in ((ridge, True), (FIT, False)):
        oracle = oracle_of(text, **data)
        newton = at(oracle, oracle.x0)[0].newton
        assert newton.kept is kept
        newton._spent, newton.tol = 0, 1e-99
        passes = math.ceil(oracle.second_order.passes) + 6
        newton._course = [(passes + k - 5, 1.0 / (k + 1)) for k in range(6)]
        assert passes < upper_newton.COLUMN * oracle.n
        assert newton._is_due() is kept


def test_negative_curvature_is_turned_and_the_step_stays_in_the_box() -> None:
    oracle = oracle_of(FIT, **fit_data())
    response, point = at(oracle, oracle.x0)
    newton = response.newton
    newton.matrix = upper_newton.definite(
        np.diag([2.0, -1.0, 3.0, 1.0, 1e-30, 1.0]), upper_newton.FLAT
    )
    assert np.linalg.eigvalsh(newton.matrix).min() > 0
    step = newton.step(point, point.g.numpy(), None)
    end = oracle.x0 - torch.from_numpy(step)
    assert torch.dot(torch.from_numpy(step), point.g) > 0
    assert bool(((end >= oracle.domain_x.lower) & (end <= oracle.domain_x.upper)).all())
    newton.reset()
    assert newton.step(point, point.g.numpy(), None) is None


def test_a_box_without_an_answer_has_one_for_a_steeper_matrix() -> None:
    """Of weights of samples: tiny curvatures in units of the diagonal are rounding."""
    response, point = at(oracle_of(FIT, **fit_data()), torch.full((6,), -1.0, dtype=torch.float64))
    newton = response.newton
    units = np.diag([30.0, 1.0, 1.0, 0.1, 1.0, 1.0])
    newton.matrix = units @ np.ones((6, 6)) @ units
    at_x, slope = point.x.numpy(), point.g.numpy()
    assert newton._minimiser(newton.matrix, at_x, slope) is None
    step = newton.step(point, point.g.numpy(), None)
    assert step is not None
    assert step @ point.g.numpy() > 0.0
    values = np.linalg.eigvalsh(np.linalg.inv(units) @ newton.matrix @ np.linalg.inv(units))
    np.testing.assert_allclose(values[:-1], 6.0 * upper_newton.STEEPER, rtol=1e-6)
    assert values[-1] == pytest.approx(6.0)
    assert upper_newton.steeper(np.diag([1.0, 0.0]), upper_newton.STEEPER) is None


def test_kinks_and_jumping_curvature_get_no_newton_steps() -> None:
    def columns(*_: object) -> None: ...

    bounded = FIT.replace("var w[p], b;", "var w[p] in [0, 1], b;")
    for text in (bounded, FIT.replace("logistic(-s * (X @ w + b))", "huber(X @ w + b - s, 1)")):
        assert reduced_newton(oracle_of(text, **fit_data()), columns, 1e-6) is None
    assert reduced_newton(oracle_of(FIT, **fit_data()), columns, 1e-6) is not None


def test_quadratics_have_the_steps_for_more_upper_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def columns(*_: object) -> None: ...

    monkeypatch.setattr(upper_newton, "LARGEST", 5)
    monkeypatch.setattr(upper_newton, "LARGEST_KEPT", 6)
    oracle = oracle_of(FIT, **fit_data())
    assert (oracle.n, oracle.m) == (6, 7)
    assert reduced_newton(oracle, columns, 1e-6) is None
    assert reduced_newton(oracle, columns, 1e-6, kept=True) is not None
    monkeypatch.setattr(upper_newton, "LARGEST_KEPT", 5)
    assert reduced_newton(oracle, columns, 1e-6, kept=True) is None
    # Passes of fewer lower variables are cheap, eigenvalues above are not.
    monkeypatch.setattr(oracle, "n", 9)
    monkeypatch.setattr(upper_newton, "LARGEST", 8)
    monkeypatch.setattr(upper_newton, "LARGEST_KEPT", 16)
    assert reduced_newton(oracle, columns, 1e-6, kept=True) is None


def test_fewer_steps_and_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit(3, 30)
    with_steps = bl.solve(model, backend="direct")
    monkeypatch.setattr(upper_newton, "LARGEST", 0)
    without = bl.solve(model, backend="direct")
    assert with_steps.status == without.status == "converged"
    assert pytest.approx(without.F, rel=1e-6) == with_steps.F
    assert with_steps.iterations < 0.8 * without.iterations


def test_runs_are_the_same_again() -> None:
    first, again = (bl.solve(fit(5, 12), backend="direct") for _ in range(2))
    assert first.F == again.F
    assert first.counts == again.counts
