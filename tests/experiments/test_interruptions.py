"""Experiments that are killed go on to the same result; what is broken is refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl

FOLDER = Path(__file__).resolve().parents[2] / "models" / "experiments"
# Runs the script named first; checkpoints are written at every iteration instead of every 2 s.
EAGER = (
    "import runpy, sys; import bilevelpy.checkpoint as c; c.INTERVAL = 0.0; "
    "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0]); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def _command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", EAGER, str(FOLDER / script), *arguments]


def _run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(script, *arguments), cwd=cwd, capture_output=True, text=True, check=False,
        timeout=250,
    )  # fmt: skip


def _killed(script: str, *arguments: str, cwd: Path, kept: Path, after: float) -> bool:
    """Start a script and kill it some seconds after ``kept`` has been written; whether it was still
    running then.
    """
    process = subprocess.Popen(
        _command(script, *arguments), cwd=cwd, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    before = kept.stat().st_mtime_ns if kept.exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if kept.exists() and kept.stat().st_mtime_ns != before:
            time.sleep(after)
            break
        time.sleep(0.01)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


@pytest.mark.parametrize(
    ("script", "setting", "backend"),
    [("penalties.py", "breast_cancer_features", "aid"), ("cleaning.py", "digits_0.5", "aid")],
)
def test_a_killed_experiment_ends_with_the_same_result(
    script: str, setting: str, backend: str, tmp_path: Path
) -> None:
    """Killed at random moments and started again: the optimum of a run in one go, in the tolerance
    of a converged run, and the history from the first iteration on.
    """
    given = [setting, "--seeds", "1", "--backends", backend, "--no-baselines"]
    place = Path("experiment-output") / setting / f"{backend}-0"
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    assert _run(script, *given, cwd=folders[0]).returncode == 0
    random_moments = random.Random(0)
    kept = folders[1] / place.with_name(f"{backend}-0.ckpt")
    killed = 0
    for _ in range(2):
        after = random_moments.uniform(0.0, 0.3)
        killed += _killed(script, *given, cwd=folders[1], kept=kept, after=after)
    assert killed
    resumed = _run(script, *given, cwd=folders[1])
    assert resumed.returncode == 0, resumed.stderr
    whole, again = (bl.load_result(f / place.with_suffix(".npz")) for f in folders)
    assert again.status == whole.status == "converged"
    assert pytest.approx(whole.F, rel=2e-2) == again.F
    assert [r.iteration for r in again.history] == list(range(len(again.history)))
    assert again.history[0].F == whole.history[0].F
    assert not kept.exists()


def test_few_shot_learning_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Killed at some moment and started again: the same features as in one go, to the last bit."""
    given = ["--ways", "3", "--tasks", "3", "--train-ways", "3", "--channels", "4", "--steps", "60",
             "--test-tasks", "30", "--every", "5"]  # fmt: skip
    kept = tmp_path / "whole.npz", tmp_path / "killed.npz"
    whole = _run("few_shot.py", *given, "--checkpoint", str(kept[0]), cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    again = [*given, "--checkpoint", str(kept[1])]
    after = random.Random(1).uniform(0.0, 0.2)
    _killed("few_shot.py", *again, cwd=tmp_path, kept=kept[1], after=after)
    resumed = _run("few_shot.py", *again, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    tables = [r.stdout.split("After")[0] for r in (whole, resumed)]
    assert tables[0] == tables[1]
    with np.load(kept[0]) as a, np.load(kept[1]) as b:
        np.testing.assert_array_equal(a["x"], b["x"])
    other = _run("few_shot.py", *again, "--rate", "0.1", cwd=tmp_path)
    assert other.returncode == 2
    assert "begun with other --rate" in other.stderr


# --- refused --------------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``main(script, arguments)`` in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def call(script: str, *arguments: str) -> int:
        import importlib

        module = importlib.import_module(script)
        if script == "few_shot":
            return int(module.main(list(arguments)))
        harness = importlib.import_module("harness")
        return int(harness.main(module.settings, script, list(arguments)))

    yield call
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


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
        ({"y_train": None}, "has no array `y_train`; it should hold MNIST"),
    ],
)
def test_images_with_wrong_labels(
    main: Any, tmp_path: Path, capsys: Any, changed: dict[str, Any], says: str
) -> None:
    _images(tmp_path, **changed)
    given = ["mnist_5k_0.5", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert main("cleaning", *given) == 2
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


def test_an_unknown_setting_lists_the_known_ones(main: Any, capsys: Any) -> None:
    assert main("selection", "denoise") == 2
    assert "denoising" in capsys.readouterr().err
