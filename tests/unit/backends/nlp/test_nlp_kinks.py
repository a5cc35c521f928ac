"""Piecewise linear terms below as variables and rows: hinge losses, fused lasso, quantile losses,
with coefficients that move with x in any smooth way. CVXPY knows the responses.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.followers.parametric import ParametricResponse
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.numerics.qp.two_sided import sharpened, solve_two_sided
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import system

pytest.importorskip("casadi")

MACHINE = """
dim n, m, p;
param X[n, p], y[n], V[m, p], v[m];
upper { var c in [-4, 4] start 0; minimize mean(LOSS); }
lower fit { var w[p], b; minimize sumsq(w)/2 + exp(c) * sum(max(0, 1 - y * (X @ w + b))); }
"""


def machine_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    X, V, truth = rng.normal(size=(80, 4)), rng.normal(size=(40, 4)), rng.normal(size=4)
    return {
        "X": X,
        "y": np.sign(X @ truth + rng.normal(size=80)),
        "V": V,
        "v": np.sign(V @ truth + rng.normal(size=40)),
    }


def machine(data: dict[str, np.ndarray], c: float) -> np.ndarray:
    """The validation margins of the machine that CVXPY fits."""
    w, b = cp.Variable(4), cp.Variable()
    losses = cp.sum(cp.pos(1 - cp.multiply(data["y"], data["X"] @ w + b)))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w) / 2 + np.exp(c) * losses))
    problem.solve("CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return np.asarray(data["v"] * (data["V"] @ w.value + b.value))


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("log(1 + exp(-v * (V @ w + b)))", lambda t: np.log1p(np.exp(-t)).mean()),
        ("max(0, 1 - v * (V @ w + b))", lambda t: np.maximum(0, 1 - t).mean()),
    ],
)
def test_the_weight_of_hinge_losses(text: str, loss) -> None:
    data = machine_data()
    model = bl.parse(MACHINE.replace("LOSS", text), **data)
    result = bl.solve(model, backend="nlp", time_limit=60)
    assert result.success, result.message
    assert pytest.approx(loss(machine(data, float(result["c"]))), rel=1e-5) == result.F
    assert all(loss(machine(data, c)) >= result.F - 1e-5 for c in np.linspace(-4, 4, 9))


def test_fused_lasso_with_two_weights() -> None:
    """Tibshirani and others 2005: differences of neighbours and values are pulled to zero."""
    rng = np.random.default_rng(0)
    level = np.repeat([0.0, 2.0, -1.0, 0.0], 15)
    z, target = level + rng.normal(size=60), level + rng.normal(size=60)
    model = bl.parse(
        """
        dim n;
        param z[n], target[n];
        upper { var a in [-4, 4] start 0, l in [-4, 4] start 0; minimize mean((w - target)^2); }
        lower fit { var w[n];
                    minimize sumsq(w - z)/2 + exp(l) * norm1(w)
                             + exp(a) * sum(abs(w[i+1] - w[i]) for i in n where i < 60); }
        """,
        z=z, target=target,
    )  # fmt: skip
    result = bl.solve(model, backend="nlp", time_limit=60)
    assert result.success, result.message

    def F(a: float, weight: float) -> float:
        w = cp.Variable(60)
        jumps = np.exp(a) * cp.norm1(cp.diff(w)) + np.exp(weight) * cp.norm1(w)
        cp.Problem(cp.Minimize(cp.sum_squares(w - z) / 2 + jumps)).solve("CLARABEL")
        return float(np.mean((w.value - target) ** 2))

    assert pytest.approx(F(float(result["a"]), float(result["l"])), rel=1e-4) == result.F
    assert all(F(a, s) >= result.F - 1e-4 for a in (-1, 0, 1, 2) for s in (-4, -2, 0))


MOVING = """
upper { var x[2] in [0.5, 2] start [0.8, 1.3]; minimize sin(y[1]) + x[1] * y[2]^2 + y[3]; }
lower l { var y[3] in [-1, 4];
          minimize exp(x[1]) * y[1]^2 + y[2]^2 * x[2] + y[3]^2 - y[1] * x[2]^3 - 4 * y[2]
                   - x[1] * y[3] + max(y[1] + y[2] - x[1], 0.2 * y[3]);
          subject to row: x[1]^2 * y[1] + y[2] / x[2] + y[3] <= 1.2; }
"""


def test_the_derivative_where_x_moves_every_coefficient() -> None:
    made = separate(lift(system(bl.parse(MOVING).bound)))
    assert ParametricResponse.fits(made)
    assert not JointResponse.fits(made)
    joint = ParametricResponse(made)

    def F(x: np.ndarray) -> float:
        v = made.columns.start.copy()
        v[made.upper_columns] = x
        response = joint.solve(v)
        assert response is not None
        return float(made.objective.value(response.values)[0])

    x = np.array([0.8, 1.3])
    v = made.columns.start.copy()
    v[made.upper_columns] = x
    response = joint.solve(v)
    assert response is not None
    slope = joint.gradient(made.objective, response)[0]
    differences = [(F(x + e) - F(x - e)) / 2e-5 for e in 1e-5 * np.eye(2)]
    assert slope == pytest.approx(differences, rel=1e-5)


def test_a_response_is_exact_where_its_rows_are_known() -> None:
    """min |v|^2/2 - 3.5 v1 - v2 under v1 + v2 <= 2, v >= 0: v = (2, 0)."""
    eye = np.eye(2)
    rows = np.vstack([[1.0, 1.0], eye])
    low, high = np.array([-np.inf, 0, 0]), np.array([2.0, np.inf, np.inf])
    cost = np.array([-3.5, -1.0])
    found = solve_two_sided(eye, cost, rows, low, high, 1e-5)
    exact = sharpened(eye, cost, rows, low, high, found)
    assert exact.values == pytest.approx([2.0, 0.0], abs=1e-14)
    assert exact.multipliers == pytest.approx([1.5, 0.0, -0.5], abs=1e-9)


@pytest.mark.parametrize(
    ("objective", "row", "fits"),
    [
        ("exp(x[1]) * sumsq(y)", "x[1] * y[1] + sum(y) <= exp(x[2])", True),
        ("sumsq(y - x)", "x[1]^2 <= 4", True),
        ("sumsq(y - x)", "y[1]^2 <= 4", False),
        ("sumsq(y - x)", "y[1] * y[2] <= 2", False),
        ("exp(y[1]) + sumsq(y)", "sum(y) <= 1", False),
    ],
)
def test_rows_are_affine_and_curvature_is_constant_in_the_lower_variables(
    objective: str, row: str, fits: bool
) -> None:
    text = f"""
    upper {{ var x[2] in [-4, 4]; minimize sum(x) + sum(y); }}
    lower g {{ var y[2] in [-5, 5]; minimize {objective}; subject to r: {row}; q: y[1] <= x[1]; }}
    """
    assert ParametricResponse.fits(separate(lift(system(bl.parse(text).bound)))) is fits
