"""Data for the models of the gallery that come without: that of their experiments, in small."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "models" / "experiments"
# The script of an experiment and its setting whose data comes with the repository.
SETTINGS = {
    "logistic_scalar": ("penalties", "breast_cancer_scalar"),
    "logistic": ("penalties", "breast_cancer_features"),
    "softmax": ("penalties", "digits_features"),
    "cleaning_network": ("cleaning", "digits_0.5_network"),
    "svm_cross_validation": ("selection", "svm_breast_cancer"),
    "denoising": ("selection", "denoising"),
    "imbalance": ("selection", "imbalance_price_10"),
    "quadratic": ("problems", "quadratic_100"),
    "representation": ("problems", "representation"),
    "features": ("problems", "features_digits"),
    "poisoning": ("problems", "poisoning"),
}


@dataclass(frozen=True)
class Given:
    """What a model is bound to, in words and as arrays; ``command`` solves it with the same."""

    words: str
    command: str
    data: dict[str, Any]
    externs: dict[str, Any] = field(default_factory=dict)
    max_iter: int = 500


def data_of(name: str) -> Given | None:
    """The data of the model called ``name``, or None where nothing is known of it."""
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        if name in SETTINGS:
            return _of_setting(*SETTINGS[name])
        maker = _MAKERS.get(name)
        return maker() if maker is not None else None
    finally:
        sys.path.remove(str(EXPERIMENTS))


def _of_setting(script: str, name: str) -> Given:
    module = __import__(script)
    setting = next(s for s in module.settings(Path("data")) if s.name == name)
    return Given(
        f"the data of the setting `{name}` of `models/experiments/{script}.py`, seed 0",
        f"python models/experiments/{script}.py {name} --seeds 1 --no-baselines",
        dict(setting.data(0)),
        dict(setting.externs(0)),
        setting.max_iter,
    )


def _kernel_selection() -> Given:
    """Cross-validation folds of the diabetes data."""
    import numpy as np
    from selection import kernel

    with np.load(ROOT / "models" / "data" / "diabetes.npz") as z:
        X = np.vstack([z["X"], z["Xv"]])
        y = np.concatenate([z["y"], z["yv"]])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "regression" / "diabetes.csv"
        table.parent.mkdir()
        head = ",".join([*(f"x{j}" for j in range(X.shape[1])), "y"])
        np.savetxt(table, np.column_stack([X, y]), delimiter=",", header=head, comments="")
        data = dict(kernel(Path(folder), "diabetes", 0))
    return Given(
        "the diabetes data in `models/data` in five folds, as `models/experiments/selection.py` "
        "makes them, seed 0",
        "python models/experiments/selection.py kernel_yacht --data FOLDER --seeds 1",
        data,
    )


def _few_shot() -> Given:
    """Eight tasks of four digits each, five drawings of each to learn from."""
    import numpy as np
    from few_shot import digits
    from few_shot_tasks import Network

    pool, _ = digits()
    rng = np.random.default_rng(0)
    network = Network(8, 8, 2)
    tasks = pool.tasks(rng, 8, 4, 5, 5)
    data = {**tasks, "theta0": network.start(rng), "TASK": list(range(8)), "ways": 4}
    data |= {"d": network.features}
    return Given(
        "eight tasks of four digits with five drawings each, a network of two blocks and eight "
        "channels, seed 0; training goes over many such draws, see "
        "[few-shot learning](../experiments/few_shot.md)",
        "python models/experiments/few_shot.py --ways 4 --shots 5",
        data,
        {"support": network, "query": network},
        30,
    )


_MAKERS: dict[str, Callable[[], Given]] = {
    "kernel_selection": _kernel_selection,
    "few_shot": _few_shot,
}
