"""Lower levels that curve downwards: networks, solved to a minimum and followed along it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

import bilevelpy as bl
from bilevelpy.lowering.hessians import known
from bilevelpy.numerics.lower.block_curvature import curvature_of
from bilevelpy.numerics.lower.krylov import lbfgs, newton_cg
from bilevelpy.numerics.lower.newton import newton
from bilevelpy.numerics.scaled import ScaledOracle, Units

NETWORK = """
model network;
dim n, m, p, h;
param X[n, p], y[n], V[m, p], s[m], W0[p, h], b0[h], v0[h];
upper {
  var lam in [-10, 4] start -4;
  let G[i in m, j in h] = tanh(sum(V[i, k] * W[k, j] for k in p) + b[j]);
  minimize mean((sum(G[i, j] * v[j] for j in h) + c - s[i])^2 / 2 for i in m);
}
lower fit {
  var W[p, h] start W0, b[h] start b0, v[h] start v0, c start 0;
  let H[i in n, j in h] = tanh(sum(X[i, k] * W[k, j] for k in p) + b[j]);
  minimize mean((sum(H[i, j] * v[j] for j in h) + c - y[i])^2 / 2 for i in n)
    + exp(lam) * (sumsq(W) + sumsq(v)) / 2;
}
"""
P, H, N = 8, 20, 500


def data(p: int = P, h: int = H, n: int = N) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((n + 100, p))
    y = np.sin(1.5 * X[:, 0]) + X[:, 1] * X[:, 2] / 2 + 0.3 * X[:, 3] ** 2
    y += 0.3 * draw.standard_normal(n + 100)
    return {
        "X": X[:n], "y": y[:n], "V": X[n:], "s": y[n:],
        "W0": draw.standard_normal((p, h)) / p**0.5, "b0": 0.1 * draw.standard_normal(h),
        "v0": draw.standard_normal(h) / h**0.5,
    }  # fmt: skip


def values(d: dict[str, np.ndarray], lam: float, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """f and its gradient by hand."""
    X, y = d["X"], d["y"]
    p, h = d["W0"].shape
    W, b, v = theta[: p * h].reshape(p, h), theta[p * h : p * h + h], theta[p * h + h : -1]
    A = np.tanh(X @ W + b)
    r = A @ v + theta[-1] - y
    back = np.outer(r, v) * (1 - A * A) / len(y)
    w = np.exp(lam)
    gradient = [(X.T @ back + w * W).ravel(), back.sum(0), A.T @ r / len(y) + w * v, [r.mean()]]
    return r @ r / (2 * len(y)) + w * ((W**2).sum() + v @ v) / 2, np.concatenate(gradient)


@pytest.fixture(scope="module")
def oracle():
    return bl.compile(bl.parse(NETWORK, data=data()))._oracle


@pytest.mark.parametrize("dense", [False, True])
def test_a_minimum_is_reached_through_saddles_by_gradients(oracle, dense: bool) -> None:
    x, before = torch.tensor([-5.0], dtype=torch.float64), oracle.counts.as_dict()
    if dense:
        found = newton(oracle, x, oracle.y0, curvature_of(oracle))
    else:
        found = newton_cg(oracle, x, oracle.y0, tol=1e-8)
    assert found.usable
    assert found.negative_curvature or dense
    f, g = values(data(), -5.0, found.y.numpy())
    assert f == pytest.approx(found.f)
    assert np.linalg.norm(g) < 1e-7
    assert torch.linalg.eigvalsh(oracle.hessian(x, found.y)).min() > -1e-8
    # As low as what SciPy ends at, and about as many evaluations (thousands of Newton's before).
    there = scipy.optimize.minimize(
        lambda t: values(data(), -5.0, t), oracle.y0.numpy(), jac=True, method="L-BFGS-B",
        options={"maxiter": 9000, "maxfun": 20000, "gtol": 1e-8, "ftol": 1e-15, "maxcor": 20},
    )  # fmt: skip
    assert found.f < 1.05 * there.fun
    after = oracle.counts.as_dict()
    assert after["grad_f"] - before.get("grad_f", 0) < 3 * there.nfev + 1000


@pytest.mark.parametrize("unit", [1.0, 4.0])
def test_kinks_of_a_network_end_a_solve_where_nothing_is_gained(unit: float) -> None:
    plain = bl.compile(bl.parse(NETWORK.replace("tanh", "relu"), data=data(n=200)))._oracle
    same = torch.ones(plain.m, dtype=torch.float64)
    x = torch.tensor([-5.0], dtype=torch.float64)
    ends, costs = [], []
    for kinks in (True, False):
        o = ScaledOracle(plain, Units(same[:1], unit * same))
        assert o.has_kinks
        o.has_kinks = kinks
        before = o.counts.as_dict()["grad_f"]
        ends.append(newton_cg(o, x, o.domain_y.project(o.y0), tol=1e-9))
        costs.append(o.counts.as_dict()["grad_f"] - before)
    assert all(end.negative_curvature for end in ends)
    assert costs[0] < costs[1] / 2  # where every detour is a long one
    assert ends[0].f < 1.02 * ends[1].f


def test_a_slope_without_curvature_is_left_by_longer_and_longer_steps() -> None:
    text = """
    upper { var x in [0, 1]; minimize y^2 + x; }
    lower fall { var y; minimize sqrt(1 + y^2) - 2 * y + x * y; }
    """
    o = bl.compile(bl.parse(text))._oracle
    found = lbfgs(o, torch.zeros(1, dtype=torch.float64), o.y0, tol=1e-8)
    assert found.ended == "unbounded"
    assert found.iterations < 100


def test_the_penalty_of_a_network_is_found() -> None:
    d = data(4, 5, 80)
    result = bl.solve(bl.parse(NETWORK, data=d), progress=False, time_limit=60)
    assert result.success
    assert result.certificate is not None
    assert result.certificate.kind == "local"
    theta = np.concatenate([np.ravel(result[k]) for k in ("W", "b", "v", "c")])
    lam = float(result["lam"])
    assert np.linalg.norm(values(d, lam, theta)[1]) < 1e-5

    def validated(lam: float) -> float:
        """F at the minimum that SciPy finds near the result's."""
        end = scipy.optimize.minimize(
            lambda t: values(d, lam, t), theta, jac=True, method="BFGS", options={"gtol": 1e-9}
        )
        there = {"X": d["V"], "y": d["s"], "W0": d["W0"]}
        return values(there, -np.inf, end.x)[0]

    assert validated(lam) == pytest.approx(result.F, rel=1e-5)
    assert min(validated(lam + e) for e in (-0.1, -0.03, 0.03, 0.1) if lam + e > -10) > (
        result.F * (1 - 1e-6)
    )


def test_wide_products_make_a_hessian_one_by_one(oracle, monkeypatch) -> None:
    x, y = oracle.x0, oracle.y0
    assert oracle.wide
    H = oracle.hessian(x, y)
    monkeypatch.setattr(known, "WIDE", 10**9)
    assert not oracle.wide
    torch.testing.assert_close(oracle.hessian(x, y), H, rtol=1e-10, atol=1e-12)
