"""Descents of followers in columns: what SLSQP does not take as it is."""

from __future__ import annotations

import numpy as np

import bilevelpy as bl
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.programs.slsqp import independent
from bilevelpy.reductions.rows import system

# Entropic transport: one of the six balances follows from the others.
TRANSPORT = """dim n = 3; param C[n, n], p[n];
upper { var x in [0, 1]; minimize x; }
lower f { var G[n, n] in [0, inf];
  minimize sum(C * G) + x*G[1, 1] - 0.5*sum(entropy(G));
  subject to row[i in n]: sum(G[i, j] for j in n) == p[i];
    column[j in n]: sum(G[i, j] for i in n) == p[j]; }"""


def test_balances_of_which_one_follows_from_the_others() -> None:
    rng = np.random.default_rng(5)
    C, p = rng.uniform(1, 3, (3, 3)), np.array([0.3, 0.3, 0.4])
    kernel, u = np.exp(-2.0 * C), np.ones(3)
    for _ in range(500):  # Sinkhorn
        v = p / (kernel.T @ u)
        u = p / (kernel @ v)
    best = (u[:, None] * kernel * v).ravel()
    move = rng.normal(size=(3, 3))
    move -= move.mean(0)
    move -= move.mean(1)[:, None]
    start = np.concatenate([[0.0], best + 1e-3 * move.ravel()])
    program = follower_program(system(bl.parse(TRANSPORT, C=C, p=p).bound), 0, start).reduced()
    found = program.descend(start)
    assert found is not None
    assert program.violation(found) < 1e-9
    assert np.allclose(found[1:], best, atol=1e-6)


def test_independent_rows() -> None:
    rows = np.array([[1.0, 1, 0], [0, 0, 2], [1e6, 1e6, 1e6], [0, 0, 0]])
    kept = independent(rows)
    assert len(kept) == 2
    assert np.linalg.matrix_rank(rows[kept] / 1e6, tol=1e-9) == 2
    assert independent(np.zeros((0, 3))).size == 0
