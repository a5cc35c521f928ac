"""Global certificates of problems whose reduced objective is a convex quadratic."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.convex_quadratic import globally
from bilevelpy.result import Certificate

TEXT = """
dim n, m;
param A[m, m], B[m, n], Q[n, n], C[n, m], b[m], c[n], D[m, m];
upper { var x[n] in [%s]; %s (quad(x, Q) / 2 + dot(x, C @ y) + quad(y, D) / 2 + dot(c, x)); }
lower fit { var y[m]; minimize quad(y, A) / 2 - dot(y, B @ x) - dot(b, y); }
"""


def drawn(seed: int, shift: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Data, and Phi as ``z'Pz/2 + p'z`` plus a constant; its least curvature is ``shift``."""
    draw = np.random.default_rng(seed)
    n, m = 4, 6
    A = draw.standard_normal((m, m))
    A = A @ A.T + np.eye(m)
    B, C = draw.standard_normal((m, n)), draw.standard_normal((n, m))
    D = draw.standard_normal((m, m))
    D = D + D.T  # indefinite
    b, c = draw.standard_normal(m), draw.standard_normal(n)
    R, r = np.linalg.solve(A, B), np.linalg.solve(A, b)
    inner = C @ R + R.T @ C.T + R.T @ D @ R
    Q = (shift - np.linalg.eigvalsh(inner)[0]) * np.eye(n)
    data = {"A": A, "B": B, "Q": Q, "C": C, "b": b, "c": c, "D": D}
    return data, inner + Q, C @ r + R.T @ D @ r + c


def optimum(P: np.ndarray, p: np.ndarray, low: float, high: float) -> np.ndarray:
    z = cp.Variable(len(p))
    rows = [z >= max(low, -1e3), z <= min(high, 1e3)]
    cp.Problem(cp.Minimize(cp.quad_form(z, P) / 2 + p @ z), rows).solve()
    return z.value


@pytest.mark.parametrize("bounds", ["-inf, inf", "-0.3, 0.2", "0, inf"])
@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_is_proved(seed: int, bounds: str) -> None:
    data, P, p = drawn(seed, 0.5)
    result = bl.solve(bl.parse(TEXT % (bounds, "minimize"), data=data), backend="direct")
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert "convex quadratic in x and nowhere lower" in result.certificate.reasons[0]
    best = optimum(P, p, *(float(part) for part in bounds.split(",")))
    np.testing.assert_allclose(result["x"], best, atol=1e-4)
    bound = result.certificate.details["bound"]
    assert bound <= result.F
    assert bound == pytest.approx(result.F, rel=1e-6)


def test_a_maximum_is_proved_from_above() -> None:
    data, _, _ = drawn(0, 0.5)
    plain = bl.solve(bl.parse(TEXT % ("-1, 1", "minimize"), data=data), backend="direct")
    turned = {**data, **{k: -data[k] for k in "QCDc"}}
    result = bl.solve(bl.parse(TEXT % ("-1, 1", "maximize"), data=turned), backend="direct")
    assert result.certificate is not None
    assert "concave quadratic in x and nowhere higher" in result.certificate.reasons[0]
    assert result.certificate.details["bound"] >= result.F
    assert pytest.approx(-plain.F, rel=1e-9) == result.F


@pytest.mark.parametrize("shift", [-0.5, -1e-6])
def test_a_negative_curvature_leaves_it_local(shift: float) -> None:
    data, _, _ = drawn(1, shift)
    result = bl.solve(bl.parse(TEXT % ("-1, 1", "minimize"), data=data), backend="direct")
    assert result.certificate is not None
    assert result.certificate.kind == "local"


def test_a_direction_without_curvature_is_no_proof_where_f_slopes_along_it() -> None:
    model = bl.parse(
        "upper { var x[2]; minimize (x[1] + y)^2 + 1e-9 * (x[1] - x[2]); }"
        "lower f { var y; minimize (y - x[2])^2; }"
    )
    found = bl.certify(model, {"x": [0.5, -0.5], "y": -0.5})
    assert found.certificate is not None
    assert found.certificate.kind != "global"


def test_a_point_beside_the_minimum_has_a_gap() -> None:
    data, P, p = drawn(2, 0.5)
    model = bl.parse(TEXT % ("-inf, inf", "minimize"), data=data)
    oracle = TorchOracle(model.bound)
    best = np.linalg.solve(P, -p)
    known = Certificate("local", *(0.0,) * 6, None, ())
    for step, kind in ((0.0, "global"), (1e-5, "global"), (1e-2, "local")):
        x = torch.from_numpy(best + step)
        y = torch.zeros(oracle.m, dtype=torch.float64)
        y = y - torch.linalg.solve(oracle.hessian(x, y), oracle.grad_f(x, y))
        assert globally(known, oracle, x, y).kind == kind


def test_bounds_on_the_response_leave_it_local() -> None:
    text = "upper { var x in [0, 1]; minimize (x - y)^2 + x; } lower f { var y in [0, 1]; "
    result = bl.solve(bl.parse(text + "minimize (y - x)^2; }"), backend="direct")
    assert result.certificate is not None
    assert result.certificate.kind == "local"


def test_many_tasks_below_few_weights_above() -> None:
    """Ridge heads about a mean that is chosen: F is the sum of their errors elsewhere."""
    draw = np.random.default_rng(4)
    tasks, rows, width = 130, 6, 5
    names = {"A": (tasks, rows, width), "b": (tasks, rows), "V": (tasks, rows, width)}
    data = {name: draw.standard_normal(shape) for name, shape in names.items()}
    data["v"] = draw.standard_normal((tasks, rows))
    text = """dim T, r, p; param A[T, r, p], b[T, r], V[T, r, p], v[T, r];
        upper { var m[p]; minimize sum((sum(V[t, i, j] * w[t, j] for j in p) - v[t, i])^2
                                       for t in T, i in r) / T; }
        lower heads { var w[T, p]; minimize sum((sum(A[t, i, j] * w[t, j] for j in p) - b[t, i])^2
                                       for t in T, i in r) + 2 * sum((w[t, j] - m[j])^2
                                       for t in T, j in p); }"""
    result = bl.solve(bl.parse(text, data=data), backend="direct")
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    H = np.einsum("tij,tik->tjk", data["A"], data["A"]) + 2.0 * np.eye(width)
    R = 2.0 * np.linalg.inv(H)
    r = np.linalg.solve(H, np.einsum("tij,ti->tj", data["A"], data["b"])[:, :, None])[:, :, 0]
    rows_of = np.einsum("tij,tjk->tik", data["V"], R).reshape(-1, width)
    wanted = (data["v"] - np.einsum("tij,tj->ti", data["V"], r)).ravel()
    best = np.linalg.lstsq(rows_of, wanted, rcond=None)
    np.testing.assert_allclose(result["m"], best[0], rtol=1e-6)
    assert result.certificate.details["bound"] == pytest.approx(best[1][0] / tasks, rel=1e-8)


@pytest.mark.parametrize(("curvature", "kind"), [(1e-3, "global"), (-1e-8, "local")])
def test_a_curvature_that_differences_do_not_resolve_is_no_proof(
    curvature: float, kind: str
) -> None:
    text = """dim m; param c;
        upper { var x[2] in [-1, 1]; minimize sumsq(y) / m + x[1]^2 + c * x[2]^2; }
        lower f { var y[m]; minimize sumsq(y - x[1]); }"""
    oracle = TorchOracle(bl.parse(text, data={"m": 700, "c": curvature}).bound)
    known = Certificate("local", *(0.0,) * 6, None, ())
    assert globally(known, oracle, torch.zeros(2).double(), torch.zeros(700).double()).kind == kind
