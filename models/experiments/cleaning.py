"""Experiment 2: finding wrong labels among images, with a linear classifier and with a network.

``python models/experiments/cleaning.py --data FOLDER --seeds 5 --page PAGE.md``
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from harness import Data, Setting, main

REPORTS = ("test_accuracy", "f1", "suspects")
BACKENDS = ("auto", "aid", "qnbo", "nbo", "bagdc", "pzobo")
HIDDEN = 300
PIXELS = 784


def settings(folder: Path) -> Sequence[Setting]:
    """Both data sets, three shares of wrong labels, two sizes, two classifiers."""
    found = []
    for data_set in ("mnist", "fashion_mnist"):
        for share in (0.5, 0.7, 0.9):
            for size in (5_000, 20_000):
                if (data_set, size) == ("fashion_mnist", 20_000):
                    continue  # its file has 20,000 training images in all: see below
                data = partial(images, folder, data_set, share, size)
                label = f"{data_set}_{size // 1000}k_{share:g}"
                found.append(_linear(label, data, BACKENDS if size == 5_000 else ("auto", "aid")))
        label = f"{data_set}_5k_0.5_network"
        found.append(
            Setting(label, "cleaning_network.blv", partial(_network, folder, data_set),
                    REPORTS, "test_accuracy", backends=("auto", "itd", "bagdc"), externs=_externs,
                    max_iter=200)
        )  # fmt: skip
    data = partial(images, folder, "fashion_mnist", 0.5, 15_000)
    return [*found, _linear("fashion_mnist_15k_0.5", data, ("auto", "aid"))]


def _linear(label: str, data: Any, backends: Sequence[str]) -> Setting:
    compared = {"no cleaning": without_cleaning, "validation images only": clean_only}
    return Setting(label, "../hyper_cleaning.blv", data, REPORTS, "test_accuracy",
                   backends=tuple(backends), baselines=compared)  # fmt: skip


def images(folder: Path, data_set: str, share: float, size: int, seed: int) -> Data:
    """``size`` training images, a ``share`` of them with labels drawn anew, and 5,000 with right
    labels; 10,000 for the reports. A label that is drawn may be the right one by chance.
    """
    z = datasets.read(folder, f"{data_set}.npz")
    y = datasets.check_labels(f"{data_set}.npz", z["y_train"].astype(int), 10)
    rng = np.random.default_rng(seed)
    changed = rng.permutation(size)[: round(share * size)]
    noisy = y[:size].copy()
    noisy[changed] = rng.integers(0, 10, size=len(changed))
    X = z["X_train"].reshape(-1, PIXELS)
    rest = slice(size, size + 5_000)
    return {
        "X": X[:size], "y": noisy, "wrong": (noisy != y[:size]).astype(float),
        "Xv": X[rest], "yv": y[rest],
        "Xt": z["X_test"].reshape(-1, PIXELS), "yt": z["y_test"].astype(int),
    }  # fmt: skip


def _network(folder: Path, data_set: str, seed: int) -> Data:
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(size=PIXELS * HIDDEN) * np.sqrt(2 / PIXELS),
        np.zeros(HIDDEN),
        rng.normal(size=HIDDEN * 10) / np.sqrt(HIDDEN),
        np.zeros(10),
    ]
    return {**images(folder, data_set, 0.5, 5_000, seed), "theta0": np.concatenate(parts)}


def network(theta: Any, A: Any) -> Any:
    """784 - 300 - 10 with softplus (smooth, where relu is not): scores of every image."""
    import torch

    sizes = (PIXELS * HIDDEN, HIDDEN, HIDDEN * 10, 10)
    W, b, V, c = torch.split(theta, sizes)
    hidden = torch.nn.functional.softplus(A @ W.reshape(PIXELS, HIDDEN) + b)
    return hidden @ V.reshape(HIDDEN, 10) + c


def _externs(seed: int) -> Mapping[str, Any]:
    return {"net": network, "net_v": network, "net_t": network}


def _softmax(X: Any, y: Any, data: Data) -> dict[str, float]:
    """The classifier of the model without weights, and its figures; it finds no wrong labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    model = LogisticRegression(C=1 / (len(y) * 2e-3), max_iter=300)
    model.fit(X / 255.0, y)
    loss = log_loss(data["yv"], model.predict_proba(data["Xv"] / 255.0), labels=model.classes_)
    right = model.predict(data["Xt"] / 255.0) == data["yt"]
    return {"F": float(loss), "test_accuracy": float(right.mean())}


def without_cleaning(data: Data, seed: int) -> dict[str, float]:
    """All training images with the labels that they have."""
    return _softmax(data["X"], data["y"], data)


def clean_only(data: Data, seed: int) -> dict[str, float]:
    """The images with right labels alone: its training data, so that it has no validation loss."""
    return _softmax(data["Xv"], data["yv"], data) | {"F": float("nan")}


if __name__ == "__main__":
    sys.exit(main(settings, "Finding wrong labels"))
