"""First points of linear problems by steps between rows and responses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.backends.exact.points.nearest import near_responses
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

TEXT = """
dim n, p, q; param c[n], d[n], e[n], A[p, n], B[p, n], b[p], G[q, n], H[q, n], h[q];
upper { var x[n] in [0, 10]; minimize sum(c * x) + sum(d * y); subject to k: G @ x + H @ y <= h; }
lower f { var y[n] in [0, 10]; minimize sum(e * y); subject to r: A @ x + B @ y <= b; }
"""


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_first_point_meets_the_rows_of_both_levels(seed: int) -> None:
    """Of the first ten draws one (1) leads to none; that is told, and no fault."""
    rng = np.random.default_rng(seed)
    n, p, q = 20, 12, 6
    c, d, e = rng.integers(-20, 21, (3, n)).astype(float)
    A, B = rng.integers(-10, 11, (2, p, n)) * (rng.random((2, p, n)) < 0.4)
    G, H = rng.integers(-10, 11, (2, q, n)) * (rng.random((2, q, n)) < 0.4)
    x, y = 10.0 * rng.random((2, n))
    b = np.ceil(A @ x + B @ y + rng.integers(0, 10, p))
    h = np.ceil(G @ x + H @ y + rng.integers(0, 30, q))
    data = {"c": c, "d": d, "e": e, "A": A, "B": B, "b": b, "G": G, "H": H, "h": h}
    program = kkt(lift(system(bl.parse(TEXT, data=data).bound)), "a test", optimistic=True)
    found = near_responses(program, 30.0)
    assert found is not None
    x, y = found[0][:n], found[0][n : 2 * n]
    assert (G @ x + H @ y <= h + 1e-5).all()
    assert (A @ x + B @ y <= b + 1e-5).all()
    assert pytest.approx(c @ x + d @ y, abs=1e-5) == found[1]
    least = linprog(e, B, b - A @ x, bounds=[(0, 10)] * n)
    assert pytest.approx(least.fun, rel=1e-6, abs=1e-5) == e @ y


def test_other_problems_are_left_alone() -> None:
    text = """upper { var x in [0, 1]; minimize x + y; }
    lower f { var y in [0, 1]; minimize (y - x)^2; }"""
    program = kkt(lift(system(bl.parse(text).bound)), "a test", optimistic=True)
    assert near_responses(program, 1.0) is None
