"""The experiments in miniature: they run, go on after being killed, and refuse what is broken."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bilevelpy as bl

FOLDER = Path(__file__).resolve().parents[2] / "models" / "experiments"
MODELS = sorted(FOLDER.glob("*.blv"))


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner, as its scripts import it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import harness  # type: ignore[import-not-found]

    return harness  # type: ignore[no-any-return]


def _run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_model_is_right_without_its_data(path: Path) -> None:
    from bilevelpy.cli.main import main

    assert main(["check", str(path)]) == 0


def test_penalties_beat_the_grid_on_validation_data(tmp_path: Path) -> None:
    """One penalty per feature has the grid's single penalty as a special case."""
    page = tmp_path / "page.md"
    given = ["breast_cancer_features", "--seeds", "1", "--backends", "auto", "--page", str(page)]
    run = _run("penalties.py", *given, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    F = {row[0].strip("| "): float(row[2]) for row in rows[2:]}
    ours = next(v for k, v in F.items() if k.startswith("auto"))
    assert ours < F["grid of 20"]
    # A second run takes what it has: the same table.
    before = page.read_text()
    assert _run("penalties.py", *given, cwd=tmp_path).returncode == 0
    assert page.read_text() == before


def test_few_shot_learning_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Killed at some moment and started again: the same features as in one go."""
    given = [
        "--ways",
        "3",
        "--tasks",
        "3",
        "--channels",
        "4",
        "--steps",
        "60",
        "--test-tasks",
        "30",
    ]
    whole = _run("few_shot.py", *given, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    kept = tmp_path / "training.npz"
    again = [*given, "--checkpoint", str(kept), "--every", "5"]
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "few_shot.py"), *again],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not kept.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = _run("few_shot.py", *again, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.split(" after ")[0] == whole.stdout.split(" after ")[0]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "training.npz"
    kept.write_bytes(b"PK\x03\x04 not quite a file")
    run = _run("few_shot.py", "--ways", "3", "--checkpoint", str(kept), cwd=tmp_path)
    assert run.returncode == 2
    assert "damaged" in run.stderr
    assert "Traceback" not in run.stderr


def test_missing_data_says_where_it_comes_from(tmp_path: Path) -> None:
    run = _run("penalties.py", "a9a_scalar", "--data", str(tmp_path), cwd=tmp_path)
    assert run.returncode == 2
    assert "UCI Adult" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("labels", "says"),
    [([0, 1, 3], "found"), ([0, 0, 1], "no row has the label 2"), ([0, 1, 1.5], "found")],
)
def test_labels_out_of_range_and_empty_classes(
    experiment: ModuleType, labels: list[float], says: str
) -> None:
    import datasets  # type: ignore[import-not-found]

    with pytest.raises(bl.UsageError, match=says):
        datasets.check_labels("some.npz", np.array(labels), 3)


def test_an_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    run = _run("selection.py", "denoise", cwd=tmp_path)
    assert run.returncode == 2
    assert "denoising" in run.stderr


def test_the_best_of_a_followed_report_is_told_apart_from_the_last(experiment: ModuleType) -> None:
    assert experiment._best([(0.5, 1.0), (0.9, 2.0), (0.7, 3.0)], True) == (0.9, 2.0)
    assert experiment._best([(0.5, 1.0), (0.9, 2.0)], False) == (0.5, 1.0)
    assert math.isnan(experiment._best([], True)[0])
