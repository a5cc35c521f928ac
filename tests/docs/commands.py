"""Commands of other programs than `bilevelpy` that a page shows, and how a test runs each.

A command runs as it stands, in an empty folder, with exceptions that are written down below:
``SHORTER`` adds options that end a run of minutes after a moment, ``FOLDER`` is a folder of small
data in the formats of the real sets, ``NOT_RUN`` is what no test can run, with its reason; programs
inside `.venv` are those of the present environment.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bilevelpy.cli.main import main

ROOT = Path(__file__).parents[2]
# Options that are added (patterns of commands): the same program, data and methods for a moment.
SHORTER = {
    "python models/experiments/few_shot.py *": (
        "--steps 1 --test-tasks 2 --channels 4 --minutes 0.02"
    ),
    "python models/experiments/* --list": "",
    "python models/experiments/cleaning.py digits_0.5_network *": (
        "--backends f2sa --seeds 1 --time-limit 0.3 --state state"
    ),
    "python models/experiments/*": "--seeds 1 --time-limit 0.3 --state state",
    "python -m benchmarks.streaming *": "--gigabytes 0.002",
    # 5,000 images take a minute: the first 60 of each kind.
    "bilevelpy * models/hyper_cleaning.blv*": "--data part.npz",
}
# What no test runs. Targets, scripts and options are checked all the same.
NOT_RUN = {
    "make test": "it runs these tests, and would run itself",
}
# A script that `bilevelpy export` has written; tests/exporters runs such.
EXPORTED = "F.py"
# Programs of other systems: tests/exporters runs them on what we write where they are installed.
OTHERS = ("ampl", "gams", "julia", "mibs")
NETWORK = ("Connection", "Temporary failure", "No matching distribution", "timed out", "No route")


def reason(command: str) -> str | None:
    """Why no test runs a command, or None."""
    return next((why for p, why in NOT_RUN.items() if fnmatch.fnmatch(command, p)), None)


def run_other(command: str, folder: Path) -> None:
    """Run a command of another program in ``folder``; those in ``NOT_RUN`` are only checked."""
    check_names(command)
    if reason(command) is not None:
        return
    program, *arguments = shlex.split(command)
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        _make(arguments, folder)
    elif program == "pip":
        _pip(arguments)
    elif program == "torchrun":
        _start([sys.executable, "-m", "torch.distributed.run", *arguments], folder)
    elif program == "bilevelpy":
        if "part.npz" in (added := _added(command)):
            with np.load(ROOT / "models" / "data" / "hyper_cleaning.npz") as whole:
                np.savez(folder / "part.npz", **{name: whole[name][:60] for name in whole})
        assert main([*arguments, *added]) == 0, command
    elif arguments[0] == "-m" and arguments[1].startswith("benchmarks"):
        _start([sys.executable, *arguments, *_added(command)], folder)
    elif arguments[0] == "-m":
        _start([sys.executable, *arguments], folder)
    else:
        if "FOLDER" in arguments:
            _small_data(folder / "FOLDER")
        _script(ROOT / arguments[0], [*arguments[1:], *_added(command)])


def _small_data(folder: Path) -> None:
    """The data sets that a user fetches, in their formats: a table, and drawings of characters."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(60, 7))
    table[:, -1] = table[:, 0] + np.sin(table[:, 1])
    (folder / "regression").mkdir(parents=True)
    head = ",".join([*(f"x{j}" for j in range(6)), "y"])
    path = folder / "regression" / "yacht.csv"
    np.savetxt(path, table, delimiter=",", header=head, comments="")
    # 26 characters of 20 drawings each; a drawing is its character with some pixels turned over.
    drawn = (rng.random((26, 1, 784)) < 0.2) ^ (rng.random((26, 20, 784)) < 0.05)
    background = np.arange(26) < 6
    np.savez(folder / "omniglot28.npz", images=np.packbits(drawn, axis=-1), background=background)


def check_names(command: str) -> None:
    """Check that a command's target, script or module exists and knows the options given to it."""
    program, *arguments = shlex.split(command)
    program = program.removeprefix(".venv/bin/")
    options = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (a for a in arguments if "=" not in a):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
            _recipe(target)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None, command
    elif program == "python" and arguments[0] != EXPORTED:
        text = (ROOT / arguments[0]).read_text(encoding="utf-8")
        # Scripts of experiments share their options.
        text += (ROOT / "models" / "experiments" / "harness.py").read_text(encoding="utf-8")
        for option in options:
            assert f'"{option}"' in text, f"{arguments[0]} {option}"
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in ",".join(re.findall(r"\[(.*?)\]", command)).split(","):
            assert not extra or extra in project["optional-dependencies"], f"no extra `{extra}`"
    else:
        assert program in ("bilevelpy", "torchrun", "python", *OTHERS), command


def _added(command: str) -> list[str]:
    """What ``SHORTER`` adds to a command."""
    plain = command.removeprefix(".venv/bin/")
    return shlex.split(next((SHORTER[p] for p in SHORTER if fnmatch.fnmatch(plain, p)), ""))


def _recipe(target: str) -> None:
    """Check that `make` can make a target, and that the programs of its recipe are known."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # The stamps count as made: what they install is the business of the environment.
    stamps = [
        f"--old-file=.venv/.stamp-{n}"
        for n in ("venv", "demo", "test", "consumers", "dev", "docs", "bench")
    ]
    done = subprocess.run(
        ["make", "-n", *stamps, target, "PY=python"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", done.stdout):
        known = importlib.util.find_spec(module) is not None
        assert known or f'"{module}>=' in text, f"make {target}: {module}"
    for script in re.findall(r"python ([\w./]+\.py)", done.stdout):
        assert (ROOT / script).is_file(), f"make {target}: {script}"


def _make(arguments: list[str], folder: Path) -> None:
    """A target with the present environment; what it writes goes to ``folder``."""
    given = ["--old-file=.venv/.stamp-demo", f"PY={sys.executable}", f"DEMO={folder}"]
    if arguments:
        _start(["make", *given, *arguments], ROOT)


def _pip(arguments: list[str]) -> None:
    """Resolve what would be installed: from what is here, else over the network."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
    named = [a for a in arguments[1:] if a != "-e"]
    offline = [*pip, "--no-index", "--no-build-isolation", *named]
    for command in (offline, [*pip, "--timeout", "5", "--retries", "0", *named]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "does not provide the extra" not in done.stderr, done.stderr
        if done.returncode == 0:
            return
    if any(word in done.stderr for word in NETWORK):
        pytest.skip("no network to ask for what is not installed here")
    raise AssertionError(done.stderr)


def _script(path: Path, arguments: list[str]) -> None:
    """A script in this process, where torch is loaded already."""
    before = sys.argv, list(sys.path)
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise AssertionError(f"{path.name} {arguments}: {end.code}") from end
    finally:
        sys.argv, sys.path[:] = before
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(path.parent)):
                del sys.modules[name]


def _start(command: list[str], folder: Path) -> None:
    """A program of its own, which must end with 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PET_STANDALONE"] = "1"  # torchrun: a free port instead of its usual one
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
