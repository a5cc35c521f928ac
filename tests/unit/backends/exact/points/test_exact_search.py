"""The search for better points where a proof does not end: whole numbers of a leader."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.points.search import Search, good_point
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")
pytest.importorskip("casadi")

INTERDICTION = """
dim n = 8;
param p[n], w[n], v[n];
upper { var x[n] in binary; minimize sum(p[i] * y[i] for i in n);
        subject to able: sum(v[i] * x[i] for i in n) <= 16; }
lower f { var y[n] in binary; maximize sum(p[i] * y[i] for i in n);
          subject to room: sum(w[i] * y[i] for i in n) <= 20; left[i in n]: y[i] + x[i] <= 1; }
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_exchanges_of_whole_numbers_lead_to_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, w, v = (rng.integers(3, 20, 8).astype(float) for _ in range(3))
    program = system(bl.parse(INTERDICTION, p=p, w=w, v=v).bound)
    every = np.array(list(itertools.product((0.0, 1.0), repeat=8)))
    packed = every[every @ w <= 20]
    least = min(float((packed[packed @ x == 0] @ p).max()) for x in every if float(x @ v) <= 16.0)
    state = Progress()
    followers = Followers(program, lambda: Limits(seconds=1.0, feasible=FEASIBLE))
    search = Search(followers, state, time.perf_counter() + 8.0, np.random.default_rng(0))
    assert search.quick is not None
    search.run([])
    assert state.best is not None
    x = state.best[program.upper_columns]
    assert float(x @ v) <= 16.0
    assert pytest.approx(least, abs=1e-6) == state.objective


def test_pairs_of_many_whole_numbers_are_drawn_not_made() -> None:
    """900,000 pairs of 950 numbers as vectors are seven gigabytes."""
    n = 950
    text = """
    dim n;
    param c[n];
    upper { var x[n] in binary; minimize sum(c * x) + y; subject to some: sum(x) >= 3; }
    lower f { var y in integers(0, 3); minimize y; subject to least: y >= x[1]; }
    """
    made = system(bl.parse(text, c=np.ones(n)).bound)
    run = Followers(made, Limits)
    state, rng = Progress(), np.random.default_rng(0)
    start = np.zeros(n + 1)
    start[:3] = start[n] = 1.0
    state.keep(start, 4.0, {0: 1.0})
    tracemalloc.start()
    try:
        Search(run, state, time.perf_counter() + 0.3, rng).run([])
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()


COUPLED = """
dim n, m;
param c[n], d[m], e[m], A[2, n], B[2, m], b[2], G[2, n], H[2, m], h[2];
upper { var x[n] in integers(0, 3); minimize sum(c * x) + sum(d * y);
        subject to read: G @ x + H @ y <= h; }
lower f { var y[m] in integers(0, 3); minimize sum(e * y); subject to r: A @ x + B @ y <= b; }
"""


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_of_the_leader_that_read_responses_are_met_step_by_step(seed: int) -> None:
    """Of 1,024 choices of the leader less than one in twenty have a response that suits her."""
    rng = np.random.default_rng(seed)
    n, m = 5, 3
    data = {k: rng.integers(-9, 10, s) for k, s in (("c", n), ("d", m), ("e", m), ("G", (2, n)))}
    data |= {"A": rng.integers(-2, 5, (2, n)), "B": rng.integers(1, 6, (2, m))}
    data |= {"H": rng.integers(-5, 6, (2, m)), "b": np.array([20, 20])}
    xs = np.array(list(itertools.product(range(4), repeat=n)))
    ys = np.array(list(itertools.product(range(4), repeat=m)))
    meets = (xs @ data["A"].T)[:, None] + (ys @ data["B"].T)[None] <= data["b"]
    costs = np.where(meets.all(axis=2), ys @ data["e"], np.inf)
    best = (costs == costs.min(axis=1, keepdims=True)) & np.isfinite(costs)
    read = (xs @ data["G"].T)[:, None] + (ys @ data["H"].T)[None]
    worst = np.where(best, (read[..., 0] + read[..., 1]), np.inf).min(axis=1)
    few = xs[np.argsort(worst)[20]]
    answer = ys[np.argmax(best[np.argsort(worst)[20]])]
    data["h"] = data["G"] @ few + data["H"] @ answer
    suits = best & (read <= data["h"]).all(axis=2)
    assert 0 < suits.any(axis=1).sum() < len(xs) / 20
    program = system(bl.parse(COUPLED, data=data).bound)
    state = Progress()
    followers = Followers(program, lambda: Limits(seconds=5.0, feasible=FEASIBLE))
    good_point(followers, state, 0, [])
    assert state.best is not None
    x, y = state.best[program.upper_columns], state.best[program.lower_columns]
    i, j = (int(np.abs(all_ - v).sum(axis=1).argmin()) for all_, v in ((xs, x), (ys, y)))
    assert suits[i, j]
    assert pytest.approx(data["c"] @ xs[i] + data["d"] @ ys[j], abs=1e-6) == state.objective
