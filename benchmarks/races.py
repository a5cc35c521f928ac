"""Solves side by side with hand-written NumPy and SciPy: `python -m benchmarks races`.

Both sides have the same data, the same start and the same goal: the upper objective within 1e-6
(relative) of the larger of the two final values. What counts is the true upper objective, at the
lower level re-solved by a judge of its own, which is not timed. Times are CPU seconds of one
thread, the best of some repeats taken in turn, because the machine that measures may have other
work. Ours is shown three times: `first` loads, compiles, analyses and solves a new model, with the
times of loading and compiling apart; `to goal` counts from the compiled model to the goal, as the
yardstick does from its data; `certified` is a whole warm solve with its certificate.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import bilevelpy as bl
from benchmarks.measure import Row, seconds
from benchmarks.tasks import RACES, Race, simplex
from tests.reference.upper import minimise

clock = time.process_time
GOAL, AIM = 1e-6, 1.2
# Values of inexact lower levels this close to the goal are judged.
NEAR = 1e-3
# Runs of milliseconds are repeated for so many seconds: the first few find the caches cold.
SHORT = 0.5

# Where which local optimum is met decides a race: so many draws of its data.
DRAWS = 12
DRAWN = {"draws-20": 20}
NAMES = (*RACES, *DRAWN)

# The true upper objective at a point.
Judge = Callable[[np.ndarray], float]


@dataclass
class Course:
    """A finished run: points and their objective against CPU time, and what else it took."""

    times: list[float]
    values: list[float]
    points: list[np.ndarray]
    total: float
    compiled: float = 0.0
    status: str = ""
    backend: str = ""

    def reached(self, goal: float, judge: Judge) -> float:
        """When the goal was first met."""
        near = goal + NEAR * abs(goal)
        course = zip(self.times, self.values, self.points, strict=True)
        return next((t for t, F, x in course if near >= F and goal >= judge(x)), self.total)

    def end(self, judge: Judge) -> float:
        """The lowest value."""
        return judge(self.points[int(np.argmin(self.values))])


def judge_of(race: Race) -> Judge:
    """The true upper objective of a race, each point judged once."""
    problem = (race.judge or race.problem)()
    known: dict[bytes, float] = {}

    def judge(x: np.ndarray) -> float:
        key = x.tobytes()
        if key not in known:
            known[key] = float(problem.reduced(x)[0])
        return known[key]

    return judge


def ours(model: bl.Model, options: dict[str, Any]) -> Course:
    """A solve with its course."""
    times: list[float] = []
    values: list[float] = []
    points: list[np.ndarray] = []

    def note(state: Any) -> None:
        times.append(clock() - began)
        values.append(state.F)
        points.append(state.x)

    began = clock()
    result = bl.solve(model, callback=note, progress=False, **options)
    total = clock() - began
    compiled = result.time["compile"]
    return Course(times, values, points, total, compiled, str(result.status), result.backend)


def hand(race: Race) -> Course:
    """The hand-written solution with its course."""
    times: list[float] = []
    values: list[float] = []
    points: list[np.ndarray] = []
    began = clock()
    problem = race.problem()

    def reduced(x: np.ndarray) -> tuple[float, np.ndarray]:
        F, gradient = problem.reduced(x)
        times.append(clock() - began)
        values.append(F)
        points.append(x.copy())
        return race.unit * F, race.unit * gradient

    with contextlib.suppress(np.linalg.LinAlgError):
        minimise(reduced, race.start, race.low, race.high, gradient_tolerance=1e-8)
    return Course(times, values, points, clock() - began)


@dataclass
class Finish:
    """What both sides took to the goal, and where they ended."""

    times: tuple[float, float]
    courses: tuple[Course, Course]
    ends: tuple[float, float]

    @property
    def gap(self) -> float:
        """How much higher the yardstick ends."""
        own, other = self.ends
        return (other - own) / max(abs(max(own, other)), 1e-300)


def finish(race: Race, mine: list[Course], theirs: list[Course]) -> Finish:
    """The quickest courses of each side to the higher of the two ends."""
    judge = judge_of(race)
    ends = mine[0].end(judge), theirs[0].end(judge)
    goal = max(ends) + GOAL * abs(max(ends))
    a, best = min(((c.reached(goal, judge), c) for c in mine), key=lambda pair: pair[0])
    b, yardstick = min(((c.reached(goal, judge), c) for c in theirs), key=lambda pair: pair[0])
    return Finish((a, b), (best, yardstick), ends)


def in_turn(race: Race, model: bl.Model) -> tuple[list[Course], list[Course]]:
    """Repeated runs of both sides."""
    mine, theirs = [], []
    began = clock()
    while len(mine) < race.repeats or (race.repeats > 1 and clock() - began < SHORT):
        mine.append(ours(model, race.options))
        theirs.append(hand(race))
    return mine, theirs


def run_race(race: Race) -> tuple[Row, list[tuple[str, Course]]]:
    """Both sides in turn; the row, and the best course of each."""
    began = clock()
    model = race.model()
    loading = clock() - began
    first = ours(model, race.options)
    mine, theirs = in_turn(race, model)
    found = finish(race, mine, theirs)
    (a, b), (best, yardstick), gap = found.times, found.courses, found.gap
    whole = min(c.total for c in mine)
    note = (
        f"{best.status}, {best.backend}; first {seconds(loading + first.total)} (load "
        f"{seconds(loading)}, compile {seconds(first.compiled)}), certified {seconds(whole)}, the "
        f"yardstick ends {'above' if gap > 0 else 'below'} by {abs(gap):.0e}"
    )
    return Row(race.name, seconds(a), seconds(b), a / b, str(AIM), note), [
        ("bilevelpy", best),
        ("by hand", yardstick),
    ]


def run_draws(n: int) -> Row:
    """The same of several draws of shares: the median ratio, and the times of the median race."""
    found = []
    for seed in range(DRAWS):
        race = simplex(n, seed)
        model = race.model()
        ours(model, race.options)
        found.append(finish(race, *in_turn(race, model)))
    found.sort(key=lambda f: f.times[0] / f.times[1])
    ratios = [f.times[0] / f.times[1] for f in found]
    a, b = found[DRAWS // 2].times
    above, below = (sum(sign * f.gap > GOAL for f in found) for sign in (1, -1))
    note = (
        f"the median of {DRAWS} draws, ratios from {ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"{sum(r > AIM for r in ratios)} above {AIM}; the yardstick ends above in {above} and "
        f"below in {below}"
    )
    return Row(f"simplex, n_y = {n}, other draws", seconds(a), seconds(b), a / b, str(AIM), note)


def run(names: list[str] | None = None, plots: Any = None) -> Iterator[Row]:
    """The rows, one race after another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names or NAMES:
            if name in DRAWN:
                yield run_draws(DRAWN[name])
                continue
            row, courses = run_race(RACES[name]())
            if plots is not None:
                draw_courses(plots / f"{name}.svg", row.task, courses)
            yield row
    finally:
        torch.set_num_threads(threads)


def draw_courses(path: Any, title: str, courses: list[tuple[str, Course]]) -> None:
    """Upper objective above the best one, against CPU time."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    best = min(min(c.values) for _, c in courses)
    size = max(abs(best), 1e-300)
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for label, course in courses:
        lowest = np.minimum.accumulate(course.values)
        axes.loglog(course.times, np.maximum((lowest - best) / size, 1e-12), label=label)
    axes.set(title=title, xlabel="CPU seconds", ylabel="relative gap of F")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
