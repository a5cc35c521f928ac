"""One tree with cuts from the responses that it meets: whole followers below binaries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.branch_and_cut.linking import has_tree
from bilevelpy.backends.exact.branch_and_cut.tree import solve_by_tree
from bilevelpy.backends.exact.cuts.linear_cut import linear_cut
from bilevelpy.backends.exact.cuts.links import Links
from bilevelpy.backends.exact.cuts.pool import Pool
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# Some columns are taken away by a binary, some opened by one; the leader has an aim of her own.
MODEL = """
dim n, m, r;
param e[m], d[m], c[n], w[r, m], q[r], u[m], taken[m, n], opened[m, n], most;
upper {
  var x[n] in binary;
  minimize sum(c * x) + sum(d * y);
  subject to few: sum(x) <= most;
}
lower f {
  var y[m] in integers(0, 2);
  minimize sum(e * y);
  subject to
    room[i in r]: sum(w[i, j] * y[j] for j in m) <= q[i];
    link[j in m]: y[j] <= u[j] * (1 - sum(taken[j, i] * x[i] for i in n)
        - sum(opened[j, i] * (1 - x[i]) for i in n));
}
"""


def instance(seed: int, opposed: bool, n: int = 4, m: int = 5) -> tuple[dict, float]:
    """Data, and the least F by enumeration."""
    rng = np.random.default_rng(seed)
    e, c = rng.integers(-9, 3, m), rng.integers(-4, 5, n)
    d = -e if opposed else rng.integers(-9, 10, m)
    w, q, u = rng.integers(0, 8, (2, m)), rng.integers(5, 15, 2), rng.integers(1, 3, m)
    link, opens = rng.integers(0, n, m), rng.random(n) < 0.4
    unit = np.eye(n)[link]
    data = {
        "e": e, "d": d, "c": c, "w": w, "q": q, "u": u, "most": 2,
        "taken": unit * ~opens, "opened": unit * opens,
    }  # fmt: skip
    ys = np.array(list(itertools.product(range(3), repeat=m)))
    ys = ys[(ys @ w.T <= q).all(axis=1)]
    best = math.inf
    for x in map(np.array, itertools.product((0, 1), repeat=n)):
        if x.sum() <= 2:
            mine = ys[(ys <= u * np.where(opens[link], x[link], 1 - x[link])).all(axis=1)]
            tied = mine[mine @ e == (mine @ e).min()]
            best = min(best, float(c @ x + (tied @ d).min()))
    return data, best


@pytest.mark.parametrize("opposed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_trees_end_at_the_optimum(seed, opposed):
    data, best = instance(seed, opposed)
    made = lift(system(bl.parse(MODEL, data=data).bound))
    assert has_tree(made)
    state = Progress()
    found = solve_by_tree(made, lambda: Limits(30.0), state)
    assert found is not None
    assert found.status == "optimal"
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert found.bound == pytest.approx(best, abs=1e-4)


def test_a_model_is_proved_by_its_tree():
    data, best = instance(7, opposed=False)
    result = bl.solve(bl.parse(MODEL, data=data), time_limit=30)
    assert result.certificate.kind == "global"
    assert pytest.approx(best, abs=1e-6) == result.F


def test_rows_of_fractional_points_hold_at_best_responses():
    data, _ = instance(3, opposed=True)
    made = lift(system(bl.parse(MODEL, data=data).bound))
    run = Followers(made, Limits)
    links = Links.of(made)
    assert links is not None
    pool, rng = Pool(run), np.random.default_rng(0)
    rows = []
    for _ in range(5):
        v = rng.random(made.columns.count)
        rows += [linear_cut(pool, cut, links.harmless) for cut in links.cuts(run, v)]
    assert all(row is not None and row.paid for row in rows)
    for x in itertools.product((0.0, 1.0), repeat=4):
        v = np.zeros(made.columns.count)
        v[made.upper_columns] = x
        answer = run.solve(0, v)
        assert answer.values is not None
        assert max(row.off(answer.values[: v.size]) for row in rows) <= 1e-6


def test_where_followers_read_real_numbers_there_is_no_tree():
    whole = MODEL.replace("x[n] in binary", "x[n] in [0, 1]")
    data, _ = instance(0, opposed=False)
    assert not has_tree(lift(system(bl.parse(whole, data=data).bound)))


def test_a_response_that_cannot_fall_back_is_left_out():
    """Both share a knapsack, and another row minds what goes back."""
    shared = """
    upper { var x[2] in binary; maximize 3 * x[1] + x[2] + 4 * y[1] + y[2]; }
    lower f {
      var y[2] in binary;
      maximize 2 * y[1] + 3 * y[2];
      subject to room: 2 * y[1] + 2 * y[2] <= 4 - x[1] - 2 * x[2]; some: y[1] + y[2] >= 1;
    }
    """
    model = bl.parse(shared)
    made = lift(system(model.bound))
    assert has_tree(made)
    found = solve_by_tree(made, lambda: Limits(30.0), Progress())
    assert found is not None
    assert found.status == "optimal"
    result = bl.solve(model)
    assert result.certificate.kind == "global"
    assert pytest.approx(5.0, abs=1e-6) == result.F


def test_leaders_without_a_bound():
    model = """
    upper { var x[2] in binary; var z; minimize y[1] + z; }
    lower f {
      var y[2] in integers(0, 2);
      maximize y[1];
      subject to left: y[1] <= 2 - 2 * x[1];
    }
    """
    result = bl.solve(bl.parse(model), backend="exact", time_limit=30)
    assert result.status == "unbounded"


COVER = """
dim m, n;
param S[m, n], c[n], k;
upper { var x[n] in binary; maximize sum(c * y); subject to few: sum(x) <= k; }
lower f { var y[n] in binary; minimize sum(c * y); subject to all: S @ y >= 1; free: y + x <= 1; }
"""


@pytest.mark.parametrize("seed", range(4))
def test_covers_of_a_follower_are_hit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    S, c = (rng.random((6, 8)) < 0.4).astype(float), rng.integers(1, 10, 8).astype(float)
    S[S.sum(axis=1) == 0, 0] = 1.0
    every = np.array(list(itertools.product((0.0, 1.0), repeat=8)))
    covers = every[(every @ S.T >= 1.0).all(axis=1)]
    worst = -math.inf
    for x in every[every.sum(axis=1) <= 2]:
        left = covers[(covers @ x) == 0.0]
        worst = max(worst, (left @ c).min() if len(left) else -math.inf)
    made = lift(system(bl.parse(COVER, data={"S": S, "c": c, "k": 2}).bound))
    found = solve_by_tree(made, lambda: Limits(30.0), Progress())
    assert found is not None
    assert found.status == "optimal"
    assert -found.objective == pytest.approx(worst)
    assert -found.bound == pytest.approx(worst)
