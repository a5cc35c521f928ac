"""Solves side by side with other libraries: ``python -m benchmarks libraries``.

Every library gets the same data and start, and settings tuned for the task. jaxopt, optimistix,
TorchOpt and hypergrad give value and hypergradient to SciPy's L-BFGS-B; Betty and BOAT run loops of
their own, by settings that `tune` found. What counts is the true upper objective, at the exactly
re-solved lower level, within 1e-4 (relative) of the lowest one. ``warm`` leaves out compilation,
theirs and ours; ``first`` has it. Each library runs in a process of its own by the interpreter of
the variable BENCH_PYTHON (default: this one); a row says why it is missing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.libraries.problem import LIMIT
from benchmarks.measure import ROOT, Row, seconds
from benchmarks.races import Judge, judge_of, ours
from benchmarks.tasks import RACES, Race

TASKS = ("quadratic-1000", "logistic-22", "breast_cancer", "cleaning-digits")
# Their names here and on the package index.
DISTRIBUTIONS = {
    "jaxopt": "jaxopt",
    "optimistix": "optimistix",
    "torchopt": "torchopt",
    "hypergrad": "hypergrad",
    "betty": "betty-ml",
    "boat": "boat-torch",
}
GOAL = 1e-4


def run(names: list[str] | None = None) -> Iterator[Row]:
    """A row for each task and library."""
    for task in names or TASKS:
        race = RACES[task]()
        model = race.model()
        first = ours(model, race.options)
        warm = min((ours(model, race.options) for _ in range(3)), key=lambda c: c.total)
        judge = judge_of(race)
        for library in DISTRIBUTIONS:
            yield row(race, library, measured(task, library), judge, first, warm)


def row(
    race: Race, library: str, found: dict[str, Any], judge: Judge, first: Any, warm: Any
) -> Row:
    """What a library found, beside ours."""
    name = f"{library}: {race.name}"
    if "error" in found:
        return Row(name, "", "", None, "0.1", found["error"])
    lowest = judge(warm.points[-1])
    goal = lowest + GOAL * abs(lowest)
    best = min(found["values"])
    if best < lowest - GOAL * abs(lowest):
        goal = best + GOAL * abs(best)
    mine = warm.reached(goal, judge)
    theirs = reached(found, "times", goal)
    begun = reached(found, "first_times", goal)
    ended = f"ends {best - lowest:+.0e} from ours in {found['points']} points"
    if theirs == math.inf:
        return Row(name, seconds(mine), "not reached", None, "0.1", f"{found['version']}, {ended}")
    own = seconds(first.reached(goal, judge))
    note = f"{found['version']}; first {seconds(begun)}, ours {own}; {ended}"
    return Row(name, seconds(mine), seconds(theirs), mine / theirs, "0.1", note)


def reached(found: dict[str, Any], key: str, goal: float) -> float:
    """The first of the times at which the goal was met; infinite if it was not."""
    pairs = zip(found[key], found["values"], strict=False)
    return next((t for t, F in pairs if goal >= F), math.inf)


def measured(task: str, library: str) -> dict[str, Any]:
    """What the process of a library found: true values, times of the first and of a warm run."""
    interpreter = os.environ.get("BENCH_PYTHON", sys.executable)
    try:
        done = subprocess.run(
            [interpreter, "-m", "benchmarks.libraries", task, library],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 * LIMIT,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return {"error": f"not measured: {type(error).__name__}"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"not measured: {why[:120]}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found
