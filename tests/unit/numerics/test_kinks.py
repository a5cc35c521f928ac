"""Kinks of F along the response where several variables of the leader lie at one each."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import bilevelpy as bl
from bilevelpy.backends.implicit.aid import AID, AIDOptions
from bilevelpy.numerics.certificate.examine import certify
from bilevelpy.numerics.lower.krylov import newton_cg
from bilevelpy.numerics.upper.kink import shortest_in_hull
from bilevelpy.numerics.upper.wolfe import search
from bilevelpy.options import SolveOptions
from bilevelpy.solving import oracle
from tests.oracles import AutoOracle, box

# The attack moves samples in a box: its worst case adds a norm 1 to the margin.
ATTACKS = """dim n, p; param X[n, p], y[n];
upper { var w[p] start 0.1, b;
  minimize mean(logistic(-y[i] * (sum(attack.Z[i, j] * w[j] for j in p) + b)) for i in n)
    + 0.01 * sumsq(w); }
lower attack { var Z[n, p] in [X - 0.3, X + 0.3];
  maximize mean(logistic(-y[i] * (sum(Z[i, j] * w[j] for j in p) + b)) for i in n); }"""


def robust(X: np.ndarray, y: np.ndarray) -> float:
    """The robust loss, by its closed form."""
    w, b = cp.Variable(X.shape[1]), cp.Variable()
    margin = cp.multiply(y, X @ w + b) - 0.3 * cp.norm1(w)
    loss = cp.sum(cp.logistic(-margin)) / len(y) + 0.01 * cp.sum_squares(w)
    problem = cp.Problem(cp.Minimize(loss))
    problem.solve(solver="CLARABEL")
    return float(problem.value)


@pytest.mark.parametrize(("n", "p", "seed"), [(80, 8, 20), (200, 10, 0)])
def test_weights_that_attacks_hold_at_0(n: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, true = rng.normal(size=(n, p)), rng.normal(size=p)
    y = np.where(X @ true + rng.normal(size=n) > 0, 1.0, -1.0)
    result = bl.solve(bl.parse(ATTACKS, X=X, y=y), backend="direct", time_limit=60, progress=False)
    assert result.success
    assert pytest.approx(robust(X, y), rel=1e-6) == result.F


def test_slopes_without_curvature_reach_their_bounds_at_once() -> None:
    # Gradients of size 1e-4 in a box of width 0.6: no length of them is the right one.
    m = 200
    slope = torch.from_numpy(np.random.default_rng(0).normal(size=m)) * 1e-4
    o = AutoOracle(
        lambda x, y: y.sum(),
        lambda x, y: slope @ y - 1e-6 * (y**2).sum(),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(m, dtype=torch.float64),
        domain_y=box(m, -0.3, 0.3),
    )
    found = newton_cg(o, o.x0, o.y0, tol=1e-12)
    assert found.ended == "reached"
    assert torch.equal(found.y, -0.3 * torch.sign(slope))
    assert found.iterations <= 5


# y = max(u_1, 0) about there: Phi = -u_2 - u_1 + a y. On the edge of the ball u_2 = 2 - u_1^2 / 4.
EDGE = """upper {{ var u[2] in ball(2); minimize {F}; }}
lower l {{ var y in [0, 1]; minimize (y - u[1])^2; }}"""


def kind_at(F: str, u1: float) -> str:
    functions = oracle(bl.parse(EDGE.format(F=F)))
    x = torch.tensor([u1, (4.0 - u1 * u1) ** 0.5], dtype=torch.float64)
    y = torch.tensor([max(u1, 0.0)], dtype=torch.float64)
    rng = torch.Generator().manual_seed(1)
    return certify(functions, x, y, None, SolveOptions(), rng).kind


@pytest.mark.parametrize("u1", [0.0, 1e-10, 1e-8, 1e-7, 1e-6])
def test_a_minimum_on_the_edge_of_a_ball_that_is_smooth_from_one_side(u1: float) -> None:
    # To the right Phi = -2 + u_1^2 / 4, to the left it rises.
    assert kind_at("-sum(u) + y", u1) == "local"
    assert kind_at("-u[2] + y", -u1) == "local"


@pytest.mark.parametrize("u1", [0.0, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5])
def test_what_falls_behind_the_kink_is_no_minimum(u1: float) -> None:
    # The same from the one side, and behind it Phi falls.
    assert kind_at("u[1] - u[2] - y", u1) == "none"
    assert kind_at("-u[2] - y", -u1) == "none"
    # Smooth points of the edge that are no minima.
    assert kind_at("-sum(u) + y", 0.1 + u1) == "none"
    assert kind_at("-sum(u) + y", -0.1 - u1) == "none"


@pytest.mark.parametrize("backend", ["direct", "aid"])
def test_a_solve_that_ends_beside_such_a_kink(backend: str) -> None:
    model = bl.parse(EDGE.format(F="-sum(u) + y"))
    result = bl.solve(model, backend=backend, progress=False)
    assert result.status == "converged"
    assert pytest.approx(-2.0, abs=1e-9) == result.F


def test_a_wrong_hypergradient_is_not_taken_for_a_kink() -> None:
    class Wrong(AutoOracle):
        """F_x without its part along u_1, in which F falls."""

        def _gF(self, x, y):
            F_x, F_y = super()._gF(x, y)
            return F_x * torch.tensor([0.0, 1.0], dtype=torch.float64), F_y

    o = Wrong(
        lambda x, y: (x[0] - 1.0) ** 2 + x[1] ** 2 + 0.0 * y.sum(),
        lambda x, y: ((y - x[0]) ** 2).sum(),
        torch.tensor([0.5, 1.0], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
    x, y = torch.tensor([0.0, 0.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    rng = torch.Generator().manual_seed(1)
    found = certify(o, x, y, None, SolveOptions(), rng)
    assert found.kind == "none"
    assert any("contradicts the hypergradient" in r for r in found.reasons), found.reasons


def test_searches_end_before_a_response_that_jumps() -> None:
    # The minimiser near -1 of y^4/4 - y^2/2 - xy is gone beyond x = 2 / sqrt(27), and the other one
    # is worse to the leader: no bracket that is shorter holds a minimiser of F.
    o = AutoOracle(
        lambda x, y: -x.sum() + 4.0 * (1.0 + torch.tanh(20.0 * y)).sum(),
        lambda x, y: (y**4 / 4 - y**2 / 2).sum() - x @ y,
        torch.tensor([0.1], dtype=torch.float64),
        torch.tensor([-1.0], dtype=torch.float64),
    )
    response = AID().response(o, AIDOptions())
    response.curved = True
    start = response.differentiate(response.evaluate(o.x0, None, o.y0), None)
    solves = o.counts.lower_solves
    way = torch.ones(1, dtype=torch.float64)
    found = search(response, start, way, extent=1.0, remember=lambda _: None)
    assert found.point is not None
    assert not found.stuck
    assert 0.15 < float(found.point.x) < 2 / np.sqrt(27)
    assert float(found.point.y) < -0.5
    assert o.counts.lower_solves - solves <= 8


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 1), (4, 6), (12, 5), (9, 60), (40, 40)])
@pytest.mark.parametrize("shift", [0.0, 0.2, 5.0])
def test_the_shortest_vector_in_a_hull(rows: int, columns: int, shift: float) -> None:
    """``g'h >= h'h`` for all rows g, and h in their hull, is what makes h the shortest."""
    for scale in (1e-9, 1.0, 1e9):
        rng = np.random.default_rng(rows + columns)
        G = torch.from_numpy(scale * (rng.standard_normal((rows, columns)) + shift))
        h = shortest_in_hull(G)
        assert float((G @ h - h @ h).min()) >= -1e-9 * float((G @ G.T).max())
        weights = np.vstack([G.numpy().T / scale, np.ones(rows)])
        _, off = nnls(weights, np.append(h.numpy() / scale, 1.0))
        assert off <= 1e-8


def test_no_vector_is_shorter_than_none() -> None:
    assert shortest_in_hull(torch.zeros(3, 2, dtype=torch.float64)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("x", [0.6, 0.625])
def test_no_slope_is_claimed_where_the_response_lies_on_a_kink_between_variables(x: float) -> None:
    # y = (1.1, 1.1) for x >= 0.2: Phi = 0.0025 + (x - 0.6)^2, but derivatives of f know no face.
    text = """upper { var x in [0.1, 1]; minimize (y[1] - 1.05)^2 + (x - 0.6)^2; }
    lower f { var y[2]; minimize (y[1] - 1.2)^2 + (y[2] - 1)^2 + x * abs(y[1] - y[2]); }"""
    model = bl.parse(text)
    found = certify(
        oracle(model),
        torch.tensor([x], dtype=torch.float64),
        torch.tensor([1.1, 1.1 + 1e-12], dtype=torch.float64),
        bl.analyze(model),
        SolveOptions(),
        torch.Generator().manual_seed(0),
    )
    assert found.kind == "none"
    assert "lies on a kink" in found.reasons[0]
