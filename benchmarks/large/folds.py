"""A support vector machine with a box for each weight, chosen by five-fold cross-validation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.large.answer import Answer, Clock, ours
from benchmarks.measure import MODELS

ROWS, FEATURES, FOLDS = 100, 10, 5
# The grid of a user without bilevel tools: weights of the losses, one box for all weights.
WEIGHTS, BOXES = np.geomspace(0.01, 10, 13), (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)
INSTANCE = "folds: SVM, 5 folds, 100 rows, 10 boxes (breast cancer)"


def make() -> dict[str, Any]:
    """The first rows of the breast-cancer data, every fifth row a fold."""
    with np.load(MODELS / "data" / "breast_cancer.npz") as stored:
        X, y = stored["X"][:ROWS, :FEATURES].astype(float), stored["y"][:ROWS].astype(float)
    X = (X - X.mean(0)) / X.std(0)
    fold = np.arange(ROWS) % FOLDS
    parts = range(FOLDS)
    return {
        "FOLD": [str(k + 1) for k in parts],
        "X": np.stack([X[fold != k] for k in parts]),
        "y": np.stack([y[fold != k] for k in parts]),
        "V": np.stack([X[fold == k] for k in parts]),
        "z": np.stack([y[fold == k] for k in parts]),
    }


def methods(seconds: float) -> list[Callable[[], Answer]]:
    data = make()
    return [
        partial(ours, INSTANCE, "folds.blv", data, seconds),
        partial(ours, INSTANCE, "folds.blv", data, seconds, backend="exact"),
        partial(grid, data),
    ]


def grid(data: dict[str, Any]) -> Answer:
    """Every point of a grid, five machines each, by CVXPY and Clarabel."""
    import cvxpy as cp

    clock, best = Clock(), math.inf
    C, box = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    machines = []
    for X, y in zip(data["X"], data["y"], strict=True):
        w, b = cp.Variable(FEATURES), cp.Variable()
        losses = cp.sum(cp.pos(1 - cp.multiply(y, X @ w + b)))
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(w) + C * losses), [cp.abs(w) <= box])
        machines.append((problem, w, b))
    for C.value, box.value in itertools.product(WEIGHTS, BOXES):
        loss = 0.0
        for (problem, w, b), V, z in zip(machines, data["V"], data["z"], strict=True):
            problem.solve(solver=cp.CLARABEL)
            loss += float(np.maximum(0, 1 - z * (V @ w.value + b.value)).mean()) / FOLDS
        best = min(best, loss)
    count = len(WEIGHTS) * len(BOXES)
    note = f"{count} points, {count * FOLDS} fits; one box for all weights; no certificate"
    return clock.stamp(
        Answer(INSTANCE, "grid search, CVXPY and Clarabel", best, math.nan, 0, 0, note)
    )
