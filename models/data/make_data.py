"""Make the data files of the models: ``python models/data/make_data.py [NAME...]``.

The same bytes come out at each run. breast_cancer, digits and diabetes are taken from scikit-learn,
which ships them; the MNIST images come from ``mnist.npz`` (X_train, y_train, X_test, y_test in the
original order), looked for in ``../shared/data`` next to the repository or where ``--mnist`` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
MNIST = HERE.parents[2] / "shared" / "data" / "mnist.npz"

Arrays = dict[str, NDArray]


def _standardise(X: NDArray, train: NDArray, *others: NDArray) -> list[NDArray]:
    """Rows of X with the mean and deviation of the training rows taken out."""
    mean, deviation = X[train].mean(axis=0), X[train].std(axis=0)
    return [(X[rows] - mean) / deviation for rows in (train, *others)]


def breast_cancer() -> Arrays:
    """380 training and 189 validation rows of 30 features; labels -1 (malignant), 1 (benign)."""
    from sklearn.datasets import load_breast_cancer

    X, target = load_breast_cancer(return_X_y=True)
    # Seed 2: of the first splits tried, one where every start leads to the same optimum.
    order = np.random.default_rng(2).permutation(len(X))
    train, valid = order[:380], order[380:]
    labels = (2 * target - 1).astype(np.int8)
    A, V = _standardise(X, train, valid)
    return {"X": A, "y": labels[train], "Xv": V, "yv": labels[valid]}


def digits() -> Arrays:
    """600 training, 600 validation and 597 test images of 8 x 8 pixels, grey levels 0..16."""
    from sklearn.datasets import load_digits

    X, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    parts = {"": order[:600], "v": order[600:1200], "t": order[1200:]}
    images = {f"X{part}": X[rows].astype(np.uint8) for part, rows in parts.items()}
    return images | {f"y{part}": label[rows].astype(np.uint8) for part, rows in parts.items()}


def diabetes() -> Arrays:
    """221 training and 221 validation rows of 10 features; features and target standardised."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True, scaled=False)
    # Seed 3: of the first splits tried, one where every start leads to the same optimum.
    order = np.random.default_rng(3).permutation(len(X))
    train, valid = order[:221], order[221:]
    A, V = _standardise(X, train, valid)
    b, v = _standardise(y[:, None], train, valid)
    return {"X": A, "y": b[:, 0], "Xv": V, "yv": v[:, 0]}


def logistic_small() -> Arrays:
    """20 + 20 rows of 4 features from a noisy linear rule, drawn from `default_rng(0)`."""
    draw = np.random.default_rng(0)
    w = draw.normal(size=4)
    X = draw.normal(size=(20, 4))
    y = np.sign(X @ w + draw.normal(size=20))
    V = draw.normal(size=(20, 4))
    v = np.sign(V @ w + draw.normal(size=20))
    return {"X": X, "y": y.astype(np.int8), "Xv": V, "yv": v.astype(np.int8)}


def toy_conditioned() -> Arrays:
    """A symmetric 100 x 100 matrix with eigenvalues from 1 to 100, spaced geometrically."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 100)))
    A = Q @ np.diag(np.geomspace(1, 100, 100)) @ Q.T
    return {"A": (A + A.T) / 2}


def hyper_cleaning() -> Arrays:
    """MNIST: rows 0..4999, half of their labels drawn anew; validation 5000..9999; test set."""
    z = np.load(MNIST_PATH)
    images, labels = z["X_train"].reshape(-1, 784), z["y_train"]
    draw = np.random.default_rng(0)
    noisy = labels[:5000].astype(np.int64)
    redrawn = draw.choice(5000, 2500, replace=False)
    # A label drawn anew can be the old one: a tenth of them, which `wrong` does not count.
    noisy[redrawn] = draw.integers(0, 10, 2500)
    return {
        "X": images[:5000],
        "y": noisy.astype(np.uint8),
        "wrong": (noisy != labels[:5000]).astype(np.uint8),
        "Xv": images[5000:10000],
        "yv": labels[5000:10000].astype(np.uint8),
        "Xt": z["X_test"].reshape(-1, 784),
        "yt": z["y_test"].astype(np.uint8),
    }


MAKERS: dict[str, Callable[[], Arrays]] = {
    maker.__name__: maker
    for maker in (breast_cancer, digits, diabetes, logistic_small, toy_conditioned, hyper_cleaning)
}
MNIST_PATH = MNIST


def main() -> None:
    """Make the files that the command line names."""
    global MNIST_PATH
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)} (default: all)"
    )
    parser.add_argument("--mnist", type=Path, default=MNIST, help="path of mnist.npz")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(MAKERS))
    if unknown:
        parser.error(f"no data set of the name {', '.join(unknown)}; there are {', '.join(MAKERS)}")
    MNIST_PATH = options.mnist
    for name in options.names or MAKERS:
        if name == "hyper_cleaning" and not MNIST_PATH.exists():
            print(f"{name}: skipped, no {MNIST_PATH.name} found (give its path with --mnist)")
            continue
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, **MAKERS[name]())
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
