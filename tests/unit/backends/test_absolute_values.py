"""Weighted absolute values below: implicit differentiation on the support (Bertrand et al. 2020).

With orthonormal columns the lasso is a soft threshold, ``w_j = sign(b_j) max(|b_j| - t, 0)``, and
``dw_j/dt = -sign(b_j)`` on the support.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.numerics.lower.halves import HalvesSet, halves, joined, split_oracle
from bilevelpy.numerics.scaled import ScaledOracle, Units
from tests.oracles import vec

LASSO = """
model lasso;
dim n, m, p;
param X[n, p], y[n], V[m, p], v[m];
upper { var t in [-8, 3] start -2; minimize mean((V @ w - v)^2); }
lower fit { var w[p]; minimize mean((X @ w - y)^2)/2 + exp(t)*norm1(w); }
"""
THRESHOLD = """
model threshold; dim p; param b[p], c[p];
upper { var t in [0, 10] start 0.5; minimize sum((w - c)^2); }
lower fit { var w[p]; minimize sum((w - b)^2)/2 + t*norm1(w); }
"""


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def regression(n: int = 40, p: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """More columns than rows, five of which matter."""
    r = np.random.default_rng(seed)
    X, V, w = r.normal(size=(n, p)), r.normal(size=(n, p)), np.zeros(p)
    w[:5] = 2.0, -3.0, 1.5, 2.5, -1.0
    return {
        "X": X,
        "V": V,
        "y": X @ w + 0.5 * r.normal(size=n),
        "v": V @ w + 0.5 * r.normal(size=n),
    }


@pytest.mark.parametrize("backend", ["auto", "direct", "aid"])
def test_soft_threshold_in_closed_form(backend: str) -> None:
    """``F(t) = (2 - t)^2 + (1 - t)^2 + 1`` while both are in the support: ``t = 1.5`` would leave
    the second one, so t solves ``-2 (3 - t - 1) = 0`` on the first alone.
    """
    model = bl.parse(THRESHOLD, data={"b": [3.0, -1.0], "c": [1.0, 0.0]})
    result = bl.solve(model, backend=backend)
    assert result.status == "converged"
    assert float(result["t"]) == pytest.approx(2.0, abs=1e-6)
    assert np.allclose(result["w"], [1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("backend", ["direct", "aid"])
def test_lasso_with_more_columns_than_rows(backend: str) -> None:
    """The response is scikit-learn's, and no penalty nearby is better."""
    Lasso = pytest.importorskip("sklearn.linear_model").Lasso
    data = regression()

    def other(t: float) -> np.ndarray:
        fit = Lasso(alpha=np.exp(t), fit_intercept=False, tol=1e-12, max_iter=10**6)
        found: np.ndarray = fit.fit(data["X"], data["y"]).coef_
        return found

    def loss(t: float) -> float:
        return float(np.mean((data["V"] @ other(t) - data["v"]) ** 2))

    result = bl.solve(bl.parse(LASSO, data=data), backend=backend)
    assert result.status == "converged"
    t = float(result["t"])
    assert np.allclose(result["w"], other(t), atol=1e-6)
    assert loss(t) == pytest.approx(result.F, rel=1e-6)
    assert all(loss(t + d) >= result.F * (1 - 1e-9) for d in (-0.05, -0.01, 0.01, 0.05))


def test_dispatcher_takes_newton_on_the_support() -> None:
    decision = bl.dispatch(bl.analyze(bl.parse(LASSO, data=regression())))
    assert decision.chosen == "direct"
    assert "absolute values" in decision.why[0]
    assert any("support" in w for w in decision.warnings)


def test_one_penalty_per_feature_and_a_ridge() -> None:
    text = LASSO.replace("var t in [-8, 3] start -2;", "var t[p] in [-8, 3] start -2;")
    text = text.replace("exp(t)*norm1(w)", "sum(exp(t)*abs(w)) + 1e-3*sumsq(w)")
    result = bl.solve(bl.parse(text, data=regression()))
    assert result.status == "converged"
    assert result.certificate.kind == "local"
    assert result.F < 0.5  # noise alone leaves 0.25, the ridge fit more than 10


def oracle(text: str = LASSO, **data: np.ndarray):
    return solving.oracle(bl.parse(text, data=data or regression(8, 5)))


@pytest.mark.parametrize("units", [False, True])
def test_derivatives_in_halves_agree_with_differences(units: bool) -> None:
    o = oracle()
    if units:
        o = ScaledOracle(o, Units(vec(4.0), torch.full((5,), 0.5, dtype=torch.float64)))
    split = split_oracle(o, vec(-1.0), rng())
    x, z = vec(-1.0), torch.rand(10, generator=rng(), dtype=torch.float64) + 0.1
    v = torch.randn(10, generator=rng(), dtype=torch.float64)
    h = 1e-6
    g = split.grad_f(x, z)
    slope = (split.f(x, z + h * v) - split.f(x, z - h * v)) / (2 * h)
    assert float(g @ v) == pytest.approx(slope, rel=1e-6)
    bend = (split.grad_f(x, z + h * v) - split.grad_f(x, z - h * v)) / (2 * h)
    Hv, Jv = split.pullback(x, z)(v)
    assert torch.allclose(Hv, bend, atol=1e-6)
    assert torch.allclose(split.hvp(x, z)(v), Hv)
    assert torch.allclose(split.hessian(x, z) @ v, Hv)
    cross = (split.grad_f(x + h, z) - split.grad_f(x - h, z)) @ v / (2 * h)
    assert float(Jv) == pytest.approx(float(cross), rel=1e-5)
    assert float(split.cross(x, z)(v)) == pytest.approx(float(Jv))
    fall = (split.f(x + h, z) - split.f(x - h, z)) / (2 * h)
    assert float(split.grad_f_x(x, z)) == pytest.approx(fall, rel=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_and_columns_of_the_support_alone(sparse: bool) -> None:
    data: dict[str, object] = dict(regression(8, 12))
    if sparse:
        data["X"] = csr_matrix(np.where(np.abs(data["X"]) > 1, data["X"], 0.0))
    text = LASSO.replace("exp(t)*norm1(w)", "exp(t)*norm1(w) + sumsq(2*w)/2 + sum(logistic(X @ w))")
    o = oracle(text, **data)
    x, y = vec(-1.0), torch.randn(12, generator=rng(), dtype=torch.float64)
    index = torch.tensor([7, 0, 3])
    whole = torch.stack([o.hvp(x, y)(e) for e in torch.eye(12, dtype=torch.float64)])
    part = split_oracle(o, x, rng()).inner_hessian(x, halves(y), index)
    assert torch.allclose(part, whole[index][:, index])


def test_many_columns_cost_what_their_support_costs() -> None:
    """A dense Hessian of 6,000 variables would take 288 MB and 0.1 Tflop a factor."""
    result = bl.solve(bl.parse(LASSO, data=regression(60, 6000)))
    assert result.status == "converged"
    assert result.decision.chosen == "direct"
    assert 0 < np.count_nonzero(result["w"]) < 100


def test_the_set_of_halves_keeps_one_of_each_pair() -> None:
    domain: HalvesSet = split_oracle(oracle(), vec(-1.0), rng()).domain_y
    z = domain.project(vec(3.0, -1.0, 0.0, 2.0, 0.0, 1.0, 2.0, 0.0, 2.0, 0.0))
    assert joined(z).tolist() == [2.0, -2.0, 0.0, 0.0, 0.0]
    assert torch.equal(z, halves(joined(z)))
    g = torch.full((10,), -1.0, dtype=torch.float64)
    free = domain.face(z, g).free
    assert free is not None
    assert free.tolist() == [True, False, True, True, True, False, True, True, True, True]
    assert domain.projected_gradient(z, g)[[1, 5]].tolist() == [0.0, 0.0]


def test_other_kinks_are_left_to_other_methods() -> None:
    assert split_oracle(oracle(LASSO.replace("norm1(w)", "max(w)")), vec(-1.0), rng()) is None
    assert split_oracle(oracle(LASSO.replace("norm1(w)", "sumsq(w)")), vec(-1.0), rng()) is None


@pytest.mark.parametrize("start", [0.1, 2.0, 5.0])
def test_the_dead_zone_is_left(start: float) -> None:
    """``y = max(1 - x, 0)`` stands still for ``x > 1``; F is 0 at ``x = 0.6``."""
    model = bl.parse(
        f"model dead; upper {{ var x in [0, 10] start {start}; minimize (y - 0.4)^2 / 2; }}"
        "lower f { var y; minimize (y - 1)^2 / 2 + x * abs(y); }"
    )
    result = bl.solve(model, backend="direct")
    assert result.status == "converged"
    assert float(result["x"]) == pytest.approx(0.6, abs=1e-5)
    assert abs(result.F) < 1e-10


def test_a_sparse_classifier_with_more_features_than_rows() -> None:
    """From weights at which the classes are separated, losses are flat and supports are large."""
    r = np.random.default_rng(0)
    X, V, w = r.normal(size=(60, 400)), r.normal(size=(60, 400)), np.zeros(400)
    w[:4] = 2.0, -2.0, 1.5, -1.5
    data = {"X": X, "V": V, "y": np.sign(X @ w), "v": np.sign(V @ w)}
    values = []
    for start in (-7, -3, 0):
        model = bl.parse(
            "model sparse; dim n, m, p; param X[n, p], y[n], V[m, p], v[m];"
            f"upper {{ var t in [-10, 5] start {start}; minimize mean(logistic(-v * (V @ w))); }}"
            "lower f { var w[p]; minimize mean(logistic(-y * (X @ w))) + exp(t) * norm1(w); }",
            data=data,
        )
        result = bl.solve(model)
        assert result.status == "converged", result.message
        assert result.backend == "direct"
        values.append(result.F)
    assert max(values) < 0.6  # below that of w = 0, log 2
