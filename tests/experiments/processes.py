"""Scripts of the experiments in processes of their own, which can be killed.

The processes are forked from one that has imported the package: they start at once.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "models" / "experiments"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bilevelpy.solving", "bilevelpy.backends.registry"])


def start(script: str, *arguments: str, folder: Path) -> BaseProcess:
    """Begin a script in a folder; what it says goes into the files `out` and `err` there."""
    process = CONTEXT.Process(target=_work, args=(script, arguments, folder))
    process.start()
    return process


def run(script: str, *arguments: str, folder: Path) -> int | None:
    """The exit code of a script."""
    process = start(script, *arguments, folder=folder)
    process.join(250)
    return process.exitcode


def killed(script: str, *arguments: str, folder: Path, kept: Path, after: float) -> bool:
    """:func:`cut_short` of a script."""
    return cut_short(lambda: start(script, *arguments, folder=folder), kept, after)


def cut_short(begin: Callable[[], BaseProcess], kept: Path, after: float) -> bool:
    """Start a process and kill it some seconds after ``kept`` has been written; whether it was
    still running then.
    """
    before = kept.stat().st_mtime_ns if kept.exists() else 0
    process = begin()
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline:
        if kept.exists() and kept.stat().st_mtime_ns != before:
            time.sleep(after)
            break
        time.sleep(0.002)
    process.kill()  # SIGKILL
    process.join()
    return process.exitcode == -9


def _work(script: str, arguments: tuple[str, ...], folder: Path) -> None:
    """Run a script as from the command line, with a checkpoint at every iteration instead of every
    2 s.
    """
    import bilevelpy.records.checkpoint

    os.chdir(folder)
    bilevelpy.records.checkpoint.INTERVAL = 0.0
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(FOLDER))
    # Not closed here: the process writes its last words after this function.
    sys.stdout, sys.stderr = open("out", "w"), open("err", "w")  # noqa: SIM115
    runpy.run_path(str(FOLDER / script), run_name="__main__")
