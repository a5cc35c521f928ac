"""Experiment 1: penalties of logistic regressions, one in all and one per feature.

``python models/experiments/penalties.py --data FOLDER --seeds 5 --page PAGE.md``
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import baselines
import datasets
import numpy as np
from experiment import Data, Setting
from harness import main
from numpy.typing import NDArray
from scipy.sparse import hstack, issparse

from bilevelpy.errors import UsageError

MODELS = Path(__file__).resolve().parents[1]
REPORTS = ("test_loss", "test_accuracy")
SMALL = ("auto", "direct", "aid", "qnbo", "nbo", "itd")
LARGE = ("auto", "aid", "qnbo", "nbo", "bagdc")


def settings(folder: Path) -> Sequence[Setting]:
    """Every data set with the penalties that suit it."""
    binary: dict[str, tuple[Callable[[int], Data], tuple[str, ...]]] = {
        "breast_cancer": (breast_cancer, SMALL),
        "a9a": (partial(a9a, folder), LARGE),
        "covtype_binary": (partial(covtype_binary, folder), LARGE),
        "ijcnn1": (partial(ijcnn1, folder), SMALL),
        "w8a": (partial(w8a, folder), LARGE),
        "news20_20k": (partial(news20_binary, folder, 20_000), LARGE),
        "news20_130k": (partial(news20_binary, folder, 130_107), LARGE),
    }
    scalar = {
        "grid of 20": baselines.grid,
        "random search": baselines.random_search,
        "cross-validation": baselines.cross_validation,
        "Optuna": baselines.optuna_scalar,
    }
    # One penalty for all is what a grid can search; Optuna takes all of them.
    features = {
        "grid of 20": baselines.grid,
        "cross-validation": baselines.cross_validation,
        "Optuna": baselines.optuna_features,
    }
    found = []
    for name, (data, backends) in binary.items():
        # A sampler of thousands of dimensions would not end its first round.
        many = name.startswith("news20")
        compared = {k: v for k, v in features.items() if not (many and k == "Optuna")}
        found += [
            Setting(f"{name}_scalar", "logistic_scalar.blv", data, REPORTS, "test_accuracy",
                    backends=backends, baselines=scalar),
            Setting(f"{name}_features", "logistic.blv", data, REPORTS, "test_accuracy",
                    backends=backends, baselines=compared),
        ]  # fmt: skip
    classes: dict[str, tuple[Callable[[int], Data], tuple[str, ...]]] = {
        "digits": (digits, SMALL),
        "covtype": (partial(covtype, folder), LARGE),
        "news20_20_classes": (partial(news20, folder, 20_000), LARGE),
    }
    for name, (data, backends) in classes.items():
        small = name == "digits"
        compared = features if small else {"grid of 20": baselines.grid}
        if name.startswith("news20"):
            compared = {"grid in equal time": baselines.grid_in_time}
        found.append(
            Setting(f"{name}_features", "softmax.blv", data, REPORTS, "test_accuracy",
                    backends=backends, baselines=compared,
                    stop_by="min test_loss" if small else "",
                    stop_rows=digits_followed if small else dict)
        )  # fmt: skip
    return found


def _parts(name: str, X: Any, y: NDArray, seed: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Training, validation and test rows, drawn by the seed; dense ones standardised."""
    datasets.check_rows(name, X, y, sum(sizes))
    order = datasets.shuffled(len(y), seed + 1)
    a, b = sizes[0], sizes[0] + sizes[1]
    c = b + sizes[2]
    rows = order[:a], order[a:b], order[b:c]
    X = X if issparse(X) else np.asarray(X, dtype=float)
    parts = [X[r] for r in rows]
    if not issparse(X):
        mean, deviation = parts[0].mean(axis=0), parts[0].std(axis=0)
        parts = [(P - mean) / np.where(deviation > 0, deviation, 1.0) for P in parts]
    names = ("X", "y"), ("Xv", "yv"), ("Xt", "yt")
    found: dict[str, Any] = {}
    for (X_name, y_name), part, r in zip(names, parts, rows, strict=True):
        found |= {X_name: part, y_name: np.asarray(y[r], dtype=float)}
    return found


def _with_constant(data: dict[str, Any]) -> dict[str, Any]:
    """The same with a column of ones, for data whose classes are far from equal: the models have no
    intercept of their own.
    """
    found = dict(data)
    for name in ("X", "Xv", "Xt"):
        A = data[name]
        ones = np.ones((A.shape[0], 1))
        found[name] = hstack([A, ones]).tocsr() if issparse(A) else np.hstack([A, ones])
    return found


def breast_cancer(seed: int) -> Data:
    """569 rows of 30 features, from the model's own file."""
    with np.load(MODELS / "data" / "breast_cancer.npz") as z:
        X, y = np.vstack([z["X"], z["Xv"]]), np.concatenate([z["y"], z["yv"]])
    return _parts("breast_cancer.npz", X, y, seed, (250, 150, 169))


def _digits() -> tuple[NDArray, NDArray]:
    with np.load(MODELS / "data" / "digits.npz") as z:
        X = np.vstack([z["X"], z["Xv"], z["Xt"]]) / 16.0
        y = np.concatenate([z["y"], z["yv"], z["yt"]])
    return X, y


def digits(seed: int) -> Data:
    """1,797 images of 8 x 8 pixels, ten classes, from the model's own file: 597 to learn from, 500
    for validation, 400 for the reports.
    """
    X, y = _digits()
    return _parts("digits.npz", X, y, seed, (597, 500, 400)) | {"classes": 10}


def digits_followed(seed: int) -> Data:
    """The other 300 images, which may end a run."""
    X, y = _digits()
    found = _parts("digits.npz", X, y, seed, (597, 900, 300))
    return {"Xt": found["Xt"], "yt": found["yt"]}


def a9a(folder: Path, seed: int) -> Data:
    """32,561 sparse rows of 123 features, halved for training and validation; 16,281 test rows."""
    z = datasets.read(folder, "a9a.npz")
    X, T = datasets.sparse(z, "X_train"), datasets.sparse(z, "X_test")
    y, t = (datasets.check_signs("a9a.npz", z[name]) for name in ("y_train", "y_test"))
    datasets.check_rows("a9a.npz", T, t, 1)
    found = _parts("a9a.npz", X, y, seed, (16_281, 16_280, 0))
    return found | {"Xt": T, "yt": t.astype(float)}


def _covtype(folder: Path) -> tuple[NDArray, NDArray]:
    z = datasets.read(folder, "covtype.npz")
    datasets.check_labels("covtype.npz", z["y"], 7, first=1)
    datasets.check_rows("covtype.npz", z["X"], z["y"], 1)
    low, top = (z[name].astype(float) for name in ("low", "top"))
    if not (z["X"].shape[1:] == low.shape == top.shape and (low < top).all()):
        raise UsageError("covtype.npz: needs `low` below `top` for each column of X")
    return (z["X"] - low) / (top - low), z["y"]


def covtype_binary(folder: Path, seed: int) -> Data:
    """Class 2 against the rest: 35,000 / 35,000 / 22,962 rows of 54 features."""
    X, y = _covtype(folder)
    sizes = (35_000, 35_000, 22_962)
    return _with_constant(_parts("covtype.npz", X, np.where(y == 2, 1, -1), seed, sizes))


def covtype(folder: Path, seed: int) -> Data:
    """Seven classes: 20,000 / 20,000 / 20,000 rows of 54 features."""
    X, y = _covtype(folder)
    found = _parts("covtype.npz", X, y - 1, seed, (20_000, 20_000, 20_000))
    return found | {"classes": 7}


def ijcnn1(folder: Path, seed: int) -> Data:
    """49,990 rows of 22 features, halved; 91,701 test rows."""
    z = datasets.read(folder, "research_use/ijcnn1.npz")
    X, Xt = z["X_train"].astype(float), z["X_test"].astype(float)
    y, t = (datasets.check_signs("ijcnn1.npz", z[name]) for name in ("y_train", "y_test"))
    datasets.check_rows("ijcnn1.npz", Xt, t, 1)
    found = _parts("ijcnn1.npz", X, y, seed, (24_995, 24_995, 0))
    rows = datasets.shuffled(len(X), seed + 1)[:24_995]
    mean, deviation = X[rows].mean(axis=0), X[rows].std(axis=0)
    found |= {"Xt": (Xt - mean) / deviation, "yt": t.astype(float)}
    return _with_constant(found)


def w8a(folder: Path, seed: int) -> Data:
    """49,749 sparse rows of 300 features in three parts."""
    z = datasets.read(folder, "research_use/w8a.npz")
    X, y = datasets.sparse(z, "X_train"), datasets.check_signs("w8a.npz", z["y_train"])
    return _with_constant(_parts("w8a.npz", X, y, seed, (20_000, 20_000, 9_749)))


def _news(folder: Path, columns: int) -> tuple[Any, NDArray, Any, NDArray]:
    z = datasets.read(folder, "research_use/news20.npz")
    train = datasets.sparse(z, "X_train")[:, :columns]
    test = datasets.sparse(z, "X_test")[:, :columns]
    y, t = (datasets.check_labels("news20.npz", z[name], 20) for name in ("y_train", "y_test"))
    datasets.check_rows("news20.npz", test, t, 1)
    A, T = datasets.tf_idf(train, test)
    return A, y, T, t


def news20_binary(folder: Path, columns: int, seed: int) -> Data:
    """The first ten groups against the others, tf-idf: 5,657 / 5,657 / 7,532 rows."""
    A, y, T, yt = _news(folder, columns)
    found = _parts("news20.npz", A, np.where(y < 10, 1, -1), seed, (5_657, 5_657, 0))
    return found | {"Xt": T, "yt": np.where(yt < 10, 1.0, -1.0)}


def news20(folder: Path, columns: int, seed: int) -> Data:
    """All twenty groups, a penalty per word: 20 times as many lower variables as columns."""
    A, y, T, yt = _news(folder, columns)
    found = _parts("news20.npz", A, y, seed, (5_657, 5_657, 0))
    return found | {"Xt": T, "yt": yt.astype(float), "classes": 20}


if __name__ == "__main__":
    sys.exit(main(settings, "Penalties of logistic regressions"))
