"""The catalogue of models, and the known answers computed without the package."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import applications, small, sparse
from tests.reference.hyper_cleaning import HyperCleaning
from tests.reference.logistic import PenalisedLogistic
from tests.reference.ridge import PenalisedRidge
from tests.reference.softmax import PenalisedSoftmax
from tests.reference.upper import Answer, minimise

MODELS = Path(__file__).parents[2] / "models"
CATALOGUE: dict[str, dict[str, Any]] = tomllib.loads((MODELS / "catalog.toml").read_text("utf-8"))
SLOW = {name for name, entry in CATALOGUE.items() if entry.get("slow", False)}
FAST = sorted(set(CATALOGUE) - SLOW)
# Solved by a backend that takes the problem as a whole; those of gradients refuse it.
WHOLE = {name for name, entry in CATALOGUE.items() if entry.get("engine") == "exact"}
PESSIMISTIC = "_pessimistic"
PATHS = {
    path.stem: path for folder in (MODELS, MODELS / "applications") for path in folder.glob("*.blv")
}


def arrays(name: str) -> dict[str, np.ndarray]:
    """A data file of the models, as floats."""
    with np.load(MODELS / "data" / f"{name}.npz") as stored:
        return {key: stored[key].astype(float) for key in stored.files}


def breast_cancer_problem() -> PenalisedLogistic:
    z = arrays("breast_cancer")
    return PenalisedLogistic(z["X"], z["y"], z["Xv"], z["yv"], bias_penalty=1e-3)


def breast_cancer() -> Answer:
    return minimise(breast_cancer_problem().reduced, np.zeros(30), -6, 2)


def digits_problem() -> PenalisedSoftmax:
    z = arrays("digits")
    y, yv = z["y"].astype(int), z["yv"].astype(int)
    return PenalisedSoftmax(z["X"] / 16, y, z["Xv"] / 16, yv, classes=10, bias_penalty=1e-3)


def digits() -> Answer:
    return minimise(digits_problem().reduced, np.full(64, -4.0), -6, 2)


def diabetes_problem() -> PenalisedRidge:
    z = arrays("diabetes")
    return PenalisedRidge(z["X"], z["y"], z["Xv"], z["yv"])


def diabetes() -> Answer:
    return minimise(diabetes_problem().reduced, np.zeros(10), -8, 2)


def hyper_cleaning() -> Answer:
    """Minutes: the value in the model was computed with this, and the tests do not repeat it."""
    z = arrays("hyper_cleaning")
    X, Xv, y, yv = z["X"] / 255, z["Xv"] / 255, z["y"].astype(int), z["yv"].astype(int)
    problem = HyperCleaning(X, y, Xv, yv, classes=10, ridge=2e-3)
    return minimise(problem.reduced, np.zeros(len(X)), -3, 3, iterations=40)


def _ridge_small() -> float:
    X = np.array([[1.0, 0], [0, 1], [1, 1], [2, 1], [1, 2], [-1, 1]])
    V, v = np.array([[1.0, -1], [2, 2], [0, 3]]), np.array([0, 3.6, 2.8])
    return small.ridge_search(X, np.array([1.2, 0.9, 2.4, 2.6, 3.9, 0.3]), V, v)[0]


def _logistic_small() -> float:
    z = arrays("logistic_small")
    return small.logistic_search(z["X"], z["y"], z["Xv"], z["yv"])[0]


def _toy(A: np.ndarray) -> float:
    identity = np.eye(len(A))
    return small.toy(A, identity, identity, np.ones(len(A)))[0]


# F* of each model by hand-written code; the others are arithmetic on a line, given there.
REFERENCES: dict[str, Callable[[], float]] = {
    "box_kink": lambda: 0.5 * (1 - 2) ** 2 + 0.05 * 1**2,
    "breast_cancer": lambda: breast_cancer().F,
    "congestion_tolls": lambda: small.parallel_roads()[0],
    "data_poisoning": lambda: small.poisoning()[0],
    "diabetes_ridge": lambda: diabetes().F,
    "digits": lambda: digits().F,
    "logistic_small": _logistic_small,
    "meta_learning": lambda: 0.0,
    "pollution_tax": lambda: 10 * 3.5 - 3.5**2 - 3 * 3.5,
    "principal_agent": lambda: 0.5 - 0.5**2 / 2 - 2 * 0.5 * 0.5**2 / 2,
    "ridge_orthogonal": lambda: small.orthogonal_ridge(
        np.array([1.0, 2, 2]), np.array([0.5, 1, 1.5])
    )[0],
    "ridge_small": _ridge_small,
    "simplex": lambda: small.simplex_projection(np.array([0.3, 0.25, 0.2, 0.15, 0.1]), 0.1)[0],
    "sparse_logistic": lambda: sparse.best_weight(arrays("breast_cancer"), -6, -5),
    "stackelberg": lambda: (13 - 6 - 3) * 6 - 6,
    "toy_conditioned": lambda: _toy(arrays("toy_conditioned")["A"]),
    "toy_identity": lambda: _toy(np.eye(100)),
    "toy_index": lambda: _toy(arrays("toy_conditioned")["A"]),
    # Two roads, x on the second: 1 - x + x^2.
    "pigou": lambda: 1 - 0.5 + 0.5**2,
    **{name: getattr(applications, name) for name in WHOLE if not name.endswith(PESSIMISTIC)},
    **{
        name: partial(getattr(applications, name.removesuffix(PESSIMISTIC)), pessimistic=True)
        for name in WHOLE
        if name.endswith(PESSIMISTIC)
    },
}
