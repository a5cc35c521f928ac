"""Experiments that are killed go on to the same result; what is broken is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from tests.experiments.processes import killed, run


@pytest.mark.parametrize(
    ("script", "setting", "backend"),
    [
        ("problems.py", "quadratic_100", "aid"),
        # The penalties have several local optima: only the same course leads to the same one.
        ("penalties.py", "breast_cancer_features", "auto"),
        ("cleaning.py", "digits_0.5", "auto"),
    ],
)
def test_a_killed_experiment_ends_with_the_same_result(
    script: str, setting: str, backend: str, tmp_path: Path
) -> None:
    """Killed at random moments and started again: the point of a run in one go, and its history
    from the first iteration on.
    """
    given = [setting, "--seeds", "1", "--backends", backend, "--no-baselines"]
    place = Path("experiment-output") / setting / f"{backend}-0"
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    assert run(script, *given, folder=folders[0]) == 0
    whole = bl.load_result(folders[0] / place.with_suffix(".npz"))
    random_moments = random.Random(0)
    kept = folders[1] / place.with_name(f"{backend}-0.ckpt")
    count = 0
    for _ in range(3):
        after = random_moments.uniform(0.0, 0.4) * whole.time["solve"]
        count += killed(script, *given, folder=folders[1], kept=kept, after=after)
    assert count
    assert run(script, *given, folder=folders[1]) == 0, (folders[1] / "err").read_text()
    again = bl.load_result(folders[1] / place.with_suffix(".npz"))
    assert again.status == whole.status == "converged"
    assert pytest.approx(whole.F, rel=1e-8) == again.F
    for name, value in whole.upper.items():
        np.testing.assert_allclose(again.upper[name], value, rtol=1e-8, atol=1e-8)
    assert again.iterations == whole.iterations
    assert [r.iteration for r in again.history] == list(range(len(again.history)))
    assert again.history[0].F == whole.history[0].F
    assert not kept.exists()


def test_few_shot_learning_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Killed at some moment and started again: the same features as in one go, to the last bit."""
    given = ["--ways", "3", "--tasks", "3", "--train-ways", "3", "--channels", "4", "--steps", "24",
             "--test-tasks", "10", "--every", "2"]  # fmt: skip
    kept = tmp_path / "whole.npz", tmp_path / "killed.npz"
    script, said = "few_shot.py", []
    assert run(script, *given, "--checkpoint", str(kept[0]), folder=tmp_path) == 0
    said.append((tmp_path / "out").read_text())
    with np.load(kept[0]) as whole:
        took = json.loads(str(whole["meta"]))["seconds"]
    again = [*given, "--checkpoint", str(kept[1])]
    after = random.Random(1).uniform(0.0, 0.5) * took
    assert killed(script, *again, folder=tmp_path, kept=kept[1], after=after)
    assert run(script, *again, folder=tmp_path) == 0, (tmp_path / "err").read_text()
    said.append((tmp_path / "out").read_text())
    assert said[0].split("After")[0] == said[1].split("After")[0]
    with np.load(kept[0]) as a, np.load(kept[1]) as b:
        np.testing.assert_array_equal(a["x"], b["x"])
    assert run(script, *again, "--rate", "0.1", folder=tmp_path) == 2
    assert "begun with other --rate" in (tmp_path / "err").read_text()


# --- refused --------------------------------------------------------------------------------------


@pytest.fixture
def main(scripts: None) -> Any:
    """``main(script, arguments)`` in this process."""

    def call(script: str, *arguments: str) -> int:
        import importlib

        module = importlib.import_module(script)
        if script == "few_shot":
            return int(module.main(list(arguments)))
        harness = importlib.import_module("harness")
        return int(harness.main(module.settings, script, list(arguments)))

    return call


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_training_is_refused(main: Any, tmp_path: Path, capsys: Any) -> None:
    kept = tmp_path / "training.npz"
    given = ["--train-ways", "3", "--channels", "4", "--ways", "3", "--checkpoint", str(kept)]
    for content in (b"PK\x03\x04 not quite a file", b""):
        kept.write_bytes(content)
        assert main("few_shot", *given) == 2
        assert "training.npz" in capsys.readouterr().err
    # A file of something else is refused too.
    np.savez(kept, x=np.zeros(3), meta=np.array("{}"))
    assert main("few_shot", *given) == 2
    assert "no training of this script" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".ckpt", ".npz", ".json"])
def test_half_a_file_of_a_run_is_refused(
    main: Any, tmp_path: Path, capsys: Any, ending: str
) -> None:
    given = ["quadratic_10", "--seeds", "1", "--backends", "aid", "--state", str(tmp_path)]
    assert main("problems", *given) == 0
    run = tmp_path / "quadratic_10" / f"aid-0{ending}"
    if ending == ".ckpt":
        done = run.with_suffix(".npz")
        run.write_bytes(done.read_bytes())
        done.unlink()
    _halved(run)
    capsys.readouterr()
    assert main("problems", *given) == 2
    assert run.name in capsys.readouterr().err


def test_a_run_of_other_data_is_not_taken(main: Any, tmp_path: Path) -> None:
    """Kept runs are of the same data: seed 1 under the name of seed 0 is solved anew."""
    given = ["quadratic_10", "--backends", "aid", "--state", str(tmp_path)]
    assert main("problems", *given, "--seeds", "2") == 0
    folder = tmp_path / "quadratic_10"
    right = bl.load_result(folder / "aid-0.npz").F
    (folder / "aid-0.npz").write_bytes((folder / "aid-1.npz").read_bytes())
    assert main("problems", *given, "--seeds", "1") == 0
    assert pytest.approx(right) == bl.load_result(folder / "aid-0.npz").F


def test_missing_data_says_where_it_comes_from(main: Any, tmp_path: Path, capsys: Any) -> None:
    for script, setting, says in (
        ("penalties", "a9a_scalar", "UCI Adult"),
        ("cleaning", "mnist_5k_0.5", "LeCun"),
        ("selection", "kernel_yacht", "UCI repository"),
    ):
        assert main(script, setting, "--data", str(tmp_path), "--state", str(tmp_path)) == 2
        assert says in capsys.readouterr().err
    assert main("few_shot", "--data", str(tmp_path)) == 2
    assert "Omniglot" in capsys.readouterr().err


def _images(folder: Path, **changed: Any) -> None:
    labels = np.arange(40) % 10
    content = {
        "X_train": np.zeros((40, 28, 28), np.uint8), "y_train": labels,
        "X_test": np.zeros((40, 28, 28), np.uint8), "y_test": labels,
    }  # fmt: skip
    content = {k: v for k, v in {**content, **changed}.items() if v is not None}
    np.savez(folder / "mnist.npz", **content)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y_train": np.arange(40) % 11}, "labels run from 0 to 9, found"),
        ({"y_train": np.arange(40) % 9}, "no row has the label 9"),
        ({"y_test": np.full(40, 3)}, "no row has the label 0, 1"),
        ({"y_train": np.zeros(0)}, "no row has the label 0, 1"),
        ({"y_train": np.full(40, "3")}, "labels are a row of numbers, found <U1 (40,)"),
        ({"y_test": np.zeros((40, 1))}, "labels are a row of numbers, found float64 (40, 1)"),
        ({"y_train": None}, "has no array `y_train`; it should hold MNIST"),
        ({"y_train": (np.arange(40) % 10) + 0.5}, "labels run from 0 to 9, found"),
        ({"X_train": np.zeros((40, 14, 14))}, "needs X_train of shape (40, 28, 28)"),
    ],
)
def test_images_with_wrong_labels(
    main: Any, tmp_path: Path, capsys: Any, changed: dict[str, Any], says: str
) -> None:
    _images(tmp_path, **changed)
    given = ["mnist_5k_0.5", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("cleaning", *given) == 2
    assert says in capsys.readouterr().err


def _census(folder: Path, **changed: Any) -> None:
    """A file like that of a9a, with 40 rows."""
    parts = {}
    for part in ("train", "test"):
        sizes = {"data": np.ones(40), "indices": np.arange(40) % 5, "indptr": np.arange(41)}
        parts |= {f"X_{part}_{k}": v for k, v in sizes.items()}
        parts |= {f"X_{part}_shape": np.array([40, 5]), f"y_{part}": np.arange(40) % 2 * 2 - 1}
    np.savez(folder / "a9a.npz", **{**parts, **changed})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y_train": np.arange(40) % 2}, "a9a.npz: labels are -1 and 1, and there are both; found"),
        ({"y_test": np.ones(40)}, "found [1.0]"),
        ({"y_train": np.arange(20) % 2 * 2 - 1}, "needs a row of X for each label, found (40, 5)"),
        ({"X_train_indptr": np.arange(39)}, "X_train_* is no CSR matrix"),
        ({"X_test_indices": np.full(40, 7)}, "X_test_* is no CSR matrix"),
        ({}, "a9a.npz: needs 32561 rows, found 40"),
    ],
)
def test_rows_with_wrong_labels_or_shapes(
    main: Any, tmp_path: Path, capsys: Any, changed: dict[str, Any], says: str
) -> None:
    _census(tmp_path, **changed)
    assert main("penalties", "a9a_scalar", "--data", str(tmp_path), "--state", str(tmp_path)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "Line #3 (got 1 columns instead of 2)"),
        ("a,b\n" + "1,x\n" * 60, "row 2 holds something that is no number"),
        ("a,b\n" + "1,2\n" * 60, "column 1 holds one number in all rows"),
        ("a,b\n1,2\n", "needs columns of 50 rows or more"),
    ],
)
def test_tables_that_are_none(main: Any, tmp_path: Path, capsys: Any, text: str, says: str) -> None:
    (tmp_path / "regression").mkdir()
    (tmp_path / "regression" / "yacht.csv").write_text(text)
    given = ["kernel_yacht", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("selection", *given) == 2
    assert says in capsys.readouterr().err


def test_tasks_that_cannot_be_drawn(main: Any, tmp_path: Path, capsys: Any) -> None:
    alphabet = {"images": np.zeros((6, 20, 98), np.uint8), "background": np.arange(6) < 3}
    for changed, given, says in (
        ({"images": np.zeros((6, 19, 98), np.uint8)}, [], "needs images uint8 (6, 20, 98)"),
        ({"background": np.arange(6) < 5}, [], "True for two or more classes, False for others"),
        ({}, ["--seeds", "-1"], "must be 0 or more"),
        ({}, ["--steps", "3", "4"], "--steps takes one number, or as many as --unrolled has"),
        ({}, ["--minutes", "nan"], "--minutes must be above 0, found nan"),
        ({}, ["--train-shots", "18"], "takes 18 and 3 images of each class, which has 20"),
        ({}, ["--tasks", "0"], "--tasks must be 1 or more, found 0"),
        ({}, ["--ways", "1"], "--ways must be 2 or more, found 1"),
    ):
        np.savez(tmp_path / "omniglot28.npz", **{**alphabet, **changed})
        assert main("few_shot", "--data", str(tmp_path), *given) == 2
        assert says in capsys.readouterr().err


def test_too_few_images(main: Any, tmp_path: Path, capsys: Any) -> None:
    _images(tmp_path)
    given = ["mnist_5k_0.5", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("cleaning", *given) == 2
    assert "5000" in capsys.readouterr().err


def test_half_a_data_file_is_refused(main: Any, tmp_path: Path, capsys: Any) -> None:
    _images(tmp_path)
    _halved(tmp_path / "mnist.npz")
    given = ["mnist_5k_0.5", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("cleaning", *given) == 2
    assert "damaged" in capsys.readouterr().err


def _cover(folder: Path, **changed: Any) -> None:
    """A file like that of Covertype, with 70 rows."""
    X, y = np.arange(70 * 54).reshape(70, 54) % 9, np.arange(70) % 7 + 1
    content = {"X": X, "y": y, "low": np.zeros(54), "top": np.full(54, 8)}
    np.savez(folder / "covtype.npz", **{**content, **changed})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y": np.arange(70) % 7}, "labels run from 1 to 7, found [0, 1"),
        ({"top": np.zeros(54)}, "needs `low` below `top` for each column"),
        ({"top": np.ones(3)}, "needs `low` below `top` for each column"),
        ({}, "covtype.npz: needs 60000 rows, found 70"),
    ],
)
def test_columns_without_a_range(
    main: Any, tmp_path: Path, capsys: Any, changed: dict[str, Any], says: str
) -> None:
    _cover(tmp_path, **changed)
    given = ["covtype_features", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("penalties", *given) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--seeds", "0"], "--seeds must be 1 or more, found 0"),
        (["--time-limit", "nan"], "--time-limit must be above 0 seconds, found nan"),
        (["--backends", "aid, nowhere"], "no backend is called `nowhere`"),
        (["--state", "file"], "cannot make the folder"),
        (["--plots", "file"], "cannot make the folder"),
        (["--page", "file/page.md"], "cannot make the folder"),
        (["--kept"], "nothing of these settings is kept"),
    ],
)
def test_requests_that_cannot_be_met_are_told_before_any_run(
    main: Any, tmp_path: Path, capsys: Any, monkeypatch: Any, given: list[str], says: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main("problems", "quadratic_10", *given) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "experiment-output").exists() or not list(
        (tmp_path / "experiment-output").iterdir()
    )


def test_what_is_there_when_a_later_setting_fails_is_written(
    main: Any, tmp_path: Path, capsys: Any
) -> None:
    page = tmp_path / "new" / "page.md"
    given = ["breast_cancer_scalar", "a9a_scalar", "--backends", "auto", "--seeds", "1",
             "--no-baselines", "--page", str(page), "--state", str(tmp_path)]  # fmt: skip
    assert main("penalties", *given, "--data", str(tmp_path)) == 2
    assert "a9a.npz" in capsys.readouterr().err
    assert "auto (direct)" in page.read_text()


def test_an_unknown_setting_lists_the_known_ones(main: Any, capsys: Any) -> None:
    assert main("selection", "denoise") == 2
    assert "denoising" in capsys.readouterr().err
