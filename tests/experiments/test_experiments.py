"""The experiments in miniature: they run, and what they say of methods is right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.result import Record
from tests.experiments.processes import FOLDER

MODELS = sorted(FOLDER.glob("*.blv"))

pytestmark = pytest.mark.usefixtures("scripts")


def _rows(page: Path) -> dict[str, dict[str, str]]:
    """The last table of a page: rows by method, cells by column."""
    lines = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if "|" in line]
    head = next(k for k in reversed(range(len(lines))) if lines[k][0] == "method")
    names = lines[head]
    return {row[0]: dict(zip(names, row, strict=True)) for row in lines[head + 2 :]}


def _first(rows: dict[str, dict[str, str]], method: str, column: str) -> float:
    row = next(row for name, row in rows.items() if name.startswith(method))
    return float(row[column].split()[0])


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_model_is_right_without_its_data(path: Path) -> None:
    from bilevelpy.cli.main import main

    assert main(["check", str(path)]) == 0


# --- each experiment ------------------------------------------------------------------------------


def test_penalties_beat_the_grid_on_validation_data(tmp_path: Path) -> None:
    """One penalty per feature has the grid's single penalty as a special case."""
    import penalties  # type: ignore[import-not-found]
    from harness import main  # type: ignore[import-not-found]

    page, plots = tmp_path / "page.md", tmp_path / "plots"
    given = ["breast_cancer_features", "--seeds", "1", "--backends", "auto", "--page",
             str(page), "--plots", str(plots), "--state", str(tmp_path / "state")]  # fmt: skip
    assert main(penalties.settings, "Penalties", given) == 0
    rows = _rows(page)
    assert _first(rows, "auto", "F") < _first(rows, "grid of 20", "F")
    assert _first(rows, "Optuna", "F") >= _first(rows, "auto", "F")
    drawn = plots / "breast_cancer_features.svg"
    assert drawn.stat().st_size < 150_000
    assert f"]({drawn.relative_to(tmp_path)})" in page.read_text()
    # A second run takes what it has: the same page.
    before = page.read_text()
    assert main(penalties.settings, "Penalties", given) == 0
    assert page.read_text() == before


def test_a_run_ended_by_a_report_generalises_better_than_the_last_point(tmp_path: Path) -> None:
    """A penalty per pixel overfits the validation images of the digits."""
    import penalties
    from harness import ENDED, run

    setting = {s.name: s for s in penalties.settings(tmp_path)}["digits_features"]
    setting = replace(setting, baselines={}, max_iter=60)
    outcomes = run(setting, 1, ["auto"], 60.0, tmp_path)
    by_name = {o.method: o.numbers for o in outcomes}
    last = next(v for k, v in by_name.items() if k.startswith("auto ("))
    ended = by_name[f"{ENDED} test_loss"]
    assert last["F"] < ended["F"]
    assert ended["test_loss"] < last["test_loss"]


def test_wrong_labels_among_the_digits_are_found(tmp_path: Path) -> None:
    import cleaning  # type: ignore[import-not-found]
    from harness import main

    page = tmp_path / "page.md"
    given = ["digits_0.5", "--seeds", "1", "--backends", "aid", "--page", str(page),
             "--state", str(tmp_path)]  # fmt: skip
    assert main(cleaning.settings, "Cleaning", given) == 0
    rows = _rows(page)
    assert _first(rows, "aid", "f1") > 0.9
    assert (
        _first(rows, "aid", "test_accuracy") > _first(rows, "no cleaning", "test_accuracy") + 0.05
    )


def test_a_network_finds_wrong_labels_among_the_digits(tmp_path: Path) -> None:
    """By batches, no step given: better than the network that is fitted to all labels."""
    import cleaning
    from harness import run

    setting = {s.name: s for s in cleaning.settings(tmp_path)}["digits_0.5_network"]
    none = {"no cleaning": setting.baselines["no cleaning"]}
    setting = replace(setting, baselines=none, max_iter=12)
    # Twelve intervals are the end; the limit is for busy machines.
    plain, found = run(setting, 1, ["auto"], 120.0, tmp_path)
    assert found.method == "auto (f2sa)"
    assert found.numbers["f1"] > 0.9
    assert found.numbers["test_accuracy"] > plain.numbers["test_accuracy"] + 0.05
    # Options that come with the choice of the backend do not make a kept run another one.
    assert run(setting, 1, ["auto"], None, tmp_path)[1].numbers == found.numbers


def test_selection_in_miniature(tmp_path: Path) -> None:
    import selection  # type: ignore[import-not-found]
    from harness import main

    page = tmp_path / "page.md"
    given = ["imbalance_price_0", "svm_breast_cancer", "--seeds", "1", "--backends", "auto",
             "--page", str(page), "--state", str(tmp_path)]  # fmt: skip
    assert main(selection.settings, "Selection", given) == 0
    rows = _rows(page)
    assert _first(rows, "auto", "F") <= _first(rows, "grid of 20", "F")


def test_quadratics_end_at_the_known_optimum(tmp_path: Path) -> None:
    import problems  # type: ignore[import-not-found]
    from harness import run

    setting = {s.name: s for s in problems.settings(tmp_path)}["quadratic_100"]
    for outcome in run(setting, 1, ["auto", "aid"], 60.0, tmp_path):
        assert outcome.numbers["error"] < 1e-6, outcome.method
        assert outcome.status in ("baseline", "converged")


def test_untrained_features_are_the_start_of_those_that_are_learned(tmp_path: Path) -> None:
    """The baseline fits its heads by the dual, the model solves them as followers."""
    import problems

    setting = {s.name: s for s in problems.settings(tmp_path)}["features_digits"]
    data = setting.data(0)
    model = bl.load(FOLDER / setting.model, data=data, externs=setting.externs(0))
    oracle = bl.compile(model)
    y = oracle.response(oracle.x0)
    simple = setting.baselines["untrained features"](data, 0, 0.0)
    assert simple["F"] == pytest.approx(oracle.F(oracle.x0, y), rel=1e-5)
    accuracy = float(oracle.reports(oracle.x0, y)["accuracy"])
    assert simple["accuracy"] == pytest.approx(accuracy, abs=1e-3)
    learned = bl.solve(model, max_iter=3, verify=False)
    assert 0.8 * simple["F"] > learned.F


def test_poisoning_hurts_more_than_flipped_labels(tmp_path: Path) -> None:
    import problems
    import tables  # type: ignore[import-not-found]
    from harness import run

    setting = {s.name: s for s in problems.settings(tmp_path)}["poisoning"]
    outcomes = run(setting, 1, ["aid"], 60.0, tmp_path)
    F = {o.method: o.numbers["F"] for o in outcomes}
    assert F["no attack"] < F["rows with wrong labels"] < F["aid"]
    assert tables.winners(setting, outcomes).startswith("Best F: aid")


# --- reports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[3, 3, 3], [6, 6, 3]])
@pytest.mark.parametrize("name", ["digits", "hyper_cleaning", "softmax"])
def test_accuracy_shares_what_is_tied(name: str, counts: list[int]) -> None:
    """Images without ink: the scores are the intercepts, equal for classes of the same number. A
    guess among k classes is right once in k times, and a class behind another is never right.
    """
    classes = 3 if name == "softmax" else 10
    wide = counts + [0] * (classes - 3)
    y = np.repeat(np.arange(classes), wide)
    rows = {"y": y, "yv": y, "yt": np.arange(classes)}
    pixels = {
        k: np.zeros((len(v), 4)) for k, v in zip(("X", "Xv", "Xt"), rows.values(), strict=True)
    }
    more = {"softmax": {"classes": classes}, "hyper_cleaning": {"wrong": np.zeros(len(y))}}
    folder = FOLDER if name == "softmax" else FOLDER.parent
    model = bl.load(folder / f"{name}.blv", data={**rows, **pixels, **more.get(name, {})})
    result = bl.solve(model, max_iter=0, verify=False)
    best = wide.count(max(wide))
    # One test image of each class: `best` of them are guesses among as many. A score that rounding
    # puts ahead by 1e-15 counts for 1e-6 of one.
    shared = best * (1 / best) / classes
    assert float(result.reports["test_accuracy"]) == pytest.approx(shared, rel=1e-4)


def test_tied_tasks_and_networks_are_guesses_too() -> None:
    import torch

    def flat(theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return 0 * theta.sum() * images[..., :2]

    data = {
        "S": np.ones((2, 4, 3)), "hot": np.tile(np.eye(4), (2, 1, 1)), "Q": np.ones((2, 8, 3)),
        "label": np.tile(np.arange(8) % 4, (2, 1)), "theta0": np.ones(1), "d": 2, "ways": 4,
        "TASK": [0, 1],
    }  # fmt: skip
    model = bl.load(FOLDER / "few_shot.blv", data=data, externs={"support": flat, "query": flat})
    found = bl.solve(model, max_iter=0, verify=False, backend="aid")
    assert float(found.reports["accuracy"]) == pytest.approx(1 / 4)

    def none(theta: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return torch.outer(theta, 0 * image).sum(dim=0)[:1].expand(10)

    y = np.arange(20) % 10
    X = np.ones((20, 3))
    data = {"X": X, "y": y, "Xv": X, "yv": y, "Xt": X, "yt": y, "wrong": np.zeros(20)}
    model = bl.load(
        FOLDER / "cleaning_network.blv", data={**data, "theta0": np.zeros(2)}, externs={"net": none}
    )
    found = bl.solve(model, max_iter=0, verify=False, backend="aid", force=True)
    assert float(found.reports["test_accuracy"]) == pytest.approx(1 / 10)


# --- baselines ------------------------------------------------------------------------------------


def test_scaled_columns_stand_for_penalties(tmp_path: Path) -> None:
    """Optuna's trial is the fit of the model: F at given penalties is the same by both."""
    import baselines  # type: ignore[import-not-found]
    import penalties

    data = penalties.breast_cancer(0)
    lam = np.random.default_rng(0).uniform(-4, 2, size=30)
    scale = np.exp(-lam / 2)
    columns = {name: data[name] * scale for name in ("X", "Xv", "Xt")}
    fitted = baselines._trial({**data, **columns}, 1.0)
    model = bl.load(FOLDER / "logistic.blv", data=data)
    oracle = bl.compile(model)
    assert fitted["F"] == pytest.approx(oracle.F(lam, oracle.response(lam)), rel=1e-4)


def test_a_grid_in_time_is_the_grid_where_there_is_time() -> None:
    import baselines
    import penalties

    data = penalties.breast_cancer(0)
    whole, cut = (baselines.grid_in_time(data, 0, seconds) for seconds in (60.0, 0.0))
    assert whole["F"] == pytest.approx(baselines.grid(data, 0, 0.0)["F"], rel=1e-4)
    assert (whole["trials"], cut["trials"]) == (20, 1)


def test_a_search_keeps_its_best_trial() -> None:
    import baselines

    def trial(point: dict[str, float]) -> dict[str, float]:
        return {"F": (point["a"] - 1) ** 2, "a": point["a"]}

    found = baselines.searched(trial, {"a": (-3.0, 3.0)}, seed=0, seconds=1.0)
    assert found["trials"] > 5
    assert abs(found["a"] - 1) < 0.5
    away = baselines.searched(trial, {"a": (-3.0, 3.0)}, seed=0, seconds=1.0, larger=True)
    assert away["a"] < -2


# --- few-shot learning ----------------------------------------------------------------------------


@pytest.fixture
def tasks() -> Any:
    """The oracle of three tasks on digits, and a point."""
    import few_shot  # type: ignore[import-not-found]
    from few_shot_tasks import Network  # type: ignore[import-not-found]

    learn, _ = few_shot.digits()
    rng = np.random.default_rng(0)
    network = Network(8, 4, 2)
    data = learn.tasks(rng, 3, 4, 2, 3)
    theta = network.start(rng)
    model = bl.load(
        FOLDER / "few_shot.blv",
        data=data, theta0=theta, d=network.features, ways=4, TASK=[0, 1, 2],
        externs={"support": network, "query": network},
    )  # fmt: skip
    return bl.compile(model), np.concatenate([theta, [5.0]])


def test_the_hypergradient_of_tasks_is_that_of_finite_differences(tasks: Any) -> None:
    """Along a direction; the network computes in float32, hence the wide step."""
    oracle, x = tasks
    gradient = oracle.hypergradient(x)
    direction = gradient / np.linalg.norm(gradient)
    h = 1e-2
    values = [oracle.F(p, oracle.response(p)) for p in (x + h * direction, x - h * direction)]
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


def test_differentiation_through_many_steps_tends_to_the_hypergradient(tasks: Any) -> None:
    """Franceschi et al. 2018, theorem 3.2: as the steps go to the lower solution."""
    import few_shot

    oracle, x = tasks
    exact = oracle.hypergradient(x)
    far = np.linalg.norm(few_shot.through_steps(oracle, x, 2) - exact)
    near = np.linalg.norm(few_shot.through_steps(oracle, x, 200) - exact)
    assert near < 0.2 * far


def test_the_nearest_mean_goes_by_the_angle() -> None:
    import few_shot

    data = {
        "S": np.array([[[1.0, 0.0], [0.0, 4.0]]]), "Q": np.array([[[9.0, 1.0], [0.1, 0.2]]]),
        "hot": np.array([np.eye(2)]), "label": np.array([[0.0, 1.0]]),
    }  # fmt: skip
    assert few_shot.nearest_mean(data) == [1.0]


# --- tables ---------------------------------------------------------------------------------------


def _record(time: float, F: float, report: float) -> Record:
    return Record(0, time, F, 0.0, 0.0, 0.0, {"f": 1}, {"loss": report})


def test_times_to_an_accuracy_and_bests_along_a_run() -> None:
    import tables
    from harness import Outcome, Setting

    setting = Setting("s", "m.blv", dict, ("loss",), "loss", larger=False)
    history = [_record(1, 5, 0.4), _record(2, 1.005, 0.3), _record(3, 2, 0.35), _record(4, 1, 0.5)]
    run = Outcome("aid", 0, "converged", {"F": 1.0, "loss": 0.5}, 4.0, history=history)
    assert tables.best(run, setting) == (0.3, 2)
    # Within a percent at 2 s, but not from there on.
    assert tables.reached(run, setting, 1.0) == 4
    assert tables.reached(run, setting, 0.5) == math.inf
    simple = Outcome("grid", 0, "baseline", {"F": 1.5, "loss": 0.2}, 1.0)
    assert math.isnan(tables.reached(simple, setting, 1.0))
    told = tables.winners(setting, [run, simple])
    assert told.startswith("Best F: aid (1). Best loss: grid (0.2): a simpler method wins there")
    assert "never" not in tables.table(setting, [run, simple])
    # Of two seeds, the simple method is better in one: that is no difference.
    again = Outcome("aid", 1, "converged", {"F": 1.0, "loss": 0.1}, 4.0, history=history)
    likewise = Outcome("grid", 1, "baseline", {"F": 1.5, "loss": 0.35}, 1.0)
    told = tables.winners(setting, [run, simple, again, likewise])
    assert told.endswith("the best backend has 0.3 (aid): no clear difference.")


def test_the_limits_that_ended_runs_stand_with_their_status() -> None:
    import tables
    from harness import Outcome, Setting

    setting = Setting("s", "m.blv", dict, (), "loss")

    def run(method: str, seed: int, status: str, limit: float) -> Outcome:
        return Outcome(method, seed, status, {"F": 1.0}, 4.0, limit=limit)

    runs = [run("aid", 0, "time_limit", 40), run("aid", 1, "time_limit", 8.5)]
    runs += [run("nbo", 0, "converged", 15), run("nbo", 1, "time_limit", 15)]
    shown = tables.table(setting, runs)
    assert "| aid | time_limit (8.5 - 40 s) |" in shown
    assert "| nbo | converged 1x, time_limit 1x (15 s) |" in shown


def test_a_run_that_breaks_down_for_a_moment_is_drawn(tmp_path: Path) -> None:
    import curves
    from harness import Outcome, Setting

    setting = Setting("s", "m.blv", dict, ("loss",), "loss", larger=False)
    history = [_record(1, 5, 0.4), _record(2, 3e285, 0.3), _record(3, 1, 0.35)]
    run = Outcome("bagdc", 0, "time_limit", {"F": 1.0, "loss": 0.35}, 4.0, history=history)
    assert curves.draw(setting, [run], tmp_path / "s.svg")
    assert "bagdc" in (tmp_path / "s.svg").read_text(encoding="utf-8")
