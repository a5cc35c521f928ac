"""A thousand followers, each a quadratic program in 20 variables under rows of its own, and 20
prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from benchmarks.large.answer import Answer, Clock, ours

HOUSES, HOURS = 1000, 20
INSTANCE = "storage: 1,000 QP followers of 20 variables and 40 rows"


def make(seed: int = 0, houses: int = HOUSES, hours: int = HOURS) -> dict[str, Any]:
    """Full matrices with eigenvalues from 1 on; batteries that some wishes overfill."""
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(houses, hours, hours)) / math.sqrt(hours)
    need = rng.uniform(8, 12, houses)
    return {
        "HOUSE": [f"h{i + 1}" for i in range(houses)],
        "Q": R @ R.transpose(0, 2, 1) + np.eye(hours),
        "wish": rng.uniform(3, 8, (houses, hours)),
        "cost": rng.uniform(0.5, 2, hours),
        "need": need,
        "full": need + rng.uniform(0, 2, houses),
        "ramp": rng.uniform(1.0, 2.5, houses),
    }


def methods(seconds: float) -> list[Callable[[], Answer]]:
    data = make()
    return [partial(ours, INSTANCE, "storage.blv", data, seconds), partial(by_hand, data, seconds)]


def by_hand(data: dict[str, Any], seconds: float) -> Answer:
    """Clarabel for every household, the adjoint of its tight rows, SLSQP above."""
    import clarabel

    clock = Clock()
    Q, wish, cost = data["Q"], data["wish"], data["cost"]
    count, k = wish.shape
    sums, steps = np.tril(np.ones((k, k))), np.eye(k)[1:] - np.eye(k)[:-1]
    rows = np.concatenate([np.ones((1, k)), sums, steps, -sums, -steps])
    sparse = sp.csc_matrix(rows)
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(len(rows) - 1)]
    uppers = [sp.csc_matrix(np.triu(q)) for q in Q]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    ramp = np.repeat(data["ramp"][:, None], k - 1, 1)
    full = np.repeat(data["full"][:, None], k, 1)
    ends = np.concatenate([data["need"][:, None], full, ramp, 0 * full, ramp], 1)
    best, evaluations = -math.inf, 0

    class Over(Exception):
        """The time is up."""

    def loss(price: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, evaluations
        evaluations += 1
        gain, slope = 0.0, np.zeros(k)
        for i in range(count):
            solver = clarabel.DefaultSolver(
                uppers[i], price - wish[i], sparse, ends[i], cones, settings
            )
            found = solver.solve()
            y, z = np.array(found.x), np.array(found.z)
            tight = rows[np.r_[True, z[1:] > 1e-7]]
            zero = np.zeros((len(tight), len(tight)))
            system = np.block([[Q[i], tight.T], [tight, zero - 1e-10 * np.eye(len(tight))]])
            u = np.linalg.solve(system, np.r_[price - cost, np.zeros(len(tight))])[:k]
            gain += float((price - cost) @ y)
            slope += y - u
        best = max(best, gain / count)
        if clock.stamp(Answer("", "", 0, 0, 0, 0)).seconds > seconds:
            raise Over
        return -gain / count, -slope / count

    ended = "converged"
    try:
        minimize(
            loss, np.full(k, 2.0), jac=True, method="SLSQP", bounds=[(0, 10)] * k,
            constraints={
                "type": "ineq", "fun": lambda x: 4 - x.mean(), "jac": lambda x: -np.ones((1, k)) / k
            },
            options={"maxiter": 200, "ftol": 1e-12},
        )  # fmt: skip
    except Over:
        ended = "out of time"
    note = f"{ended}; {evaluations} evaluations, one start; no certificate"
    return clock.stamp(Answer(INSTANCE, "Clarabel and SciPy by hand", best, math.nan, 0, 0, note))
