"""Sets without bilevel feasible points, and trees that leave them out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.branch_and_cut.linking import has_tree
from bilevelpy.backends.exact.branch_and_cut.tree import solve_by_tree
from bilevelpy.backends.exact.cuts.directions import Directions
from bilevelpy.backends.exact.cuts.intersection import INSIDE, FreeSet
from bilevelpy.backends.exact.cuts.pool import Pool
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# Rows of both levels read both.
MODEL = """
dim n, m, p;
param c[n], d[m], e[m], A[p, n], B[p, m], b[p], G[n], H[m], h;
upper {
  var x[n] in integers(0, 3);
  minimize sum(c * x) + sum(d * y);
  subject to mine: sum(G * x) + sum(H * y) <= h;
}
lower f {
  var y[m] in integers(0, 3);
  minimize sum(e * y);
  subject to room: A @ x + B @ y <= b;
}
"""
X = [np.array(x, dtype=float) for x in itertools.product(range(4), repeat=3)]
Y = np.array(list(itertools.product(range(4), repeat=3)), dtype=float)


def instance(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    A, B = rng.integers(-3, 4, (2, 3)), rng.integers(-3, 5, (2, 3))
    G, H = rng.integers(-3, 4, 3), rng.integers(-3, 4, 3)
    x, y = rng.integers(0, 4, (2, 3))
    return {
        "c": rng.integers(-5, 6, 3), "d": rng.integers(-5, 6, 3), "e": rng.integers(-4, 5, 3),
        "A": A, "B": B, "b": A @ x + B @ y + rng.integers(-1, 3, 2),
        "G": G, "H": H, "h": int(G @ x + H @ y + rng.integers(-2, 3)),
    }  # fmt: skip


def responses(data: dict, x: np.ndarray) -> np.ndarray:
    """All best responses to x."""
    mine = Y[(data["A"] @ x + Y @ data["B"].T <= data["b"]).all(axis=1)]
    return mine[mine @ data["e"] == (mine @ data["e"]).min()] if len(mine) else mine


def least(data: dict) -> float:
    best = math.inf
    for x in X:
        good = responses(data, x)
        good = good[data["G"] @ x + good @ data["H"] <= data["h"]]
        best = min(best, float(data["c"] @ x + (good @ data["d"]).min(initial=math.inf)))
    return best


# Of the last ones, nodes have fixed columns that cuts must not take for fixed everywhere, or the
# best point was left out by ends that SCIP had found since (247).
@pytest.mark.parametrize("seed", [*range(9), 166, 247, 302, 328])
def test_trees_end_at_the_optimum(seed: int) -> None:
    data = instance(seed)
    made = lift(system(bl.parse(MODEL, data=data).bound))
    assert has_tree(made)
    found = solve_by_tree(made, lambda: Limits(30.0), Progress())
    assert found is not None
    assert found.status == ("optimal" if math.isfinite(least(data)) else "infeasible")
    assert found.objective == pytest.approx(least(data), abs=1e-6)
    assert found.bound == pytest.approx(least(data), abs=1e-4)


def test_real_responses_beside_whole_ones() -> None:
    """At x the follower takes y = min(2, x) and fills up with v; the leader wants v, not y."""
    model = """
    upper { var x in integers(0, 3); maximize v - y; subject to mine: 2 * y + v <= 4; }
    lower f {
      var y in integers(0, 2), v in [0, 4];
      maximize 3 * y + v;
      subject to room: 2 * y + 2 * v <= 1 + 2 * x; less: y <= x;
    }
    """
    made = lift(system(bl.parse(model).bound))
    assert has_tree(made)
    found = solve_by_tree(made, lambda: Limits(30.0), Progress())
    assert found is not None
    # v - y is 1/2, -1/2, -3/2, -1/2 at x = 0, 1, 2, 3; there is too much at the last two.
    assert found.objective == pytest.approx(-0.5, abs=1e-6)
    assert found.bound == pytest.approx(-0.5, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_sets_have_no_bilevel_feasible_point_inside(seed: int) -> None:
    data = instance(seed)
    made = lift(system(bl.parse(MODEL, data=data).bound))
    run = Followers(made, Limits)
    pool = Pool(run)
    held = 0
    for x in X[::7]:
        if not len(responses(data, x)):
            continue
        v = np.concatenate([x, np.zeros(3)])
        answer = run.solve(0, v)
        assert answer.values is not None
        cut = run.cut(0, answer.values[: v.size])
        one = FreeSet.of(*pool.formula(cut), cut.room, v.size)
        # Any worse response to x itself is inside.
        worse = [np.concatenate([x, y]) for y in Y if y @ data["e"] > answer.objective + 0.5]
        held += sum(bool((one.slopes @ w < one.ends).all()) for w in worse)
        for other in X:
            for y in responses(data, other):
                at = np.concatenate([other, y])
                assert not bool((one.slopes @ at < one.ends - 1e-9).all())
    assert held


def test_no_bilevel_feasible_point_is_inside_of_the_set_of_a_direction() -> None:
    data = instance(3)
    made = lift(system(bl.parse(MODEL, data=data).bound))
    found = Directions.of(made, 0)
    assert found is not None
    grid = [np.concatenate([x, y]) for x in X for y in responses(data, x)]
    for v in grid:
        assert not found.around(v, INSIDE)
    # Where a whole step holds and is better, the point is inside.
    cost, missed = data["e"], 0
    for x, y in itertools.product(X, Y):
        holds = bool((data["A"] @ x + data["B"] @ y <= data["b"]).all())
        steps = [np.eye(3)[j] * s for j in range(3) for s in (-1.0, 1.0) if cost[j] * s < 0.0]
        better = [y + d for d in steps if ((y + d >= 0) & (y + d <= 3)).all()]
        can = any((data["A"] @ x + data["B"] @ z <= data["b"]).all() for z in better)
        missed += holds and can and not found.around(np.concatenate([x, y]), INSIDE)
    assert not missed


def test_directions_keep_equations_and_leave_real_numbers_alone() -> None:
    text = """
    upper { var x in integers(0, 3); minimize x - a - v; }
    lower f {
      var a in integers(0, 4), b in integers(0, 4), v in [0, 2];
      minimize a + 2 * b - v;
      subject to all: a + b == 4; cap: a + v <= x + 1.5;
    }
    """
    found = Directions.of(lift(system(bl.parse(text).bound)), 0)
    assert found is not None
    # One direction alone: a up, b down; of its sides the row takes no whole values.
    assert found.limits.shape[0] == 1
    (inside,) = found.around(np.array([3.0, 1.0, 3.0, 1.0]), INSIDE)
    assert inside.steps.tolist() == pytest.approx([0.0, 1.0, 1.0])
    # a = 4 and x = 3: one more of a, and v beside it, are beyond the row.
    assert not found.around(np.array([3.0, 3.0, 1.0, 0.6]), INSIDE)
