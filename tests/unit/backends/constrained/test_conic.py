"""The backend `conic`: semidefinite lower matrices beside rows.

Known answers: the nearest matrix of a trace over the cone has the eigenvalues projected onto a
simplex; min <C, Y> over unit traces is the least eigenvalue, at its eigenvector.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.sums.streaming import make_oracle
from bilevelpy.numerics.certificate.conic import ConicCheck
from bilevelpy.numerics.cones.response import conic_adjoint, solve_conic
from bilevelpy.options import SolveOptions
from tests.unit.backends.helpers import symmetric, with_trace

Array = np.ndarray


def gradient(text: str, x: Array, **data: Array) -> tuple[float, Array]:
    """F and dF/dx at the response to x."""
    o = make_oracle(bl.parse(text, **data).bound)
    at = torch.from_numpy(np.asarray(x, dtype=float))
    found = solve_conic(o, at, o.y0)
    assert found is not None
    assert found.lower.ended == "reached"
    F, F_x, F_y = o.value_grad_F(at, found.lower.y)
    return F, (F_x - conic_adjoint(o, at, found, F_y).cross).numpy()


TRACE = """dim n; param A[n, n], B[n, n], T[n, n];
upper { var x[2] in [0.1, 9]; minimize sum((Y - T)^2); }
lower f {
  var Y[n, n] in psd;
  minimize sum((Y - A - x[1]*B)^2)/2;
  subject to total: trace(Y) == x[2]; }"""


@pytest.mark.parametrize("seed", range(3))
def test_a_trace_that_the_leader_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = {name: symmetric(rng, 4) for name in "ABT"}
    x = np.array([0.7, 1.3])

    def phi(x: Array) -> float:
        y = with_trace(data["A"] + x[0] * data["B"], x[1])
        return float(((y - data["T"]) ** 2).sum())

    F, slope = gradient(TRACE, x, **data)
    exact = [(phi(x + e) - phi(x - e)) / 2e-5 for e in 1e-5 * np.eye(2)]
    assert pytest.approx(phi(x), abs=1e-9) == F
    assert np.allclose(slope, exact, atol=1e-6)


MIXED = """dim n; param A[n, n], B[n, n], T[n, n];
upper { var x[2] in [-3, 3]; minimize sum((Y - T)^2) + sum(z^2); }
lower f {
  var Y[n, n] in psd, z[n] in [0, 1];
  minimize sum((Y - A - x[1]*B)^2)/2 + sum((z - x[2])^2)/2;
  subject to
    unit[i in n]: Y[i, i] + z[i] <= 1 + 0.2*x[1];
    joined: sum(z) + (1 + x[2])*Y[1, 2] == 0.5; }"""


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_move_beside_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = {name: symmetric(rng, 3) for name in "ABT"}
    x = np.array([0.4, 0.3])

    def phi(x: Array) -> float:
        y, z = cp.Variable((3, 3), PSD=True), cp.Variable(3)
        rows = [
            cp.diag(y) + z <= 1 + 0.2 * x[0],
            cp.sum(z) + (1 + x[1]) * y[0, 1] == 0.5,
            z >= 0,
            z <= 1,
        ]
        f = cp.sum_squares(y - data["A"] - x[0] * data["B"]) / 2 + cp.sum_squares(z - x[1]) / 2
        cp.Problem(cp.Minimize(f), rows).solve(solver=cp.CLARABEL)
        return float(((y.value - data["T"]) ** 2).sum() + (z.value**2).sum())

    F, slope = gradient(MIXED, x, **data)
    assert pytest.approx(phi(x), abs=1e-4) == F
    exact = [(phi(x + e) - phi(x - e)) / 2e-2 for e in 1e-2 * np.eye(2)]
    assert np.allclose(slope, exact, atol=2e-2)
    own = [
        (gradient(MIXED, x + e, **data)[0] - gradient(MIXED, x - e, **data)[0]) / 2e-5
        for e in 1e-5 * np.eye(2)
    ]
    assert np.allclose(slope, own, atol=1e-6)


def test_a_nearest_correlation_matrix_is_solved_and_certified() -> None:
    rng = np.random.default_rng(1)
    text = """dim n; param A[n, n], B[n, n], T[n, n];
    upper { var x in [-3, 3] start 0.2; minimize sum((Y - T)^2) + 0.01*x^2; }
    lower f { var Y[n, n] in psd; minimize sum((Y - A - x*B)^2)/2;
      subject to unit[i in n]: Y[i, i] == 1; }"""
    data = {name: symmetric(rng, 4) for name in "ABT"}
    found = bl.solve(bl.parse(text, **data), progress=False)
    assert found.backend == "conic"
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    assert np.allclose(np.diag(found["Y"]), 1.0, atol=1e-10)
    assert np.linalg.eigvalsh(found["Y"]).min() > -1e-12


def test_a_linear_follower_takes_the_least_eigenvector() -> None:
    rng = np.random.default_rng(2)
    data = {name: symmetric(rng, 3) for name in "CDT"}
    text = """dim n; param C[n, n], D[n, n], T[n, n];
    upper { var x in [-1, 1] start 0.1; minimize sum(T*Y) + 0.3*x^2; }
    lower f { var Y[n, n] in psd; minimize sum((C + x*D)*Y);
      subject to unit: trace(Y) == 1;
      assume unique; }"""
    found = bl.solve(bl.parse(text, **data), backend="conic", progress=False)

    def phi(x: float) -> float:
        v = np.linalg.eigh(data["C"] + x * data["D"])[1][:, 0]
        return float(v @ data["T"] @ v + 0.3 * x * x)

    x = float(found["x"])
    assert found.certificate is not None
    assert found.certificate.kind == "local"
    assert pytest.approx(phi(x), abs=1e-8) == found.F
    assert phi(x) <= min(phi(x + h) for h in (-1e-3, 1e-3) if abs(x + h) <= 1) + 1e-12


def test_the_certificate_refutes_what_is_wrong() -> None:
    rng = np.random.default_rng(3)
    data = {name: symmetric(rng, 3) for name in "ABT"}
    o = make_oracle(bl.parse(TRACE, **data).bound)
    x = torch.tensor([0.7, 1.3], dtype=torch.float64)
    found = solve_conic(o, x, o.y0)
    assert found is not None

    def said(y: torch.Tensor) -> str:
        seed = torch.Generator().manual_seed(0)
        certificate, _ = ConicCheck(o, x, y, None, SolveOptions(), seed, 60.0).run()
        assert certificate.kind == "none"
        return " ".join(certificate.reasons)

    assert "hypergradient" in said(found.lower.y)  # x is not stationary
    assert "rows or domains" in said(found.lower.y + 1e-3)
    off = torch.from_numpy(1.3 * np.eye(3).reshape(-1) / 3)  # feasible, and not the best
    assert "still falls" in said(off)


SHRUNK = """upper { var x in [LOW, HIGH] start FIRST; minimize (trace(Y) - SIZE*1.5)^2 + 0.01*x^2; }
lower f {
  var Y[2, 2] in psd;
  minimize sum((Y - SIZE*2*eye(2))^2);
  subject to total: trace(Y) <= x; }"""


@pytest.mark.parametrize(
    ("first", "size"), [(-0.5, 1.0), (2.0, 1e-6), (2.0, 1e6)], ids=["no response", "tiny", "huge"]
)
def test_any_start_and_any_unit(first: float, size: float) -> None:
    text = SHRUNK
    for name, value in {"LOW": -1, "HIGH": 3, "FIRST": first}.items():
        text = text.replace(name, repr(value * size))
    found = bl.solve(bl.parse(text.replace("SIZE", repr(size))), progress=False)
    assert found.status == "converged"
    # trace(Y) is x: (x - 1.5)^2 + x^2/100 is least at 1.5/1.01.
    assert found["x"] == pytest.approx(1.5 / 1.01 * size, rel=1e-6)
    assert pytest.approx(0.0225 / 1.01 * size**2, rel=1e-6) == found.F


def test_a_follower_without_a_point_at_any_x_is_told() -> None:
    text = """upper { var x in [0, 3]; minimize (Y[1, 2] - 0.7)^2 + x; }
    lower f { var Y[2, 2] in psd; minimize sum((Y - x*ones(2, 2))^2);
      subject to total: trace(Y) == -1 - x; }"""
    found = bl.solve(bl.parse(text), progress=False)
    assert found.status == "infeasible"
    assert "`total`" in found.message


def test_a_leader_without_a_bound_is_told() -> None:
    text = """upper { var x; minimize x; }
    lower f { var Y[2, 2] in psd, z; minimize sum((Y - 2*eye(2))^2) + (z - x)^2;
      subject to total: trace(Y) + z == 1; }"""
    assert bl.solve(bl.parse(text), progress=False).status == "unbounded"


def test_a_kink_beside_which_a_run_ends_is_certified() -> None:
    # Y = 0.3 x 11' + (1 - 0.6 x) I / 2 up to x = 5/3, and of rank 1 with Y_12 = 1/2 beyond.
    text = """upper { var x in [0, 3] start 1; minimize (Y[1, 2] - 0.7)^2 + 0.01*x; }
    lower f { var Y[2, 2] in psd; minimize sum((Y - 0.3*x*ones(2, 2))^2);
      subject to total: trace(Y) == 1; }"""
    found = bl.solve(bl.parse(text), progress=False)
    assert found.status == "converged"
    assert found["x"] == pytest.approx(5 / 3, abs=1e-6)
    o = make_oracle(bl.parse(text).bound)
    beside = torch.tensor(1.6, dtype=torch.float64).reshape(1)
    response = solve_conic(o, beside, o.y0)
    assert response is not None
    check = ConicCheck(
        o, beside, response.lower.y, None, SolveOptions(), torch.Generator().manual_seed(0), 9.0
    )
    assert check.run()[0].kind == "none"


@pytest.mark.parametrize("rows", ["", "subject to total: trace(Y) <= 1.2;"])
def test_functions_of_one_half_of_a_matrix(rows: str) -> None:
    # Y_12 alone stands for both entries: unique on symmetric matrices, and the same answer.
    one = "2*Y[1, 2]^2 - 2*x*Y[1, 2] + Y[1, 1]*Y[1, 2]"
    both = "Y[1, 2]^2 + Y[2, 1]^2 - x*(Y[1, 2] + Y[2, 1]) + Y[1, 1]*(Y[1, 2] + Y[2, 1])/2"
    found = []
    for middle in (one, both):
        text = f"""upper {{ var x in [0, 2] start 0.3;
          minimize (Y[1, 2] - 0.3)^2 + (Y[1, 1] - 0.5)^2 + 0.05*x + Y[2, 2]; }}
        lower f {{ var Y[2, 2] in psd; minimize (Y[1, 1] - x)^2 + {middle} + Y[2, 2]^2;
          {rows} }}"""
        found.append(bl.solve(bl.parse(text), progress=False))
    assert all(r.status == "converged" for r in found)
    assert pytest.approx(found[1].F, rel=1e-9) == found[0].F
