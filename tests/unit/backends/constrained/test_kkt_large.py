"""``kkt`` with many upper variables and rows of their own: steps by exchanges, pieces, kinks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import bilevelpy as bl
from bilevelpy.backends.constrained.starts import RowsState, close
from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.numerics.cones.sequential import Kinds, Sample, Units, step_program
from bilevelpy.numerics.cones.sequential_rows import step_by_exchanges
from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.rows.piece_sample import Pieces
from bilevelpy.numerics.rows.response import constrained_lower
from bilevelpy.numerics.rows.sample import RowsSampler
from tests.unit.backends.constrained.coupled import model, oracle

# Weights of samples, of which some are wrong, on a simplex with caps.
WEIGHTS = """
model weights;
dim n;
dim p;
dim v;
param X[n, p], s[n], Xv[v, p], sv[v], cap;
upper {
  var q[n] in [0, 1] start 1 / n;
  minimize mean((Xv @ w - sv)^2);
  subject to total: sum(q) == 1; most: q <= cap;
}
lower fit {
  var w[p];
  minimize sum(q * (X @ w - s)^2) + 0.01 * sumsq(w);
  subject to size: sum(w) <= 1; least: w >= -0.2;
}
"""
# Tolls on all arcs of a network within a budget; congestion makes the flows unique.
TOLLS = """
model tolls;
dim a;
dim k;
param N[k, a], b[k], c[a], q[a], most;
upper {
  var t[a] in [0, 5] start 0.1;
  maximize dot(t, y) - 0.01 * sumsq(t);
  subject to budget: sum(t) <= most;
}
lower flow {
  var y[a] in [0, inf];
  minimize dot(c + t, y) + dot(q, y^2) / 2;
  subject to balance: N @ y == b;
}
"""
# Returns that make a portfolio look like a given one; the risk is a row that bends.
VIEWS = """
model views;
dim n;
dim s;
dim g;
param Q[n, n], S[s, n], caps[s], target[n], r[g, n], lim[g];
upper {
  var mu[n] in [-1, 1] start 0;
  minimize sumsq(y - target) + 0.001 * sumsq(mu);
  subject to views: r @ mu <= lim; risk: sumsq(y) <= 0.2;
}
lower f {
  var y[n] in [0, 1];
  minimize 3 * dot(y, Q @ y) / 2 - dot(mu, y);
  subject to full: sum(y) == 1; sector: S @ y <= caps;
}
"""


def weights(n: int = 120) -> dict[str, np.ndarray | float]:
    draw = np.random.default_rng(0)
    w = draw.uniform(0, 0.3, 6)
    X, Xv = draw.standard_normal((n, 6)), draw.standard_normal((60, 6))
    s, sv = (A @ w + 0.1 * draw.standard_normal(len(A)) for A in (X, Xv))
    s[: n // 3] = 2 * draw.standard_normal(n // 3)
    return {"X": X, "s": s, "Xv": Xv, "sv": sv, "cap": 5.0 / n}


def tolls(k: int = 20, degree: int = 4) -> dict[str, np.ndarray | float]:
    draw = np.random.default_rng(0)
    arcs = {(i, (i + 1) % k) for i in range(k)}
    while len(arcs) < k * degree:
        i, j = (int(v) for v in draw.integers(k, size=2))
        if i != j:
            arcs.add((i, j))
    N = np.zeros((k, len(arcs)))
    for e, (i, j) in enumerate(sorted(arcs)):
        N[i, e], N[j, e] = 1.0, -1.0
    b = draw.uniform(-1, 1, k)
    a = len(arcs)
    c, q = draw.uniform(1, 3, a), draw.uniform(0.2, 2, a)
    return {"N": N, "b": b - b.mean(), "c": c, "q": q, "most": 0.2 * a}


def views(n: int = 40) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    A, F = draw.standard_normal((n, n + 10)) / np.sqrt(n), 0.3 * draw.standard_normal((n, 3))
    S = np.zeros((4, n))
    S[draw.integers(4, size=n), np.arange(n)] = 1.0
    return {
        "Q": A @ A.T + F @ F.T + 0.05 * np.eye(n),
        "S": S,
        "caps": np.full(4, 0.35),
        "target": draw.dirichlet(np.full(n, 0.3)),
        "r": draw.standard_normal((6, n)) / np.sqrt(n),
        "lim": np.full(6, 0.05),
    }


def test_weights_on_a_simplex_end_as_slsqp_does() -> None:
    """The reduced problem by SciPy, with the follower and its derivative from the KKT system."""
    data = weights()
    found = bl.solve(model(WEIGHTS, **data), backend="kkt")
    assert found.success
    assert found.certificate.kind == "local"
    assert found.iterations < 150
    o = oracle(WEIGHTS, **data)
    at, n = RowsSampler(constrained_lower(o, 1e-10)), o.n

    def value(q: np.ndarray) -> tuple[float, np.ndarray]:
        one = at(o, torch.from_numpy(np.ascontiguousarray(q)), o.y0)
        return one.F, one.slope.numpy()

    best = minimize(
        value, np.full(n, 1 / n), jac=True, method="SLSQP", bounds=[(0, data["cap"])] * n,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: np.ones((1, n))},
        options={"ftol": 1e-12, "maxiter": 300},
    )  # fmt: skip
    assert best.fun + 1e-6 >= found.F


@pytest.mark.parametrize(("text", "data"), [(TOLLS, tolls(12)), (VIEWS, views(24))])
def test_kinks_of_many_variables_are_followed_to_a_certified_end(text: str, data: dict) -> None:
    found = bl.solve(model(text, **data), backend="kkt", time_limit=60)
    assert found.success
    assert found.certificate.kind == "local"


@pytest.mark.parametrize(("text", "data"), [(TOLLS, tolls(8, 3)), (VIEWS, views(15))])
def test_pieces_are_smooth_up_to_their_ends(text: str, data: dict) -> None:
    """Responses move along R, and what holds them changes behind the first end that is met."""
    o = oracle(text, **data)
    solver = constrained_lower(o, 1e-12)
    sampler = RowsSampler(solver)
    draw = np.random.default_rng(1)
    x = o.domain_x.project(o.x0 + 0.3 * torch.from_numpy(draw.standard_normal(o.n)))
    here = sampler(o, x, o.y0)
    pieces = Pieces.at(solver, here)
    at, piece = pieces.on()
    assert at.slope.numpy() == pytest.approx(here.slope.numpy(), abs=1e-9)
    d = draw.standard_normal(o.n)
    falls = piece.within.slopes @ d
    met = np.where(falls < 0, piece.within.ahead / np.where(falls < 0, -falls, 1.0), np.inf)
    first = float(met.min())
    inside = sampler(o, x + torch.from_numpy(0.9 * first * d), here.y)
    assert inside.y.numpy() == pytest.approx(here.y.numpy() + 0.9 * first * piece.R @ d, abs=1e-8)
    sides = solver.held_at(inside.x, inside.y)[0].sides
    assert np.array_equal(sides.rows, piece.sides.rows)
    assert np.array_equal(sides.bounds, piece.sides.bounds)
    beyond = sampler(o, x + torch.from_numpy(1.001 * first * d), here.y)
    sides = solver.held_at(beyond.x, beyond.y)[0].sides
    crossed = piece.crossed(np.array([int(met.argmin())]))
    assert np.array_equal(sides.rows, crossed.rows)
    assert np.array_equal(sides.bounds, crossed.bounds)
    # The second derivative of F and a row along the piece.
    weight = np.ones(len(at.rows))
    H = pieces.second(piece, weight)
    e = 0.1 * first
    up, down = (sampler(o, x + torch.from_numpy(s * e * d), here.y) for s in (1.0, -1.0))
    change = (up.slope - down.slope).numpy() + weight @ (up.slopes - down.slopes).numpy()
    assert H @ d == pytest.approx(change / (2 * e), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_steps_by_exchanges_solve_the_program_of_the_step(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n, p = 9, 6
    domain = _domain()
    x = domain.project(torch.from_numpy(0.2 * draw.standard_normal(n)))
    slopes = draw.standard_normal((p, n))
    kinds = Kinds(np.array([0, 1, 0, 0, 1, 0], bool), np.array([1, 1, 0, 0, 0, 0], bool))
    values = np.where(kinds.plain, -0.05, 0.3 * draw.standard_normal(p))
    values[1] = 0.0
    sample = Sample(
        x, x, 0.0, torch.from_numpy(draw.standard_normal(n)), torch.from_numpy(values),
        torch.from_numpy(slopes), torch.ones(p), torch.ones(p), 1.0, 0.0, False,
    )  # fmt: skip
    units = Units(0.7, 2.0, np.linalg.norm(slopes, axis=1))
    L = draw.standard_normal((n, n))
    B = L @ L.T / n + 0.1 * np.eye(n)
    for mu in (0.5, 50.0):
        other = step_program([sample], domain, kinds, units, B, mu)
        step, sides, _ = step_by_exchanges(sample, domain, kinds, units, B, mu)
        assert step.d == pytest.approx(other.d, abs=1e-6)
        assert step.left == pytest.approx(other.left, abs=1e-6)
        assert step.multipliers == pytest.approx(other.multipliers, abs=1e-4)
        again, _, _ = step_by_exchanges(sample, domain, kinds, units, B, mu, sides)
        assert again.d == pytest.approx(step.d, abs=1e-9)


def _domain() -> ProductSet:
    text = "model d; upper { var a[4] in simplex; var b[5] in [-0.3, 0.4]; minimize sum(a) + y; }"
    return oracle(text + " lower f { var y; minimize (y - sum(b))^2; }").domain_x


def test_the_verdict_is_that_of_the_best_start() -> None:
    o = oracle(TOLLS, **tolls(8, 3))
    at = RowsSampler(constrained_lower(o, 1e-10))
    here = at(o, o.x0, o.y0)
    kinds = Kinds(np.array([False]), np.array([True]))
    state = RowsState(o, 1e-6, torch.Generator(), [], kinds, (o.x0, o.y0), at, here)
    state.units = Units(1.0, 1.0, np.ones(1))
    converged = Finish(bl.Status.CONVERGED, "best")
    close(state, converged)
    state.here = at(o, o.x0 + 0.01, o.y0)
    worse = state.here.F > here.F
    close(state, Finish(bl.Status.STALLED, "other"))
    assert (state.verdict is converged) == worse


# What a transport plan with congestion pays in tariffs of the markets; the leader has no rows.
PLAN = """
model plan;
dim i;
dim j;
param c[i, j], a[i], b[j];
upper {
  var x[j] in [0, 2] start 0.1;
  maximize sum(x[l] * p[k, l] for k in i, l in j) - 0.01 * sumsq(x);
}
lower f {
  var p[i, j] in [0, inf];
  minimize sum((c[k, l] + x[l]) * p[k, l] for k in i, l in j) + 2.5 * sumsq(p);
  subject to
    rows[k in i]: sum(p[k, l] for l in j) == a[k];
    cols[l in j]: sum(p[k, l] for k in i) <= b[l];
}
"""


def test_runs_that_zigzag_across_kinks_go_from_piece_to_piece() -> None:
    draw, n = np.random.default_rng(0), 28
    a, b = draw.uniform(0.5, 1.5, (2, n))
    c = np.random.default_rng(0).uniform(0, 1, (n, n))
    found = bl.solve(model(PLAN, c=c, a=a / a.sum(), b=1.5 * b / b.sum()), backend="kkt")
    assert found.success
    assert found.iterations < 120
    assert found.F > 0.89999445
