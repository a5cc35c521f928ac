"""What people do without bilevel optimization: search over penalties, with scikit-learn and Optuna.

A baseline returns the validation loss, which the bilevel model minimises, as "F", and test figures.
Searches with a budget end after the seconds that `auto` took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from experiment import Data
from numpy.typing import NDArray
from scipy.sparse import diags, issparse, vstack


def searched(
    trial: Callable[[Mapping[str, float]], dict[str, float]],
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
    seconds: float,
    *,
    larger: bool = False,
) -> dict[str, float]:
    """Optuna's default sampler (tree-structured Parzen estimators) on the lowest "F" (the largest
    one where ``larger``) for so many seconds; the figures of the best trial, and how many there
    were.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: list[dict[str, float]] = []

    def objective(asked: Any) -> float:
        point = {n: asked.suggest_float(n, low, high) for n, (low, high) in ranges.items()}
        found.append(trial(point))
        return found[-1]["F"]

    began = time.perf_counter()

    def ended(study: Any, trial: Any) -> None:
        # By the clock of all methods: Optuna's own limit is wall time in any case.
        if time.perf_counter() - began > seconds:
            study.stop()

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(sampler=sampler, direction="maximize" if larger else "minimize")
    study.optimize(objective, callbacks=[ended])
    sign = -1.0 if larger else 1.0
    return min(found, key=lambda figures: sign * figures["F"]) | {"trials": float(len(found))}


def _estimator(data: Data, penalty: float) -> Any:
    """The logistic or softmax regression with mean loss plus ``penalty / 2`` times |w|^2."""
    from sklearn.linear_model import LogisticRegression

    rows = data["X"].shape[0]
    return LogisticRegression(
        C=1.0 / (rows * penalty), fit_intercept="classes" in data, max_iter=2000, tol=1e-6
    )


def _fitted(model: Any, X: Any, y: Any) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A fit that stops early is a worse baseline, not a fault: its loss is what counts.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def _figures(data: Data, model: Any) -> dict[str, float]:
    from sklearn.metrics import log_loss

    labels = model.classes_
    figures = {
        "F": log_loss(data["yv"], model.predict_proba(data["Xv"]), labels=labels),
        "test_loss": log_loss(data["yt"], model.predict_proba(data["Xt"]), labels=labels),
        "test_accuracy": float((model.predict(data["Xt"]) == data["yt"]).mean()),
    }
    return {name: float(value) for name, value in figures.items()}


def _trial(data: Data, penalty: float) -> dict[str, float]:
    return _figures(data, _fitted(_estimator(data, penalty), data["X"], data["y"]))


def _best(data: Data, penalties: Sequence[float] | NDArray) -> dict[str, float]:
    return min((_trial(data, float(p)) for p in penalties), key=lambda figures: figures["F"])


def grid(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Twenty penalties between 1e-5 and 1, evenly spaced on the logarithmic scale."""
    return _best(data, np.logspace(-5, 0, 20))


def grid_in_time(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """The same penalties from the largest on, each fit begun at the one before, for so many seconds
    (the fit that is then running is finished).
    """
    began, model, tried = time.perf_counter(), _estimator(data, 1.0), []
    model.set_params(warm_start=True)
    rows = data["X"].shape[0]
    for penalty in np.logspace(-5, 0, 20)[::-1]:
        model.set_params(C=1.0 / (rows * penalty))
        tried.append(_figures(data, _fitted(model, data["X"], data["y"])))
        if time.perf_counter() - began > seconds:
            break
    return min(tried, key=lambda figures: figures["F"]) | {"trials": float(len(tried))}


def random_search(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Twenty penalties drawn from the same range."""
    return _best(data, 10 ** np.random.default_rng(seed).uniform(-5, 0, size=20))


def cross_validation(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """scikit-learn's search by five folds over training and validation rows together, ten
    penalties. The validation rows are training data here, so that there is no F.
    """
    from sklearn.model_selection import GridSearchCV

    join = vstack if issparse(data["X"]) else np.vstack
    X, y = join([data["X"], data["Xv"]]), np.concatenate([data["y"], data["yv"]])
    X = X.tocsr() if issparse(X) else X
    rows = X.shape[0]
    choices = {"C": [1.0 / (rows * p) for p in np.logspace(-5, 0, 10)]}
    search = GridSearchCV(_estimator(data, 1.0), choices, scoring="neg_log_loss", cv=5)
    return _figures(data, _fitted(search, X, y)) | {"F": float("nan")}


def optuna_scalar(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over the logarithm of one penalty, in the bounds of the model."""
    ranges = {"lam": (-12.0, 6.0)}
    return searched(lambda p: _trial(data, np.exp(p["lam"])), ranges, seed, seconds)


def optuna_features(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over the logarithms of all penalties. Scaling a column by ``exp(-lam / 2)`` is the
    same as giving its weight the penalty ``exp(lam)``.
    """
    count = data["X"].shape[1]

    def trial(point: Mapping[str, float]) -> dict[str, float]:
        scale = np.exp([-point[f"lam{j}"] / 2 for j in range(count)])

        def scaled(A: Any) -> Any:
            return A @ diags(scale) if issparse(A) else A * scale

        columns = {name: scaled(data[name]) for name in ("X", "Xv", "Xt")}
        return _trial({**data, **columns}, 1.0)

    return searched(trial, {f"lam{j}": (-12.0, 6.0) for j in range(count)}, seed, seconds)
