"""What a call costs: value and gradient of small logistic problems against NumPy by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import expit, log_expit

import bilevelpy as bl
from benchmarks.measure import Row, compare, side_by_side
from bilevelpy.lowering.oracle import TorchOracle

MODEL = """
model overhead;
dim n, p;
param X[n, p], s[n];
upper { var lam[p]; minimize sumsq(lam); }
lower fit { var w[p]; minimize mean(softplus(-s * (X @ w))) + sum(exp(lam) * w^2) / 2; }
"""
CALLS = 200


def run() -> Iterator[Row]:
    for rows, columns in ((50, 2), (200, 20), (1000, 200)):
        draw = np.random.default_rng(0)
        X, s = draw.standard_normal((rows, columns)), np.sign(draw.standard_normal(rows))
        oracle = TorchOracle(bl.parse(MODEL, data={"X": X, "s": s}).bound)
        lam, w = draw.standard_normal(columns), draw.standard_normal(columns)
        x, y = torch.from_numpy(lam), torch.from_numpy(w)
        A = -s[:, None] * X

        def ours(oracle: TorchOracle = oracle, x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            for _ in range(CALLS):
                oracle.value_grad_f(x, y)

        def hand(A: np.ndarray = A, lam: np.ndarray = lam, w: np.ndarray = w) -> None:
            for _ in range(CALLS):
                z = A @ w
                ridge = np.exp(lam) * w
                float(-log_expit(-z).mean() + ridge @ w / 2)
                ridge + expit(z) @ A / len(z)

        a, b = side_by_side(ours, hand, 10, time.process_time)
        task = f"value and gradient, {rows} x {columns}"
        yield compare(task, a / CALLS, b / CALLS, "2", "NumPy by hand; the cost of one call")
