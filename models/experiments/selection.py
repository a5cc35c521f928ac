"""Experiment 4: kernels and support vector machines by cross-validation, denoising, imbalance.

``python models/experiments/selection.py --data FOLDER --seeds 5 --page PAGE.md``
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from baselines import searched
from experiment import Data, Setting
from harness import main
from numpy.typing import NDArray

from bilevelpy.errors import UsageError

MODELS = Path(__file__).resolve().parents[1]
FOLDS = 5


def settings(folder: Path) -> Sequence[Setting]:
    """Regression tables, classification tables, images."""
    found = [
        Setting(f"kernel_{name}", "kernel_selection.blv", partial(kernel, folder, name),
                ("test_error",), "test_error", larger=False,
                backends=("auto", "direct", "aid", "qnbo", "nbo", "itd"),
                baselines={"grid of 10 x 10": kernel_grid, "Optuna": kernel_optuna})
        for name in ("yacht", "energy", "concrete")
    ]  # fmt: skip
    tables = (("breast_cancer", svm_breast_cancer), ("wine", partial(svm_wine, folder)))
    found += [
        Setting(f"svm_{name}", "svm_cross_validation.blv", data, ("error",), "error", larger=False,
                backends=("auto", "direct", "aid", "qnbo", "nbo"),
                baselines={"grid of 20": svm_grid, "Optuna": svm_optuna})
        for name, data in tables
    ]  # fmt: skip
    found.append(
        Setting("denoising", "denoising.blv", denoising, ("test_error",), "test_error",
                larger=False, backends=("auto", "aid", "qnbo", "nbo", "bagdc"),
                baselines={"noisy images": as_they_are, "grid of 8 x 8": denoising_grid})
    )  # fmt: skip
    for price in (0.0, 10.0):
        found.append(
            Setting(f"imbalance_price_{price:g}", "imbalance.blv", partial(imbalance, price),
                    ("test_balanced_accuracy", "test_gap"), "test_balanced_accuracy",
                    backends=("auto", "aid", "qnbo", "nbo", "bagdc"),
                    baselines={"weights by frequency": by_frequency, "Optuna": imbalance_optuna})
        )  # fmt: skip
    return found


# --- kernel ridge regression ----------------------------------------------------------------------


def table(folder: Path, name: str) -> tuple[NDArray, NDArray]:
    """Features and target (the last column) of a regression table, standardised."""
    path = folder / "regression" / f"{name}.csv"
    if not path.is_file():
        raise UsageError(f"there is no {path}: a table of the UCI repository; --data names it")
    try:
        rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    except ValueError as error:  # rows of different lengths
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error
    if rows.ndim != 2 or rows.shape[0] < 50 or rows.shape[1] < 2:
        raise UsageError(f"{path}: needs columns of 50 rows or more, found {rows.shape}")
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise UsageError(f"{path}: row {bad + 2} holds something that is no number")
    deviation = rows.std(axis=0)
    if not deviation.all():
        column = int(np.flatnonzero(deviation == 0)[0]) + 1
        raise UsageError(f"{path}: column {column} holds one number in all rows")
    rows = (rows - rows.mean(axis=0)) / deviation
    return rows[:, :-1], rows[:, -1]


def _distances(A: NDArray, B: NDArray) -> NDArray:
    squares = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2 * A @ B.T
    return np.maximum(squares, 0.0)


def _folds(count: int, seed: int, most: int) -> tuple[list[NDArray], NDArray]:
    """Equal folds of at most ``most`` rows together; the rows left are test rows."""
    order = datasets.shuffled(count, seed + 1)
    size = min(most, count * 3 // 4) // FOLDS
    used, rest = order[: size * FOLDS], order[size * FOLDS :]
    return list(used.reshape(FOLDS, size)), rest


def kernel(folder: Path, name: str, seed: int) -> Data:
    """Distances within and between folds of at most 250 rows, and those of test rows to them."""
    X, y = table(folder, name)
    folds, test = _folds(len(y), seed, 250)
    used = np.concatenate(folds)
    parts: dict[str, list[NDArray]] = {"D": [], "Dv": [], "Dt": [], "y": [], "yv": []}
    for fold in folds:
        train = np.setdiff1d(used, fold)
        parts["D"].append(_distances(X[train], X[train]))
        parts["Dv"].append(_distances(X[fold], X[train]))
        parts["Dt"].append(_distances(X[test], X[train]))
        parts["y"].append(y[train])
        parts["yv"].append(y[fold])
    found: dict[str, Any] = {k: np.array(v) for k, v in parts.items()}
    return found | {"FOLD": list(range(FOLDS)), "yt": y[test]}


def _kernel_errors(data: Data, width: float, penalty: float) -> tuple[float, float]:
    """Cross-validated error of kernel ridge regression, and the test error of the folds' mean."""
    held_out, predicted = [], []
    for D, Dv, Dt, y, yv in zip(
        *(data[name] for name in ("D", "Dv", "Dt", "y", "yv")), strict=True
    ):
        alpha = np.linalg.solve(np.exp(-width * D) + penalty * np.eye(len(y)), y)
        held_out.append(((np.exp(-width * Dv) @ alpha - yv) ** 2).mean())
        predicted.append(np.exp(-width * Dt) @ alpha)
    test = ((np.mean(predicted, axis=0) - data["yt"]) ** 2).mean()
    return float(np.mean(held_out)), float(test)


def kernel_grid(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Ten widths times ten penalties."""
    tried = [
        _kernel_errors(data, np.exp(w), np.exp(p))
        for w in np.linspace(-8, 1, 10)
        for p in np.linspace(-14, 2, 10)
    ]
    F, test = min(tried)
    return {"F": F, "test_error": test}


def kernel_optuna(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over the logarithms of both, in the bounds of the model."""

    def trial(point: Mapping[str, float]) -> dict[str, float]:
        F, test = _kernel_errors(data, np.exp(point["width"]), np.exp(point["penalty"]))
        return {"F": F, "test_error": test}

    return searched(trial, {"width": (-8.0, 4.0), "penalty": (-16.0, 4.0)}, seed, seconds)


# --- support vector machines ----------------------------------------------------------------------


def _svm(X: NDArray, y: NDArray, seed: int) -> Data:
    folds, _ = _folds(len(y), seed, 600)
    used = np.concatenate(folds)
    trains = [np.setdiff1d(used, fold) for fold in folds]
    return {
        "FOLD": list(range(FOLDS)),
        "X": np.array([X[r] for r in trains]), "y": np.array([y[r] for r in trains]),
        "Xv": np.array([X[r] for r in folds]), "yv": np.array([y[r] for r in folds]),
    }  # fmt: skip


def svm_breast_cancer(seed: int) -> Data:
    """Folds of the breast-cancer data."""
    with np.load(MODELS / "data" / "breast_cancer.npz") as z:
        X, y = np.vstack([z["X"], z["Xv"]]), np.concatenate([z["y"], z["yv"]])
    return _svm(X, y.astype(float), seed)


def svm_wine(folder: Path, seed: int) -> Data:
    """Red wines above and below the mean quality."""
    X, quality = table(folder, "wine_red")
    return _svm(X, np.where(quality > 0, 1.0, -1.0), seed)


def _svm_figures(data: Data, C: float) -> dict[str, float]:
    from sklearn.svm import LinearSVC

    losses, errors = [], []
    for X, y, Xv, yv in zip(data["X"], data["y"], data["Xv"], data["yv"], strict=True):
        machine = LinearSVC(
            C=C, loss="squared_hinge", dual=False, intercept_scaling=30.0, max_iter=10_000
        )
        margins = yv * machine.fit(X, y).decision_function(Xv)
        losses.append((np.maximum(0, 1 - margins) ** 2).mean())
        errors.append((margins <= 0).mean())
    return {"F": float(np.mean(losses)), "error": float(np.mean(errors))}


def svm_grid(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Twenty weights."""
    tried = [_svm_figures(data, C) for C in np.exp(np.linspace(-12, 6, 20))]
    return min(tried, key=lambda figures: figures["F"])


def svm_optuna(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over the logarithm of the weight, in the bounds of the model."""
    ranges = {"C": (-12.0, 6.0)}
    return searched(lambda p: _svm_figures(data, np.exp(p["C"])), ranges, seed, seconds)


# --- denoising ------------------------------------------------------------------------------------


def denoising(seed: int) -> Data:
    """Digits of 8 x 8 pixels in [0, 1], normal noise of deviation 0.25: 30 and 100 test images."""
    rng = np.random.default_rng(seed)
    with np.load(MODELS / "data" / "digits.npz") as z:
        images = z["X"].reshape(-1, 8, 8) / 16.0
    chosen = images[rng.permutation(len(images))[:130]]
    noisy = chosen + 0.25 * rng.normal(size=chosen.shape)
    return {
        "IMAGE": list(range(30)), "clean": chosen[:30], "noisy": noisy[:30],
        "TEST": list(range(100)), "clean_t": chosen[30:], "noisy_t": noisy[30:],
    }  # fmt: skip


def as_they_are(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """No denoising."""
    return {
        "F": float(((data["noisy"] - data["clean"]) ** 2).mean()),
        "test_error": float(((data["noisy_t"] - data["clean_t"]) ** 2).mean()),
    }


def denoising_grid(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Eight weights of smoothness times eight of size, the same in both directions, by L-BFGS."""
    from scipy.optimize import minimize

    corner = 0.05

    def restore(noisy: NDArray, smooth: float, size: float) -> NDArray:
        def objective(flat: NDArray) -> tuple[float, NDArray]:
            u = flat.reshape(noisy.shape)
            value = ((u - noisy) ** 2).sum() / 2 + size * (u**2).sum() / 2
            slope = (u - noisy) + size * u
            for axis in (1, 2):
                d = np.diff(u, axis=axis)
                inside = np.abs(d) <= corner
                value += (
                    smooth
                    * np.where(inside, d**2 / 2, corner * np.abs(d) - corner**2 / 2).sum()
                    / corner
                )
                pull = smooth * np.clip(d, -corner, corner) / corner
                before, after = [slice(None)] * 3, [slice(None)] * 3
                before[axis], after[axis] = slice(None, -1), slice(1, None)
                slope[tuple(before)] -= pull
                slope[tuple(after)] += pull
            return float(value), slope.ravel()

        found = minimize(objective, noisy.ravel(), jac=True, method="L-BFGS-B")
        return np.asarray(found.x).reshape(noisy.shape)

    tried = []
    for smooth in np.exp(np.linspace(-5, 1, 8)):
        for size in np.exp(np.linspace(-8, 0, 8)):
            error = ((restore(data["noisy"], smooth, size) - data["clean"]) ** 2).mean()
            tried.append((float(error), smooth, size))
    F, smooth, size = min(tried)
    test = ((restore(data["noisy_t"], smooth, size) - data["clean_t"]) ** 2).mean()
    return {"F": F, "test_error": float(test)}


# --- class imbalance ------------------------------------------------------------------------------


def imbalance(price: float, seed: int) -> Data:
    """Breast-cancer data with one malignant row for ten benign ones in training; the groups are
    rows above and below the median of the first feature.
    """
    rng = np.random.default_rng(seed)
    with np.load(MODELS / "data" / "breast_cancer.npz") as z:
        X, y = np.vstack([z["X"], z["Xv"]]), np.concatenate([z["y"], z["yv"]])
    y = (y < 0).astype(float)
    order = rng.permutation(len(y))
    train, valid, test = order[:250], order[250:400], order[400:]
    malignant = train[y[train] == 1]
    train = np.concatenate([train[y[train] == 0], malignant[: (y[train] == 0).sum() // 10]])
    group = (X[:, 0] > np.median(X[:, 0])).astype(float)
    return {
        "X": X[train], "y": y[train], "Xv": X[valid], "yv": y[valid], "Xt": X[test], "yt": y[test],
        "group": group[valid], "group_t": group[test], "price": price,
    }  # fmt: skip


def _imbalance_figures(data: Data, weights: Any, shift: float) -> dict[str, float]:
    """scikit-learn's fit with weights of the classes, its decisions moved by ``shift``."""
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    rows = len(data["y"])
    model = LogisticRegression(C=1 / (rows * 1e-3), class_weight=weights, max_iter=5_000)
    model.fit(data["X"], data["y"])

    def figures(X: NDArray, y: NDArray, group: NDArray) -> tuple[float, float, float]:
        z = model.decision_function(X) + shift
        loss = np.logaddexp(0, -z)[y == 1].mean() + np.logaddexp(0, z)[y == 0].mean()
        score = ((z > 0)[y == 1].mean() + (z < 0)[y == 0].mean()) / 2
        gap = expit(z)[group == 1].mean() - expit(z)[group == 0].mean()
        return float(loss), float(score), float(gap)

    loss, _, gap = figures(data["Xv"], data["yv"], data["group"])
    _, score, test_gap = figures(data["Xt"], data["yt"], data["group_t"])
    return {
        "F": loss + data["price"] * gap**2,
        "test_balanced_accuracy": score,
        "test_gap": abs(test_gap),
    }


def by_frequency(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """scikit-learn's `class_weight="balanced"`."""
    return _imbalance_figures(data, "balanced", 0.0)


def imbalance_optuna(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over the logarithms of both weights and the shift, in the bounds of the model."""

    def trial(point: Mapping[str, float]) -> dict[str, float]:
        weights = {0: np.exp(point["weight0"]), 1: np.exp(point["weight1"])}
        return _imbalance_figures(data, weights, point["shift"])

    names = ("weight0", "weight1", "shift")
    return searched(trial, {name: (-6.0, 6.0) for name in names}, seed, seconds)


if __name__ == "__main__":
    sys.exit(main(settings, "Selection, denoising, imbalance"))
