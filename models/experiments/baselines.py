"""What people do without bilevel optimization: search over one penalty, with scikit-learn.

A baseline returns the validation loss, which the bilevel model minimises, as "F", and test figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Data
from numpy.typing import NDArray


def _fit(data: Data, penalty: float) -> Any:
    """The logistic or softmax regression with mean loss plus ``penalty / 2`` times |w|^2."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    rows = data["X"].shape[0]
    model = LogisticRegression(
        C=1.0 / (rows * penalty), fit_intercept="classes" in data, max_iter=2000, tol=1e-6
    )
    with warnings.catch_warnings():
        # A fit that stops early is a worse baseline, not a fault: its loss is what counts.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(data["X"], data["y"])


def _figures(data: Data, model: Any) -> dict[str, float]:
    from sklearn.metrics import log_loss

    labels = model.classes_
    figures = {
        "F": log_loss(data["yv"], model.predict_proba(data["Xv"]), labels=labels),
        "test_loss": log_loss(data["yt"], model.predict_proba(data["Xt"]), labels=labels),
        "test_accuracy": float((model.predict(data["Xt"]) == data["yt"]).mean()),
    }
    return {name: float(value) for name, value in figures.items()}


def _best(data: Data, penalties: Sequence[float] | NDArray) -> dict[str, float]:
    tried = [_figures(data, _fit(data, float(p))) for p in penalties]
    return min(tried, key=lambda figures: figures["F"])


def logistic_grid(data: Data, seed: int) -> dict[str, float]:
    """Twenty penalties between 1e-5 and 1, evenly spaced on the logarithmic scale."""
    return _best(data, np.logspace(-5, 0, 20))


def logistic_random(data: Data, seed: int) -> dict[str, float]:
    """Twenty penalties drawn from the same range."""
    return _best(data, 10 ** np.random.default_rng(seed).uniform(-5, 0, size=20))


softmax_grid = logistic_grid
