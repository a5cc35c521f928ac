"""Interdiction of a knapsack: bounds by dynamic programming over stages, against enumeration."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.adversaries.packing import Packing
from bilevelpy.backends.exact.adversaries.packing_tree import PackingTree
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import system
from bilevelpy.system.deadline import TooLong, until

pytest.importorskip("pyscipopt")

# A binary takes items away, opens them or moves their prices; some are free, some have no weight.
MODEL = """
dim n, m;
param w[m], p[m], u[m], q[m, n], T[m, n], O[m, n], h[n], a[n], d[n], b, most, least;
upper {
  var x[n] in binary;
  minimize dot(h, x) + sum(p[j] * y[j] for j in m) + sum(q[j, i] * x[i] * y[j] for j in m, i in n);
  subject to budget: dot(a, x) <= b; other: dot(d, x) <= most; number: sum(x) >= least;
}
lower f {
  var y[m] in integers(0, 3);
  maximize sum(p[j] * y[j] for j in m) + sum(q[j, i] * x[i] * y[j] for j in m, i in n);
  subject to
    cap: dot(w, y) <= 12;
    left[j in m]: y[j] <= u[j] * (1 - sum(T[j, i] * x[i] for i in n)
        - sum(O[j, i] * (1 - x[i]) for i in n));
}
"""
Y = np.array(list(itertools.product(range(4), repeat=5)), dtype=float)
X = np.array(list(itertools.product((0, 1), repeat=4)), dtype=float)


def instance(seed: int, real: bool) -> tuple[dict, float]:
    """Data, and the least F by enumeration."""
    rng = np.random.default_rng(seed)
    w, p, u = rng.integers(0, 8, 5), rng.integers(-2, 15, 5), rng.integers(1, 4, 5)
    h, a, d = rng.integers(-5, 6, 4), rng.integers(0, 8, 4), rng.integers(-3, 4, 4)
    unit = np.eye(4)[rng.integers(0, 4, 5)]
    opens, free = rng.random((5, 1)) < 0.4, rng.random((5, 1)) < 0.2
    q = unit * ~free * rng.integers(-4, 5, (5, 1)) * (rng.random((5, 1)) < 0.4)
    if real:
        p, a = p + rng.random(5), a + rng.random(4)
    taken, opened = unit * ~opens * ~free, unit * opens * ~free
    b, most, least = a.sum() / 2, 2, int(rng.integers(0, 4))
    best = math.inf
    for x in X[(X @ a <= b) & (X @ d <= most) & (X.sum(axis=1) >= least)]:
        there = u * (1 - taken @ x - opened @ (1 - x))
        mine = Y[(Y @ w <= 12) & (there >= Y).all(axis=1)]
        best = min(best, float(h @ x + (mine @ (p + q @ x)).max()))
    data = {
        "w": w, "p": p, "u": u, "q": q, "T": taken, "O": opened, "h": h, "a": a, "d": d, "b": b,
        "most": most, "least": least,
    }  # fmt: skip
    return data, best


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_stages_end_at_the_optimum(seed: int, real: bool) -> None:
    data, best = instance(seed, real)
    made = separate(lift(system(bl.parse(MODEL, data=data).bound)))
    packing = Packing.of(made)
    assert packing is not None
    found = PackingTree(made, packing, lambda: Limits(30.0), Progress()).solve()
    assert found.status == ("optimal" if math.isfinite(best) else "infeasible")
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert found.bound == pytest.approx(best, abs=1e-4)


KNAPSACK = """
dim n;
param w[n], p[n], c[n], b, room;
upper { var x[n] in binary; minimize dot(p, y); subject to budget: dot(c, x) <= b; }
lower f {
  var y[n] in binary;
  maximize dot(p, y);
  subject to cap: dot(w, y) <= room; off[i in n]: y[i] <= 1 - x[i];
}
"""


def test_sixty_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of the table as it is, and of one with few budgets, coarse costs and few nodes that
    wait: each is a bound, and one tree ends where the other does.
    """
    rng = np.random.default_rng(3)
    w, p, c = rng.integers(1, 40, (3, 60))
    data = {"w": w, "p": p, "c": c, "b": c.sum() // 4, "room": w.sum() // 3}
    made = separate(lift(system(bl.parse(KNAPSACK, data=data).bound)))
    packing = Packing.of(made)
    assert packing is not None
    first = PackingTree(made, packing, lambda: Limits(60.0), Progress()).solve()
    assert first.status == "optimal"
    where = "bilevelpy.backends.exact.adversaries.packing_tree."
    for name, value in (("KEPT", 100_000), ("UNITS", 200), ("WORTHS", 50_000)):
        monkeypatch.setattr(where + name, value)
    state = Progress()
    again = PackingTree(made, packing, lambda: Limits(0.5), state).solve()
    assert again.bound <= first.objective <= again.objective
    assert again.bound >= 0.95 * first.objective


@pytest.mark.parametrize(
    "change",
    [
        ("dot(w, y) <= room;", "dot(w, y) <= room; also: dot(c, y) <= room;"),
        ("y[i] <= 1 - x[i];", "y[i] <= 1 - x[i] - x[1];"),
        ("minimize dot(p, y);", "minimize dot(w, y);"),
        ("var x[n] in binary;", "var x[n] in integers(0, 2);"),
        ("<= b;", "<= b; back: sum(y) >= 1;"),
    ],
)
def test_other_models_are_left_to_others(change: tuple[str, str]) -> None:
    data = {"w": [2, 3, 4], "p": [3, 4, 6], "c": [1, 1, 1], "b": 1, "room": 5}
    text = KNAPSACK.replace(*change)
    assert text != KNAPSACK
    made = separate(lift(system(bl.parse(text, data=data).bound)))
    assert Packing.of(made) is None


def test_trees_begin_with_the_start_and_end_in_time() -> None:
    """Nothing is taken away at the start: the follower packs 2 and 3. A table has a time limit."""
    data = {"w": [2, 3, 4], "p": [3, 4, 6], "c": [1, 1, 1], "b": 1, "room": 5}
    model, seen = bl.parse(KNAPSACK, data=data), []
    found = bl.solve(
        model, backend="exact", start={"x": np.zeros(3)}, callback=lambda s: seen.append(s.F)
    )
    assert seen[0] == pytest.approx(7.0)
    assert found.certificate.kind == "global"
    assert pytest.approx(6.0, abs=1e-6) == found.F
    # What is packed at the start says nothing of what is worth packing elsewhere.
    start = {"x": np.zeros(3), "y": np.array([1, 1, 0])}
    assert bl.solve(model, backend="exact", start=start).certificate.kind == "global"
    made = separate(lift(system(model.bound)))
    packing = Packing.of(made)
    assert packing is not None
    with until(time.perf_counter() - 1.0), pytest.raises(TooLong):
        PackingTree(made, packing, lambda: Limits(30.0), Progress()).solve()
