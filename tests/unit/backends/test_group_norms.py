"""Norms of groups below: closed forms, NumPy and CVXPY, and what is refused.

With an orthonormal design the group lasso has the response ``y_g = (1 - w_g / |c_g|)_+ c_g``,
``c = A'b`` (M. Yuan and Y. Lin, Model selection and estimation in regression with grouped
variables, JRSS B 68, 2006, equation 2.4).
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.group_norms import group_parts
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.lower.group_newton import minimise
from bilevelpy.numerics.lower.grouped import GroupedOracle, SupportCurvature, grouped_oracle

Array = np.ndarray[Any, np.dtype[np.float64]]

MODEL = """
model groups;
dim n, m, G, k;
param A[n, G, k], b[n], Av[m, G, k], bv[m];
upper { var t[G] in [-8, 3] start -2; minimize %(above)s; }
lower fit { var w[G, k]; var c; minimize %(below)s; }
"""
RESIDUALS = "(sum(A[i, g, j] * w[g, j] for g in G, j in k) + c - b[i])"
ABOVE = "mean((sum(Av[i, g, j] * w[g, j] for g in G, j in k) + c - bv[i])^2 for i in m)"
PENALTY = "sum(exp(t[g]) * norm2(w[g, j] for j in k) for g in G)"
BELOW = {
    "group lasso": f"0.5 * mean({RESIDUALS}^2 for i in n) + {PENALTY}",
    "sparse group lasso": f"0.5 * mean({RESIDUALS}^2 for i in n) + {PENALTY} + 0.1 * norm1(w)",
    "with a ridge": f"0.5 * mean({RESIDUALS}^2 for i in n) + {PENALTY} + 0.05 * sumsq(w)",
    "logistic": f"mean(logistic(-b[i] * ({RESIDUALS} + b[i])) for i in n) + {PENALTY}",
}


def data(seed: int, n: int = 40, m: int = 30, G: int = 6, k: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    truth = np.zeros((G, k))
    truth[: G // 2] = rng.normal(size=(G // 2, k))
    A, Av = rng.normal(size=(n, G, k)), rng.normal(size=(m, G, k))
    b = np.einsum("igj,gj->i", A, truth) + rng.normal(size=n)
    bv = np.einsum("igj,gj->i", Av, truth) + rng.normal(size=m)
    return {"A": A, "b": b, "Av": Av, "bv": bv}


def model(kind: str, seed: int = 0) -> tuple[bl.Model, dict[str, Array]]:
    given = data(seed)
    if kind == "logistic":
        given |= {"b": np.sign(given["b"]), "bv": np.sign(given["bv"])}
    return bl.parse(MODEL % {"above": ABOVE, "below": BELOW[kind]}, data=given), given


def grouped(found: bl.Model) -> GroupedOracle:
    oracle: Any = grouped_oracle(TorchOracle(found.bound))
    assert isinstance(oracle, GroupedOracle)
    return oracle


def by_cvxpy(kind: str, given: dict[str, Array], t: Array) -> Array:
    n, G, k = given["A"].shape
    w, c = cp.Variable((G, k)), cp.Variable()
    z = given["A"].reshape(n, -1) @ cp.reshape(w, (G * k,), order="C") + c
    f = cp.sum_squares(z - given["b"]) / (2 * n)
    if kind == "logistic":
        f = cp.sum(cp.logistic(cp.multiply(-given["b"], z))) / n
    f = f + np.exp(t) @ cp.norm(w, 2, axis=1)
    if kind == "sparse group lasso":
        f = f + 0.1 * cp.sum(cp.abs(w))
    if kind == "with a ridge":
        f = f + 0.05 * cp.sum_squares(w)
    cp.Problem(cp.Minimize(f)).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    return np.asarray(w.value)


@pytest.mark.parametrize("kind", BELOW)
@pytest.mark.parametrize("seed", [0, 1])
def test_responses_are_those_of_cvxpy(kind: str, seed: int) -> None:
    found, given = model(kind, seed)
    o = grouped(found)
    t = torch.from_numpy(np.random.default_rng(seed).uniform(-4.0, 0.5, size=o.n))
    answer = minimise(o, t, o.y0, SupportCurvature())
    assert answer.ended == "reached"
    w = answer.y.numpy()[:18].reshape(6, 3)
    theirs = by_cvxpy(kind, given, t.numpy())
    np.testing.assert_allclose(w, theirs, atol=1e-4)  # the conic solver's accuracy
    assert (answer.y == 0.0).any() or kind == "with a ridge"


@pytest.mark.parametrize("kind", BELOW)
def test_hypergradients_are_differences(kind: str) -> None:
    o = grouped(model(kind)[0])
    t = torch.from_numpy(np.random.default_rng(5).uniform(-4.0, -0.5, size=o.n))
    d = torch.from_numpy(np.random.default_rng(6).normal(size=o.n))
    answer = Resolver(o, t, o.y0, torch.Generator().manual_seed(0)).answer(t, o.y0)
    assert answer is not None

    def phi(step: float) -> float:
        x = t + step * d
        y = minimise(o, x, answer.lower.y, SupportCurvature(), tol=1e-13).y
        value: float = o.F(x, y)
        return value

    slope = (phi(1e-5) - phi(-1e-5)) / 2e-5
    assert float(answer.gradient @ d) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_orthonormal_design() -> None:
    rng = np.random.default_rng(2)
    A = np.linalg.qr(rng.normal(size=(20, 6)))[0]
    c = np.array([3.0, 0.0, 4.0, 0.3, 0.0, 0.4])  # norms 5 and 0.5
    text = """
    model orthonormal;
    dim n, p;
    param A[n, p], b[n], first[p], second[p], target[p];
    upper { var s in [-5, 5]; minimize sum((w - target)^2) / 2; }
    lower fit { var w[p];
      minimize sum((A @ w - b)^2) / 2 + exp(s) * (norm2(first * w) + norm2(second * w)); }
    """
    half = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    given = {"A": A, "b": A @ c, "first": half, "second": 1 - half, "target": 0.4 * half * c}
    found = bl.parse(text, data=given)
    o = grouped(found)
    answer = minimise(o, torch.zeros(1, dtype=torch.float64), o.y0, SupportCurvature())
    np.testing.assert_allclose(answer.y.numpy(), (1 - 1 / 5) * half * c, atol=1e-12)
    result = bl.solve(found)
    assert result.status == "converged"
    assert result.decision.chosen == "direct"
    assert float(result["s"]) == pytest.approx(np.log(3.0), abs=1e-6)  # 1 - w / 5 = 0.4
    assert pytest.approx(0.0, abs=1e-12) == result.F


def test_a_start_in_other_groups_gives_the_same_response() -> None:
    o = grouped(model("sparse group lasso")[0])
    x = torch.full((o.n,), -1.0, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    first = minimise(o, x, o.y0, SupportCurvature())
    for _ in range(3):
        start = 10.0 * torch.randn(o.m, generator=rng, dtype=torch.float64)
        again = minimise(o, x, start, SupportCurvature())
        # Steps are measured against the largest y that was met, some 45 here.
        torch.testing.assert_close(again.y, first.y, atol=45e-9, rtol=0.0)
        assert torch.equal(again.y == 0.0, first.y == 0.0)


@pytest.mark.parametrize("kind", BELOW)
def test_solved_and_certified(kind: str) -> None:
    found, given = model(kind, seed=3)
    result = bl.solve(found)
    assert result.status == "converged", result.message
    assert result.certificate is not None
    assert result.certificate.kind == "local"
    t, w = np.asarray(result["t"]), np.asarray(result["w"])
    np.testing.assert_allclose(w, by_cvxpy(kind, given, t), atol=1e-4)


def test_units_do_not_matter() -> None:
    text = """
    model units;
    dim n, k;
    param A[n, k], B[n, k], b[n];
    upper { var t[2] in [-20, 20];
      minimize mean((sum(A[i, j] * w[j] + B[i, j] * v[j] for j in k) - b[i])^2
        for i in n where i > 20); }
    lower fit { var w[k]; var v[k];
      minimize mean((sum(A[i, j] * w[j] + B[i, j] * v[j] for j in k) - b[i])^2
        for i in n where i <= 20)
        + exp(t[1]) * norm2(w) + exp(t[2]) * norm2(v); }
    """
    rng = np.random.default_rng(7)
    A, B = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    b = A @ rng.normal(size=3) + B @ rng.normal(size=3) + 0.5 * rng.normal(size=40)
    values = []
    for unit in (1.0, 1e5):
        start = [-2.0, -2.0 + np.log(unit)]
        found = bl.parse(text, data={"A": A, "B": unit * B, "b": b})
        result = bl.solve(found, start={"t": np.array(start)})
        assert result.status == "converged", result.message
        values.append(result.F)
    assert values[0] == pytest.approx(values[1], rel=1e-6)


REFUSED = {
    "two groups share a variable": "norm2(w) + norm2(w[j] for j in k where j > 1)",
    "sums of variables": "norm2(M @ w) + norm2(v)",
    "depends on lower variables": "norm2(w) * (1 + v[1]^2) + norm2(v)",
    "inside another": "norm2(abs(w)) + norm2(v)",
}


@pytest.mark.parametrize("why", REFUSED)
def test_other_norms_are_refused(why: str) -> None:
    text = f"""
    model refused;
    dim k;
    param M[k, k];
    upper {{ var t; minimize t^2 + sum(w) + sum(v); }}
    lower fit {{ var w[k]; var v[k]; minimize sumsq(w - t) + sumsq(v) + {REFUSED[why]}; }}
    """
    found = bl.parse(text, data={"M": np.ones((3, 3))})
    with pytest.raises(bl.BackendError, match=why):
        group_parts(TorchOracle(found.bound))


def test_groups_in_boxes_are_refused_with_the_place() -> None:
    text = """
    model boxed;
    dim k;
    upper { var t; minimize t^2 + sum(w); }
    lower fit { var w[k] in [-1, 1]; minimize sumsq(w - t) + norm2(w); }
    """
    found = bl.parse(text, data={"k": 3})
    rejected = bl.dispatch(bl.analyze(found)).rejected["direct"]
    assert "norms of groups of free variables" in rejected
    assert ":5" in rejected
