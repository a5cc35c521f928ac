"""Timing side by side, and rows of the table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, ours, the yardstick, and what is wanted of them."""

    task: str
    ours: str
    yardstick: str
    ratio: float | None = None
    aim: str = ""
    note: str = ""


def side_by_side(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    repeats: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Shortest time of each, the calls taken in turn so that both meet the same disturbances.

    ``clock`` may be that of the process: a busy machine does not disturb it.
    """
    best = [float("inf"), float("inf")]
    ours(), theirs()
    for _ in range(repeats):
        for which, call in enumerate((ours, theirs)):
            begin = clock()
            call()
            best[which] = min(best[which], clock() - begin)
    return best[0], best[1]


def compare(task: str, ours: float, theirs: float, aim: str, note: str = "") -> Row:
    """A row of two times in seconds."""
    return Row(task, seconds(ours), seconds(theirs), ours / theirs, aim, note)


def seconds(value: float) -> str:
    """A time with three digits and a unit that suits it."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def in_subprocess(
    module: str, *arguments: str, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What ``python -m module`` prints as JSON on its last line; its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peak_megabytes() -> float:
    """Largest resident size of this process so far. Where the system tells it by process, not by
    ``getrusage``, whose peak is at least what the parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(li for li in status.read_text("utf-8").splitlines() if li.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
