"""``kkt`` where the leader reads shadow prices: derivatives, ends, prices that are not unique."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.rows.priced import PricedOracle
from bilevelpy.numerics.rows.response import constrained_lower
from bilevelpy.numerics.rows.sample import RowsSampler
from tests.unit.backends.constrained.coupled import model, oracle

# Capacities; the price of power and the scarcity rents, with a cap on the price.
MARKET = """
model market;
dim g;
param c[g], q[g], top;
upper {
  var k[g] in [0, 2] start 0.6;
  minimize 5 * dual(m.balance) + 0.3 * sum(dual(m.limit)^2) + sumsq(k);
  subject to total: sum(k) <= 3.5; low: dual(m.balance) <= top;
}
lower m {
  var y[g] in [0, inf];
  minimize dot(c, y) + dot(q, y^2) / 2;
  subject to balance: sum(y) == 5; limit: y <= k + 0.5;
}
"""
# Tolls paid at the price of a link, two followers, one of whom maximises; a row with two ends.
PAIR = """
model pair;
upper {
  var x in [0, 2] start 0.3;
  var t in [0, 2] start 0.4;
  minimize (dual(a.room) - 1)^2 + (dual(b.band) + 0.5)^2 + 0.1 * (x - 1)^2 + t * dual(a.room);
}
lower a { var u; var v; minimize (u - 3)^2 + (v - 2 + t)^2; subject to room: u + v <= 2 + x; }
lower b { var w; maximize -(w - 4 * x)^2; subject to band: 1 <= w <= 2 + t; }
"""
# A strategic producer on a network: what is paid at the nodes of her plants.
GRID = """
model grid;
dim k;
dim a;
param N[k, a], d[k], c[k], q[k], cap[a], own[k];
upper {
  var bid[k] in [0, 3] start 0.2;
  maximize dot(own * dual(op.balance), g) - dot(own * c, g) - 0.5 * dot(own * q, g^2)
           - 0.01 * sumsq(bid);
  subject to fair: sum(bid) <= 0.5 * sum(own);
}
lower op {
  var g[k] in [0, 4];
  var f[a];
  minimize dot(c + own * bid, g) + dot(q, g^2) / 2 + 0.05 * sumsq(f);
  subject to balance: g + N @ f == d; up: f <= cap; down: f >= -cap;
}
"""


def market(seed: int, top: float = 100.0) -> dict[str, np.ndarray | float]:
    draw = np.random.default_rng(seed)
    return {"c": draw.uniform(1, 3, 5), "q": draw.uniform(0.5, 2, 5), "top": top}


def grid(k: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    arcs = {(i, (i + 1) % k) for i in range(k)}
    while len(arcs) < 2 * k:
        i, j = sorted(int(v) for v in draw.integers(k, size=2))
        if i != j:
            arcs.add((i, j))
    N = np.zeros((k, len(arcs)))
    for e, (i, j) in enumerate(sorted(arcs)):
        N[i, e], N[j, e] = -1.0, 1.0
    return {
        "N": N, "d": draw.uniform(0.2, 1.8, k), "c": draw.uniform(1, 4, k),
        "q": draw.uniform(0.5, 2, k), "cap": draw.uniform(0.2, 0.8, len(arcs)),
        "own": (draw.uniform(size=k) < 0.4) * 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "data"), [(MARKET, market(0)), (PAIR, {}), (GRID, grid(6))])
def test_derivatives_along_responses_agree_with_differences(text: str, data: dict) -> None:
    o = oracle(text, **data)
    assert isinstance(o, PricedOracle)
    draw = np.random.default_rng(3)
    x = o.domain_x.project(o.x0 + 0.2 * torch.from_numpy(draw.standard_normal(o.n)))
    d, h = torch.from_numpy(draw.standard_normal(o.n)), 1e-6
    at = RowsSampler(constrained_lower(o, 1e-12))
    here, up, down = at(o, x, o.y0), at(o, x + h * d, o.y0), at(o, x - h * d, o.y0)
    assert float(here.slope @ d) == pytest.approx((up.F - down.F) / (2 * h), rel=1e-5, abs=1e-7)
    change = ((up.rows - down.rows) / (2 * h)).numpy()
    assert (here.slopes @ d).numpy() == pytest.approx(change, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("text", "data"), [(MARKET, market(0)), (MARKET, market(1, 3.0)), (PAIR, {}), (GRID, grid(6))]
)
def test_ends_agree_with_exact(text: str, data: dict) -> None:
    made = model(text, **data)
    found = bl.solve(made, backend="kkt")
    proved = bl.solve(made, backend="exact", time_limit=60)
    assert found.success
    assert found.certificate.kind == "local"
    assert pytest.approx(proved.F, rel=1e-5) == found.F


def test_no_point_of_a_grid_is_better() -> None:
    """Prices by the multipliers of Clarabel at every point."""
    found = bl.solve(bl.parse(PAIR), backend="kkt")
    assert found.success
    u, v, w = cp.Variable(), cp.Variable(), cp.Variable()
    x, t = cp.Parameter(), cp.Parameter()
    rows = [u + v <= 2 + x, w >= 1, w <= 2 + t]
    cost = cp.square(u - 3) + cp.square(v - 2 + t) + cp.square(w - 4 * x)
    followers, best = cp.Problem(cp.Minimize(cost), rows), np.inf
    for a in np.linspace(0, 2, 41):
        for b in np.linspace(0, 2, 41):
            x.value, t.value = a, b
            followers.solve(solver=cp.CLARABEL)
            room, low, high = (float(r.dual_value) for r in rows)
            # The least cost falls by the room, the greatest gain of `b` rises with its roof.
            prices = -room, high - low
            F = (prices[0] - 1) ** 2 + (prices[1] + 0.5) ** 2 + 0.1 * (a - 1) ** 2 + b * prices[0]
            best = min(best, F)
    assert best + 1e-4 >= found.F
    assert best <= found.F + 0.05


def test_prices_that_are_not_unique_are_no_answer() -> None:
    """The same row twice: the price of either is anything in between."""
    text = """model twice; upper { var x in [0, 1] start 0.5; minimize (dual(f.a) + 1)^2 + x^2; }
    lower f { var y; minimize (y - 3)^2; subject to a: y <= x; b: y <= x; }"""
    found = bl.solve(bl.parse(text), backend="kkt")
    assert not found.success
    assert "not unique" in found.message
    assert found.certificate is None or found.certificate.kind == "none"
