"""Semidefinite variables: the cone's projection, its faces, and hypergradients through them.

Formulas: R. A. Horn and C. R. Johnson, Topics in Matrix Analysis, 1991, section 6.6 (derivative of
spectral functions); N. J. Higham, Linear Algebra Appl. 103, 1988 (nearest semidefinite matrix).
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.domains import psd
from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.streaming import make_oracle
from bilevelpy.numerics.certificate.resolve import Resolver

Array = np.ndarray

NEAREST = """
model nearest "A projection on the cone, chosen by the leader";
dim n;
param A0[n, n], A1[n, n], T[n, n];
upper {
  var x in [-5, 5] start 0.3;
  minimize sum((Y - T)^2)/2 + 0.05*x^2;
}
lower fit {
  var Y[n, n] in psd;
  minimize sum((Y - A0 - x*A1)^2)/2;
}
"""


def symmetric(rng: np.random.Generator, n: int) -> Array:
    a = rng.standard_normal((n, n))
    return (a + a.T) / 2


def nearest(a: Array) -> Array:
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def cone(n: int, count: int = 1) -> ProductSet:
    return ProductSet([Block("psd", 0, count, n * n)], count * n * n)


def test_the_projection_is_the_nearest_semidefinite_matrix() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 4, 4))
    found = cone(4, 3).project(torch.from_numpy(a.reshape(-1))).reshape(3, 4, 4)
    assert np.allclose(found, [nearest(m) for m in a], atol=1e-13)
    assert cone(4, 3).contains(found.reshape(-1))


def test_the_derivative_of_the_projection_is_a_difference_quotient() -> None:
    rng = np.random.default_rng(1)
    a = torch.from_numpy(symmetric(rng, 5).reshape(-1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: psd.project(v, 5), a, eps=1e-6, atol=1e-7)


def test_equal_eigenvalues_have_a_derivative() -> None:
    # P is smooth around the identity, where eigenvectors are not.
    a = torch.eye(3, dtype=torch.float64).reshape(-1).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda v: psd.project(v, 3), a)
    assert torch.allclose(jacobian @ torch.ones(9, dtype=torch.float64), torch.ones(9).double())


def test_the_projected_gradient_vanishes_exactly_where_the_conditions_hold() -> None:
    rng = np.random.default_rng(2)
    a = symmetric(rng, 5)
    y = torch.from_numpy(nearest(a).reshape(-1))
    gradient = y - torch.from_numpy(a.reshape(-1))  # of |Y - A|^2 / 2
    domain = cone(5)
    assert domain.projected_gradient_norm(y, gradient) < 1e-12
    assert domain.projected_gradient_norm(y, -gradient) > 0.1
    face = domain.face(y, gradient)
    v = torch.from_numpy(rng.standard_normal(25))
    assert torch.allclose(face.project(face.project(v)), face.project(v), atol=1e-13)
    assert abs(float(face.project(v) @ gradient)) < 1e-12
    assert face.weak == 0


def test_a_zero_eigenvalue_without_a_price_is_a_kink() -> None:
    y = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)).reshape(-1)
    face = cone(2).face(y, torch.zeros(4, dtype=torch.float64))
    assert face.weak == 1


def model_of(seed: int, n: int = 4) -> tuple[bl.Model, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    t = symmetric(rng, n)
    data = {"A0": symmetric(rng, n), "A1": symmetric(rng, n), "T": t @ t}
    return bl.parse(NEAREST, **data), data


@pytest.mark.parametrize("seed", range(3))
def test_a_projected_response_is_certified_at_the_best_x(seed: int) -> None:
    model, d = model_of(seed)
    found = bl.solve(model)

    def phi(x: float) -> float:
        return float(((nearest(d["A0"] + x * d["A1"]) - d["T"]) ** 2).sum() / 2 + 0.05 * x * x)

    x = float(found["x"])
    assert found.backend == "direct"
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    assert pytest.approx(phi(x), rel=1e-8) == found.F
    # F has several basins here: the claim is a local one.
    assert phi(x) <= min(phi(x + h) for h in (-1e-2, -1e-4, 1e-4, 1e-2) if abs(x + h) <= 5)


WEIGHTED = """
dim n, k;
param Q[k, n, n], A[n, n], B[n, n], T[n, n];
upper { var x[2] start 0.4; minimize sum((Y - T)^2)/2 + sum(x^2)/2; }
lower fit {
  var Y[n, n] in psd;
  minimize sum((sum(Q[l, i, j]*Y[i, j] for i in n, j in n) - x[1])^2 for l in k)/2
    + sum((Y - A - x[2]*B)^2)/2;
}
"""


@pytest.mark.parametrize("seed", range(4))
def test_hypergradients_are_differences_of_cvxpy_solutions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 3, 2
    data = {
        "Q": np.array([symmetric(rng, n) for _ in range(k)]),
        **{name: symmetric(rng, n) for name in "ABT"},
    }
    o: TorchOracle = make_oracle(bl.parse(WEIGHTED, **data).bound)

    def phi(x: Array) -> float:
        y = cp.Variable((n, n), PSD=True)
        terms = [cp.square(cp.sum(cp.multiply(q, y)) - x[0]) for q in data["Q"]]
        fit = cp.sum_squares(y - data["A"] - x[1] * data["B"])
        tight = {f"tol_{t}": 1e-10 for t in ("gap_abs", "gap_rel", "feas")}
        cp.Problem(cp.Minimize((sum(terms) + fit) / 2)).solve(solver=cp.CLARABEL, **tight)
        return float(((y.value - data["T"]) ** 2).sum() / 2 + x @ x / 2)

    x0 = rng.standard_normal(2)
    at = torch.from_numpy(x0)
    solver = Resolver(o, at, o.y0, torch.Generator().manual_seed(0))
    answer = solver.answer(at, o.y0)
    assert answer is not None
    rank = np.linalg.matrix_rank(answer.lower.y.reshape(n, n).numpy(), tol=1e-9)
    assert rank < n  # the cone binds
    assert answer.value == pytest.approx(phi(x0), abs=1e-5)
    steps = 1e-2 * np.eye(2)
    exact = [(phi(x0 + e) - phi(x0 - e)) / 2e-2 for e in steps]
    assert np.allclose(answer.gradient, exact, atol=3e-3)
    for e in torch.eye(2, dtype=torch.float64):  # cvxpy has six digits; these have ten
        up, down = (solver.value(at + h * e, answer) for h in (1e-4, -1e-4))
        assert up is not None
        assert down is not None
        assert (up - down) / 2e-4 == pytest.approx(float(answer.gradient @ e), abs=1e-6)


def test_a_semidefinite_leader_moves_to_the_nearest_target() -> None:
    # The follower copies X; F = |Y - T|^2 over the cone: Y = X = P(T).
    rng = np.random.default_rng(3)
    t = symmetric(rng, 4)
    text = """dim n; param T[n, n];
    upper { var X[n, n] in psd; minimize sum((Y - T)^2); }
    lower copy { var Y[n, n]; minimize sum((Y - X)^2); }"""
    found = bl.solve(bl.parse(text, T=t))
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    assert np.allclose(found["X"], nearest(t), atol=1e-6)


def test_followers_of_a_family_have_a_matrix_each() -> None:
    rng = np.random.default_rng(4)
    a = np.array([symmetric(rng, 3) for _ in range(5)])
    text = """set K = 1..5; dim n; param A[K, n, n], T[K, n, n];
    upper { var x start 0.5; minimize sum((f.Y - T)^2); }
    lower f[k in K] {
      var Y[n, n] in psd;
      minimize sum((Y[i, j] - x*A[k, i, j])^2 for i in n, j in n); }"""
    # Y_k = x P(A_k) for x > 0: with T = 2 P(A_k) the best x is 2.
    found = bl.solve(bl.parse(text, A=a, T=2 * np.array([nearest(m) for m in a])))
    assert float(found["x"]) == pytest.approx(2.0, abs=1e-6)
    assert found.certificate is not None
    assert found.certificate.kind == "local"


def test_a_barrier_keeps_the_response_inside() -> None:
    # Y = (S + x I)^-1 in closed form.
    rng = np.random.default_rng(5)
    s = symmetric(rng, 3)
    s = s @ s + np.eye(3)
    text = """dim n; param S[n, n];
    upper { var x in [0, 10] start 1; minimize (trace(Y) - 0.5)^2; }
    lower f { var Y[n, n] in psd start eye(n);
      minimize sum(S*Y) + x*trace(Y) - logdet(Y);
      assume unique; }"""
    found = bl.solve(bl.parse(text, S=s))
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    x = float(found["x"])
    assert np.trace(np.linalg.inv(s + x * np.eye(3))) == pytest.approx(0.5, abs=1e-5)
