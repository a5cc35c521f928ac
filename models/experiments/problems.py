"""Experiment 4: quadratic test problems, shared representations, and the poisoning of data.

``python models/experiments/problems.py --seeds 5 --page PAGE.md``
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from experiment import Data, Setting
from few_shot_tasks import Network, Pool, digits, nearest_mean, omniglot
from harness import main
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parents[1]
BACKENDS = ("auto", "aid", "qnbo", "nbo", "itd", "bagdc")


def settings(folder: Path) -> Sequence[Setting]:
    """Four condition numbers; representation; features of images; poisoning."""
    found = [
        Setting(f"quadratic_{condition:g}", "quadratic.blv", partial(quadratic, condition),
                ("error",), "error", larger=False, backends=BACKENDS,
                baselines={"L-BFGS, differences": by_differences}, max_iter=5_000)
        for condition in (10.0, 100.0, 1e3, 1e4)
    ]  # fmt: skip
    found.append(
        Setting("representation", "representation.blv", representation, ("test_error",),
                "test_error", larger=False, backends=("auto", "aid", "qnbo", "nbo", "itd"),
                baselines={"all features": all_features, "principal components": components})
    )  # fmt: skip
    pools: dict[str, tuple[Callable[[], tuple[Pool, Pool]], Network, int]] = {
        "digits": (digits, Network(8, 8, 2), 4),
        "omniglot": (partial(omniglot, folder), Network(28, 16, 4), 5),
    }
    for name, (pool, network, ways) in pools.items():
        given = dict.fromkeys(("support", "query", "new_support", "new_query"), network)
        found.append(
            Setting(f"features_{name}", "features.blv", partial(features, pool, network, ways),
                    ("accuracy",), "accuracy", backends=("auto", "aid", "qnbo", "nbo", "bagdc"),
                    externs=partial(_same, given), tol=1e-4,
                    baselines={"untrained features": partial(untrained, network),
                               "nearest mean of pixels": pixels})
        )  # fmt: skip
    compared = {
        "no attack": no_attack,
        "rows with wrong labels": flipped,
        "Optuna": poisoning_optuna,
    }
    found.append(
        Setting("poisoning", "poisoning.blv", poisoning, ("test_loss", "test_accuracy"),
                "test_loss", backends=("auto", "aid", "qnbo", "nbo", "bagdc"), baselines=compared,
                maximize=True)
    )  # fmt: skip
    return found


# --- quadratic ------------------------------------------------------------------------------------


def quadratic(condition: float, seed: int) -> Data:
    """Fifty variables, eigenvalues evenly spaced on the logarithmic scale from 1/condition to 1,
    random eigenvectors.
    """
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.normal(size=(50, 50)))
    values = np.geomspace(1 / condition, 1.0, 50)
    A = (Q * values) @ Q.T
    z = rng.normal(size=50)
    solution = Q @ ((values / (values + 1)) * (Q.T @ z))
    return {"A": (A + A.T) / 2, "z": z, "solution": solution}


def by_differences(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """SciPy on x alone: the lower level solved at every value, slopes by finite differences."""
    from scipy.optimize import minimize

    A, z = data["A"], data["z"]

    def value(x: NDArray) -> float:
        y = np.linalg.solve(A, x)
        return float(((x - z) ** 2).sum() / 2 + y @ A @ y / 2)

    found = minimize(value, np.full(len(z), 2.0), method="L-BFGS-B", options={"maxfun": 100_000})
    error = ((found.x - data["solution"]) ** 2).sum() / (data["solution"] ** 2).sum()
    return {"F": float(found.fun), "error": float(error)}


# --- representation -------------------------------------------------------------------------------


def representation(seed: int) -> Data:
    """Regressions on 30 features whose weights lie in a random plane of five dimensions: 40 tasks
    to learn from and 40 new ones, 10 rows each, noise of deviation 0.1.
    """
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(30, 5)) / np.sqrt(30)

    def tasks(rows: Sequence[int]) -> list[tuple[NDArray, NDArray]]:
        weights = plane @ rng.normal(size=(5, 40))
        found = []
        for count in rows:
            X = rng.normal(size=(40, count, 30))
            y = np.einsum("irc,ci->ir", X, weights) + 0.1 * rng.normal(size=(40, count))
            found.append((X, y))
        return found

    (X, y), (Xv, yv) = tasks((10, 10))
    (Xn, yn), (Xt, yt) = tasks((10, 50))
    return {
        "X": X, "y": y, "Xv": Xv, "yv": yv, "Xn": Xn, "yn": yn, "Xt": Xt, "yt": yt,
        "TASK": list(range(40)), "NEW": list(range(40)),
        "H0": rng.normal(size=(30, 5)) / np.sqrt(30),
    }  # fmt: skip


def _ridge(A: NDArray, y: NDArray, penalty: float) -> NDArray:
    """The weights of a ridge regression."""
    found: NDArray = np.linalg.solve(A.T @ A + penalty * np.eye(A.shape[1]), A.T @ y)
    return found


def _error(data: Data, H: NDArray, names: Sequence[str], penalty: float) -> float:
    X, y, Xt, yt = (data[n] for n in names)
    errors = [
        ((B @ H @ _ridge(A @ H, a, penalty) - b) ** 2).mean()
        for A, a, B, b in zip(X, y, Xt, yt, strict=True)
    ]
    return float(np.mean(errors))


def _ridges(data: Data, H: NDArray) -> dict[str, float]:
    """Ridge regressions on given features, their penalty by the validation rows, twenty tried."""
    tried = [
        (_error(data, H, ("X", "y", "Xv", "yv"), float(p)), p) for p in np.geomspace(1e-3, 1e3, 20)
    ]
    F, penalty = min(tried)
    return {"F": F, "test_error": _error(data, H, ("Xn", "yn", "Xt", "yt"), float(penalty))}


def all_features(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """No representation: ridge regressions on all features."""
    return _ridges(data, np.eye(data["X"].shape[2]))


def components(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """The representation is made of principal components of single fits to all rows of a task."""
    fits = [
        _ridge(np.vstack([X, Xv]), np.concatenate([y, yv]), 1.0)
        for X, y, Xv, yv in zip(data["X"], data["y"], data["Xv"], data["yv"], strict=True)
    ]
    U, _, _ = np.linalg.svd(np.array(fits).T)
    return _ridges(data, U[:, : data["H0"].shape[1]])


# --- features of images ---------------------------------------------------------------------------


def _same(given: Mapping[str, Network], seed: int) -> Mapping[str, Network]:
    return given


def features(pool: Callable[[], tuple[Pool, Pool]], network: Network, ways: int, seed: int) -> Data:
    """A hundred tasks with one image of each class to fit to and three to rate, and 60 new ones of
    classes never seen. They stay the same, as any backend needs it: `few_shot.py` draws new ones.
    """
    learn, test = pool()
    rng = np.random.default_rng(seed)
    theta0 = network.start(rng)
    known, new = learn.tasks(rng, 100, ways, 1, 3), test.tasks(rng, 60, ways, 1, 5)
    return {
        **known, **{f"{name}n": value for name, value in new.items()}, "theta0": theta0,
        "d": network.features, "ways": ways, "TASK": list(range(100)), "NEW": list(range(60)),
    }  # fmt: skip


def untrained(network: Network, data: Data, seed: int, seconds: float) -> dict[str, float]:
    """The features as they are at the start."""

    def scores(S: str, hot: str, Q: str) -> NDArray:
        with torch.no_grad():
            A, B = (network(torch.tensor(data["theta0"]), torch.tensor(data[n])) for n in (S, Q))
        A, rows = A.numpy(), A.shape[1]
        # The ridge regression of each task, by its dual: fewer rows than features.
        dual = np.linalg.solve(A @ A.transpose(0, 2, 1) + 0.1 * np.eye(rows), data[hot])
        found: NDArray = B.numpy() @ (A.transpose(0, 2, 1) @ dual)
        return found

    Z, labels = 5 * scores("S", "hot", "Q"), data["label"].astype(int)[..., None]
    losses = np.log(np.exp(Z).sum(axis=2)) - np.take_along_axis(Z, labels, axis=2)[..., 0]
    right = scores("Sn", "hotn", "Qn").argmax(axis=2) == data["labeln"]
    decay = 1e-4 * (float((data["theta0"] ** 2).sum()) + 25)
    return {"F": float(losses.mean()) + decay, "accuracy": float(right.mean())}


def pixels(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """No features: the nearest mean of the pixels."""
    new = {name: data[f"{name}n"] for name in ("S", "hot", "Q", "label")}
    return {"F": float("nan"), "accuracy": float(nearest_mean(new).mean())}


# --- poisoning ------------------------------------------------------------------------------------


def poisoning(seed: int) -> Data:
    """Breast-cancer data, 20 rows added to 200 of training: they start as copies of random training
    rows with the other label.
    """
    rng = np.random.default_rng(seed)
    with np.load(MODELS / "data" / "breast_cancer.npz") as z:
        X, y = np.vstack([z["X"], z["Xv"]]), np.concatenate([z["y"], z["yv"]]).astype(float)
    order = rng.permutation(len(y))
    train, known, test = order[:200], order[200:350], order[350:]
    copied = rng.choice(train, 20, replace=False)
    return {
        "X": X[train], "y": y[train], "Xv": X[known], "yv": y[known], "Xt": X[test], "yt": y[test],
        "start_at": np.clip(X[copied], -3, 3), "label": -y[copied],
    }  # fmt: skip


def _attacked(data: Data, P: NDArray) -> dict[str, float]:
    """The fit with rows ``P`` added, and its losses."""
    from sklearn.linear_model import LogisticRegression

    X, y = np.vstack([data["X"], P]), np.concatenate([data["y"], data["label"][: len(P)]])
    model = LogisticRegression(C=1 / (len(y) * 1e-2), fit_intercept=False, max_iter=2_000)
    model.fit(X, y)

    def margins(A: str, b: str) -> NDArray:
        return np.asarray(data[b] * model.decision_function(data[A]))

    test = margins("Xt", "yt")
    return {
        "F": float(np.logaddexp(0, -margins("Xv", "yv")).mean()),
        "test_loss": float(np.logaddexp(0, -test).mean()),
        "test_accuracy": float((test > 0).mean()),
    }


def no_attack(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """The training rows alone."""
    return _attacked(data, data["start_at"][:0])


def flipped(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Copies of rows with the other label, as they are: the start of the attack."""
    return _attacked(data, data["start_at"])


def poisoning_optuna(data: Data, seed: int, seconds: float) -> dict[str, float]:
    """Optuna over all features of all added rows."""
    from baselines import searched

    rows, columns = data["start_at"].shape
    names = [f"P{i},{j}" for i in range(rows) for j in range(columns)]

    def trial(point: Mapping[str, float]) -> dict[str, float]:
        return _attacked(data, np.array([point[n] for n in names]).reshape(rows, columns))

    return searched(trial, dict.fromkeys(names, (-3.0, 3.0)), seed, seconds, larger=True)


if __name__ == "__main__":
    sys.exit(main(settings, "Quadratics, representations, poisoning"))
