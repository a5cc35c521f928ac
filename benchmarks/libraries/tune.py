"""Search of the settings of Betty and BOAT: ``python -m benchmarks.libraries.tune TASK LIBRARY``.

By coordinates: one setting after another takes the value of its list that meets the goal first,
in two rounds; then the same with the other lower solvers. A try ends when it meets the goal, or is
later than the best so far, or after some seconds, or a quarter of them if it is ten times as far
from the goal as the best one got; of tries that miss the goal, the one that comes closest is kept.
Judging is not timed. Each try is printed, and the best one last.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.libraries import GOAL
from benchmarks.libraries.arrays import in_torch
from benchmarks.libraries.engines import Settings
from benchmarks.libraries.problem import Array, OutOfTime, Problem, Watch, clock, followed
from benchmarks.races import hand
from benchmarks.tasks import RACES

# CPU seconds of a try.
TRY = 4.0
# A point is judged when this share of the time has passed since the last one.
EVERY = 0.1
# What is tried; lower rates are in units of 1 / `curvature`.
STEPS = {"lbfgs": (3, 10, 30, 300), "momentum": (3, 10, 30, 100), "adam": (10, 30, 100)}
RATES = (0.3, 1.0, 1.8)
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
ITERATIONS = {
    "cg": (1, 10, 20, 40, 80, 160),
    "ns": (30, 300),
    "rad": (1,),
    "neumann": (3, 10, 30, 100, 300, 1000, 2000),
    "darts": (1,),
}
UPPER = {
    "brisk": (0.1, 0.3, 1.0),
    "sgd": (0.6,),
    "momentum": (1.0, 10.0, 100.0),
    "adam": (0.1, 0.3),
    "rprop": (0.1, 0.3),
}
FACTORS = (0.5, 0.7, 1.4, 2.0)


class Judged(Watch):
    """A watch that looks up the true objective now and then, and stops at the goal."""

    def __init__(self, problem: Problem, goal: float, limit: float, best: float = np.inf) -> None:
        super().__init__(limit)
        self.problem, self.goal, self.next = problem, goal, 0.0
        self.hopeless = goal + 10 * best
        self.lowest = np.inf

    def __call__(self, x: Array) -> None:
        super().__call__(x)
        if self.times[-1] >= self.next:
            paused = clock()
            self.lowest = min(self.lowest, self.problem.truth.reduced(self.points[-1])[0])
            self.began += clock() - paused
            self.next = self.times[-1] * (1 + EVERY)
            late = self.times[-1] > TRY / 4
            if self.lowest <= self.goal or (late and self.lowest > self.hopeless):
                raise OutOfTime


def curvature(problem: Problem) -> float:
    """Largest eigenvalue of the lower Hessian at y = 0, for the start and the largest x."""
    torch, f, _ = in_torch(problem)
    y = torch.zeros(problem.size, dtype=torch.float64, requires_grad=True)
    draw = np.random.default_rng(0)
    sizes = []
    for x in (problem.start, np.full_like(problem.start, problem.high)):
        if not np.isfinite(x).all():
            continue
        (gradient,) = torch.autograd.grad(f(y, torch.tensor(x)), y, create_graph=True)
        v = torch.tensor(draw.standard_normal(problem.size))
        for _ in range(50):
            (v,) = torch.autograd.grad(gradient, y, v / v.norm(), retain_graph=True)
        sizes.append(float(v.norm()))
    return max(sizes)


class Search:
    """Tries, each made once."""

    def __init__(self, problem: Problem, module: Any, goal: float, seconds: float = TRY) -> None:
        self.problem, self.module, self.goal, self.seconds = problem, module, goal, seconds
        self.unit = 1.0 / curvature(problem)
        # Goal missed, seconds, distance from the goal: the smallest is the best.
        self.scores: dict[Settings, tuple[bool, float, float]] = {}

    def score(self, settings: Settings) -> tuple[bool, float, float]:
        """Of a try, which ends when the best one is faster."""
        if settings not in self.scores:
            limit = min([self.seconds, *(s[1] for s in self.scores.values() if not s[0])])
            gaps = [max(s[2], 0.0) for s in self.scores.values()]
            watch = Judged(self.problem, self.goal, limit, min(gaps, default=np.inf))
            followed(self.module.drive(self.problem, settings), watch)
            gap = watch.lowest - self.goal
            seconds = watch.times[-1] if gap <= 0 else self.seconds
            self.scores[settings] = (gap > 0, seconds, gap)
            print(f"{seconds:.3g} s, {gap:+.1e}: {settings}", flush=True)
        return self.scores[settings]

    def round(self, best: Settings, moves: list[Callable[[Settings], list[Settings]]]) -> Settings:
        """Every list once, each from the best so far."""
        for move in moves:
            best = min([best, *move(best)], key=self.score)
        return best

    def upper(self, s: Settings) -> list[Settings]:
        """Upper optimizers with their rates."""
        return [replace(s, upper=u, upper_rate=r) for u, rates in UPPER.items() for r in rates]

    def finer(self, s: Settings) -> list[Settings]:
        """Upper rates near that of ``s``."""
        return [replace(s, upper_rate=round(s.upper_rate * k, 4)) for k in FACTORS]

    def method(self, s: Settings) -> list[Settings]:
        """Hypergradients; an unrolled one needs a lower solver of the library's own."""
        return [
            replace(s, method=m, iterations=i)
            for m in self.module.METHODS
            for i in ITERATIONS[m]
            if m != "rad" or s.lower != "lbfgs"
        ]

    def lower(self, s: Settings) -> list[Settings]:
        """Steps, and rate or tolerance, of the lower solver."""
        return [replace(s, steps=n) for n in STEPS[s.lower]] + (
            [replace(s, tolerance=t) for t in TOLERANCES] if s.lower == "lbfgs" else []
        )

    def rate(self, s: Settings) -> list[Settings]:
        """Rates of lower steps and of Neumann series."""
        scale = 0.03 if s.lower == "adam" else self.unit
        return [replace(s, rate=float(f"{k * scale:.3g}")) for k in RATES]

    def run(self) -> Settings:
        """The best of all."""
        method = self.module.METHODS[0]
        first = Settings(
            rate=float(f"{self.unit:.3g}"), method=method, iterations=ITERATIONS[method][3]
        )
        best = self.round(first, [self.upper, self.method, self.rate, self.lower, self.finer])
        best = self.round(best, [self.upper, self.method, self.rate, self.lower, self.finer])
        for lower in ("momentum", "adam"):
            other = replace(best, lower=lower, steps=STEPS[lower][1])
            self.round(other, [self.rate, self.lower, self.method, self.finer])
        return min(self.scores, key=self.score)


def main() -> None:
    task, library = sys.argv[1:]
    lowest = min(hand(RACES[task]()).values)
    module = importlib.import_module(f"benchmarks.libraries.by_{library}")
    print("best:", Search(Problem(task), module, lowest + GOAL * abs(lowest)).run())


if __name__ == "__main__":
    main()
