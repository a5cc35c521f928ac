"""The search for better points where a proof does not end: whole numbers of a leader."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.followers import FEASIBLE, Followers, Progress
from bilevelpy.backends.exact.outcome import Limits
from bilevelpy.backends.exact.search import Search
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
