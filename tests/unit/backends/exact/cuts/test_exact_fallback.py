"""Interdiction: what a follower still has where the leader takes a part of a response away."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.branch_and_cut import rounds

KNAPSACK = """
dim n;
param p[n], w[n], c[n], B, C;
upper { var x[n] in binary; minimize sum(p * y); subject to budget: sum(c * x) <= B; }
lower thief {
  var y[n] in binary;
  maximize sum(p * y);
  subject to room: sum(w * y) <= C; gone[j in n]: y[j] <= 1 - x[j];
}
"""
# Other aims than the follower's; steps of two; rows of several variables.
OTHER = """
dim n;
param p[n], w[n], q[n], c[n], C, B;
upper { var x[n] in integers(0, 2); minimize sum(q * y) + sum(c * x); subject to b: sum(x) <= B; }
lower f {
  var y[n] in integers(0, 3);
  maximize sum(p * y);
  subject to cap: sum(w * y) <= C; i[j in n]: y[j] <= 3 - 1.5 * x[j];
}
"""
MACHINES = """
dim n;
param p[n], w[n], q[n], C;
upper { var x[2] in binary; minimize sum(q * y) + 5 * x[1] + 3 * x[2]; }
lower f {
  var y[n] in integers(0, 3);
  maximize sum(p * y);
  subject to
    cap: sum(w * y) <= C;
    first: sum(y[j] for j in n where j <= 2) <= 4 - 4 * x[1];
    second: sum(y[j] for j in n where j > 2) <= 5 * (1 - x[2]);
}
"""


def best_pack(p: np.ndarray, w: np.ndarray, C: int, x: np.ndarray) -> float:
    """The follower's best, by dynamic programming."""
    best = np.zeros(C + 1)
    for value, weight, taken in zip(p, w.astype(int), x, strict=True):
        if not taken and weight <= C:
            best[weight:] = np.maximum(best[weight:], best[: C + 1 - weight] + value)
    return float(best[-1])


def test_knapsacks_of_fourteen_items_are_proved():
    """No proof in 30 s by cuts that a single blocked item switches off."""
    rng = np.random.default_rng(11)
    n = 14
    p, w, c = (rng.integers(1, 20, n).astype(float) for _ in range(3))
    B, C = int(0.35 * c.sum()), int(0.4 * w.sum())
    choices = (np.array(x) for x in itertools.product((0, 1), repeat=n))
    least = min(best_pack(p, w, C, x) for x in choices if c @ x <= B)
    result = bl.solve(bl.parse(KNAPSACK, p=p, w=w, c=c, B=B, C=C), time_limit=60)
    assert result.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-6) == result.F


@pytest.mark.parametrize("seed", range(4))
def test_steps_and_rows_of_several_variables(seed):
    rng = np.random.default_rng(seed)
    n = 4
    p, w = (rng.integers(1, 10, n).astype(float) for _ in range(2))
    q, c = rng.integers(-5, 10, n).astype(float), rng.integers(-3, 4, n).astype(float)
    C, B = float(rng.integers(3, 20)), int(rng.integers(1, n + 1))
    packs = np.array(list(itertools.product(range(4), repeat=n)), dtype=float)
    packs = packs[packs @ w <= C]

    def least(blocked, choices, price):
        found = np.inf
        for x in map(np.array, choices):
            y = packs[(blocked(packs, x) <= 1e-9).all(axis=1)]
            tied = y[y @ p >= (y @ p).max() - 1e-9]
            found = min(found, float((tied @ q).min() + price(x)))
        return found

    choices = [x for x in itertools.product(range(3), repeat=n) if sum(x) <= B]
    result = bl.solve(bl.parse(OTHER, p=p, w=w, q=q, c=c, C=C, B=B))
    assert result.certificate.kind == "global"
    assert (
        pytest.approx(least(lambda y, x: y - (3 - 1.5 * x), choices, lambda x: c @ x), abs=1e-5)
        == result.F
    )

    def off(y, x):
        both = np.stack([y[:, :2].sum(axis=1), y[:, 2:].sum(axis=1)], axis=1)
        return both - np.array([4, 5]) * (1 - x)

    result = bl.solve(bl.parse(MACHINES, p=p, w=w, q=q, C=C))
    assert result.certificate.kind == "global"
    choices = itertools.product(range(2), repeat=2)
    assert pytest.approx(least(off, choices, lambda x: x @ [5, 3]), abs=1e-5) == result.F


# A product that is too dear is not bought: the row has a product of both levels' variables.
RANKING = """
dim m, n;
param score[m, n], budget[m];
upper {
  var price[n] in integers(1, 6);
  maximize sum(price[j] * who.buy[i, j] for i in m, j in n);
}
lower who[i in m] {
  var buy[n] in binary;
  maximize sum(score[i, j] * buy[j] for j in n);
  subject to
    one: sum(buy[j] for j in n) <= 1;
    afford: sum(price[j] * buy[j] for j in n) <= budget[i];
}
"""
# Several rows send the same variable back: a customer is lost once.
CENTRES = """
dim site, town;
param near[town, site, site], weight[town];
upper {
  var x[site] in binary;
  minimize sum(weight[i] * lost[i] for i in town);
  subject to count: sum(x[j] for j in site) == 2;
}
lower rival {
  var z[site] in binary;
  var lost[town] in binary;
  maximize sum(weight[i] * lost[i] for i in town);
  subject to
    one: sum(z[k] for k in site) == 1;
    won[i in town, j in site]: lost[i] <= 1 - x[j] + sum(near[i, k, j] * z[k] for k in site);
}
"""


def best_revenue(score: np.ndarray, budget: np.ndarray) -> float:
    """The best prices, by enumeration."""
    best = 0
    for price in itertools.product(range(1, 7), repeat=score.shape[1]):
        within = [np.where(np.array(price) <= b, s, 0) for s, b in zip(score, budget, strict=True)]
        best = max(best, sum(price[s.argmax()] for s in within if s.any()))
    return best


def test_budgets_that_prices_exceed():
    rng = np.random.default_rng(3)
    m, n = 4, 2
    budget = rng.integers(1, 7, m)
    score = np.array([rng.permutation(n) + 1 for _ in range(m)])
    result = bl.solve(bl.parse(RANKING, score=score, budget=budget))
    assert result.certificate.kind == "global"
    assert pytest.approx(best_revenue(score, budget), abs=1e-6) == result.F


def test_customers_are_lost_once():
    rng = np.random.default_rng(5)
    places, homes = rng.random((6, 2)), rng.random((9, 2))
    d = np.linalg.norm(homes[:, None] - places, axis=2)
    weight = rng.integers(1, 9, 9)
    near = (d[:, :, None] < d[:, None, :]).astype(float)
    least = min(
        max(weight @ (d[:, k] < d[:, list(x)].min(axis=1)) for k in range(6))
        for x in itertools.combinations(range(6), 2)
    )
    result = bl.solve(bl.parse(CENTRES, near=near, weight=weight), time_limit=60)
    assert result.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-6) == result.F


def test_relaxations_that_do_not_end_give_cuts_too(monkeypatch):
    """After a hundredth of a second each: the points that were met will do."""
    monkeypatch.setattr(rounds, "PART", 0.01)
    monkeypatch.setattr(rounds, "SHARE", 0.0)
    rng = np.random.default_rng(8)
    m, n = 6, 2
    budget = rng.integers(1, 7, m)
    score = np.array([rng.permutation(n) + 1 for _ in range(m)])
    best = best_revenue(score, budget)
    result = bl.solve(bl.parse(RANKING, score=score, budget=budget), time_limit=60)
    assert result.certificate.kind == "global"
    assert pytest.approx(best, abs=1e-6) == result.F
