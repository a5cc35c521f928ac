"""A thousand followers, each a quadratic program in 20 variables with bounds, and 20 prices."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.large.answer import Answer, Clock, ours

HOUSES, HOURS, FUSE = 1000, 20, 4.0
INSTANCE = "charging: 1,000 QP followers of 20 variables"


def make(seed: int = 0, houses: int = HOUSES, hours: int = HOURS) -> dict[str, Any]:
    """Full matrices with eigenvalues from 1 on."""
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(houses, hours, hours)) / math.sqrt(hours)
    return {
        "HOUSE": [f"h{i + 1}" for i in range(houses)],
        "Q": R @ R.transpose(0, 2, 1) + np.eye(hours),
        "wish": rng.uniform(3, 8, (houses, hours)),
        "cost": rng.uniform(0.5, 2, hours),
    }


def methods(seconds: float) -> list[Callable[[], Answer]]:
    data = make()
    return [partial(ours, INSTANCE, "charging.blv", data, seconds), partial(by_hand, data)]


def by_hand(data: dict[str, Any]) -> Answer:
    """NumPy and SciPy: all followers at once by projected Newton, the gradient from the free parts,
    L-BFGS-B above.
    """
    clock = Clock()
    Q, wish, cost = data["Q"], data["wish"], data["cost"]
    n, k = wish.shape
    eye = np.eye(k)
    y = np.clip(wish, 0, FUSE)

    def respond(price: np.ndarray) -> np.ndarray:
        """Newton steps on the free parts, projected, halved for a follower that would lose."""
        nonlocal y
        linear = wish - price

        def f(z: np.ndarray) -> np.ndarray:
            return 0.5 * np.einsum("is,ist,it->i", z, Q, z) - (linear * z).sum(1)

        for _ in range(60):
            g = np.einsum("ist,it->is", Q, y) - linear
            held = ((y <= 0) & (g > 0)) | ((y >= FUSE) & (g < 0))
            if np.abs(np.where(held, 0, g)).max() < 1e-10:
                break
            free = ~held
            masked = np.where(free[:, :, None] & free[:, None, :], Q, eye)
            step = np.linalg.solve(masked, np.where(held, 0, g)[:, :, None])[:, :, 0]
            size, here = np.ones(n), f(y)
            for _ in range(30):
                new = np.clip(y - size[:, None] * step, 0, FUSE)
                bad = f(new) > here - 1e-4 * (g * (y - new)).sum(1) + 1e-15
                if not bad.any():
                    break
                size[bad] /= 2
            y = new
        return y

    def loss(price: np.ndarray) -> tuple[float, np.ndarray]:
        y = respond(price)
        free = (y > 0) & (y < FUSE)
        masked = np.where(free[:, :, None] & free[:, None, :], Q, eye)
        above = np.where(free, price - cost, 0.0)
        adjoint = np.linalg.solve(masked, above[:, :, None])[:, :, 0]
        gain = ((price - cost) * y).sum() / HOUSES
        return -gain, -(y - np.where(free, adjoint, 0)).sum(0) / HOUSES

    found = minimize(
        loss, np.full(k, 2.0), jac=True, method="L-BFGS-B", bounds=[(0, 10)] * k,
        options={"gtol": 1e-8, "ftol": 1e-14},
    )  # fmt: skip
    note = f"{found.nfev} evaluations; no certificate"
    return clock.stamp(
        Answer(INSTANCE, "NumPy and SciPy by hand", -found.fun, math.nan, 0, 0, note)
    )
