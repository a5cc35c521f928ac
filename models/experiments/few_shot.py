"""Experiment 3: few-shot learning on Omniglot, or in miniature on the digits of scikit-learn.

The model has the tasks of one step as its followers, solved as one batch. This loop, which is the
user's own, draws new tasks, binds them (nothing is compiled again), takes the hypergradient and
moves the weights of the network by Adam:
``python models/experiments/few_shot.py --data FOLDER --ways 5 20 --shots 1 5``.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from experiment import made
from few_shot_tables import Run, Test, mean, plot, table
from few_shot_tasks import Network, digits, nearest_mean, omniglot
from numpy.typing import NDArray

import bilevelpy as bl
from bilevelpy.system import storage

HERE = Path(__file__).resolve().parent
TITLE = "Few-shot learning with learned features"
# The scale of the scores at the start, and the share of the step size that is left at the end.
SCALE, LEFT = 5.0, 0.02


# --- the two ways to a gradient -------------------------------------------------------------------


def descended(oracle: Any, x: NDArray, steps: int) -> tuple[NDArray, list[NDArray], float]:
    """Where gradient descent on the lower level ends after so many steps, the points before, and
    the size of a step, 1 / L with L by power iteration (the lower level is quadratic, so that a
    difference of gradients is a product with its Hessian).
    """
    level = oracle.grad_f(x, np.zeros(oracle.m))
    v = np.ones(oracle.m)
    for _ in range(8):
        v = oracle.grad_f(x, v / np.linalg.norm(v)) - level
    # A tenth more: power iteration comes from below.
    size = 1 / (1.1 * np.linalg.norm(v))
    y, points = oracle.y0, []
    for _ in range(steps):
        points.append(y)
        y = y - size * oracle.grad_f(x, y)
    return y, points, size


def through_steps(oracle: Any, x: NDArray, steps: int) -> NDArray:
    """The gradient of F after so many steps of descent, by differentiation through them (as in
    MAML): ``u <- u - s f_yy u`` from the last step to the first collects ``-s f_xy u``.
    """
    y, points, size = descended(oracle, x, steps)
    gradient, u = oracle.grad_F(x, y)
    for point in reversed(points):
        curved, across = oracle.pullback(x, point)(u)
        gradient, u = gradient - size * across, u - size * curved
    found: NDArray = gradient
    return found


# --- training -------------------------------------------------------------------------------------


@dataclass
class Training:
    """Where a training is: what has to be kept for it to go on."""

    x: NDArray
    first: NDArray
    second: NDArray
    step: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    # Rows of step, seconds and accuracy on new classes.
    curve: list[list[float]] = field(default_factory=list)
    # Tests of the point as it is, by what they are.
    tests: dict[str, list[list[float]]] = field(default_factory=dict)

    def move(self, gradient: NDArray, rate: float, steps: int) -> None:
        """A step of Adam; its size falls along half a cosine."""
        self.step += 1
        self.tests = {}
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        wave = (1 + math.cos(math.pi * min(1.0, self.step / steps))) / 2
        rate *= max(LEFT, wave) * math.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        self.x = self.x - rate * self.first / (np.sqrt(self.second) + 1e-8)

    def save(self, path: Path, settings: dict[str, Any], rng: np.random.Generator) -> None:
        """Everything, or nothing where it is interrupted."""
        meta = {
            "settings": settings, "step": self.step, "seconds": self.seconds, "cpu": self.cpu,
            "curve": self.curve, "tests": self.tests, "rng": rng.bit_generator.state,
        }  # fmt: skip
        arrays = {"x": self.x, "first": self.first, "second": self.second}
        storage.write_npz(path, arrays, meta)


def restore(path: Path, settings: dict[str, Any], rng: np.random.Generator) -> Training:
    """A training as it was saved; refused where it is one of other settings, or damaged."""
    kept, meta = storage.read_npz(path)
    try:
        then = meta["settings"]
        found = Training(
            kept["x"], kept["first"], kept["second"], int(meta["step"]), float(meta["seconds"]),
            float(meta["cpu"]), [list(map(float, row)) for row in meta["curve"]],
            {n: [list(map(float, p)) for p in test] for n, test in meta.get("tests", {}).items()},
        )  # fmt: skip
        rng.bit_generator.state = meta["rng"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise bl.UsageError(
            f"cannot go on from {path}: it is no training of this script"
        ) from error
    changed = [name for name in settings if settings[name] != then.get(name)]
    if changed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise bl.UsageError(f"cannot go on from {path}: it was begun with other {names}")
    return found


class Learner:
    """The model with a network, and its training."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.learn, self.test = digits() if given.data is None else omniglot(given.data)
        side = round(self.learn.images.shape[2] ** 0.5)
        self.network = Network(side, given.channels, 4 if side == 28 else 2)
        self.ways = min(given.train_ways, len(self.learn.images))
        self.rng = np.random.default_rng(given.seed)
        self.theta0 = self.network.start(self.rng)
        self.model = bl.load(
            HERE / "few_shot.blv",
            data=self._data(self._tasks()),
            externs={"support": self.network, "query": self.network},
        )

    def _tasks(self) -> dict[str, NDArray]:
        given = self.given
        return self.learn.tasks(self.rng, given.tasks, self.ways, given.train_shots, given.queries)

    def _data(self, tasks: dict[str, NDArray]) -> dict[str, Any]:
        return {
            **tasks, "theta0": self.theta0, "d": self.network.features,
            "ways": tasks["hot"].shape[2], "TASK": list(range(len(tasks["S"]))),
        }  # fmt: skip

    def start(self) -> NDArray:
        """Untrained weights and the scale of the scores."""
        return np.concatenate([self.theta0, [SCALE]])

    def train(self) -> Training:
        """Learn the features: to the last step, or to the end of the time."""
        given, x = self.given, self.start()
        now = Training(x, np.zeros_like(x), np.zeros_like(x))
        if given.checkpoint is not None and given.checkpoint.exists():
            now = restore(given.checkpoint, self._settings(), self.rng)
        # The same tasks along the run, drawn apart from those of the final test.
        rng = np.random.default_rng(5_000 + given.seed)
        followed = self.test.tasks(rng, 40, min(5, len(self.test.images)), given.shots[0], 5)
        began, before = time.perf_counter() - now.seconds, time.process_time() - now.cpu
        while now.step < given.steps and time.perf_counter() - began < 60 * given.minutes:
            oracle = bl.compile(self.model.bind(data=self._tasks()))
            if given.unrolled:
                gradient = through_steps(oracle, now.x, given.unrolled)
            else:
                gradient = oracle.hypergradient(now.x)
            now.move(gradient, given.rate, given.steps)
            now.seconds, now.cpu = time.perf_counter() - began, time.process_time() - before
            if now.step % given.every == 0:
                now.curve.append([now.step, now.seconds, self.right(now.x, followed).mean()])
                self._keep(now)
                if given.progress:
                    step, seconds, score = now.curve[-1]
                    print(f"step {step}: {seconds:.0f} s, {score:.4f}", file=sys.stderr, flush=True)
        self._keep(now)
        return now

    def _settings(self) -> dict[str, Any]:
        """What makes a training another one."""
        names = ("seed", "tasks", "train_ways", "train_shots", "queries", "channels", "rate")
        return {name: getattr(self.given, name) for name in (*names, "steps", "unrolled")}

    def _keep(self, now: Training) -> None:
        if self.given.checkpoint is not None:
            now.save(self.given.checkpoint, self._settings(), self.rng)

    def right(self, x: NDArray, data: dict[str, NDArray]) -> NDArray:
        """The share of right queries of every task, about 1,000 images at a time."""
        found = []
        chunk = max(1, 1_000 // (data["S"].shape[1] + data["Q"].shape[1]))
        for first in range(0, len(data["S"]), chunk):
            part = {name: value[first : first + chunk] for name, value in data.items()}
            oracle = bl.compile(self.model.bind(data=self._data(part)))
            steps = self.given.unrolled
            y = descended(oracle, x, steps)[0] if steps else oracle.response(x)
            W = y.reshape(len(part["S"]), self.network.features, -1)
            found.append(self._scores(x, part["Q"], W).argmax(axis=2) == part["label"])
            if len(found) % 5 == 0:
                gc.collect()  # oracles hold their tasks in cycles
        return np.concatenate(found).mean(axis=1)

    def _scores(self, x: NDArray, images: NDArray, W: NDArray) -> NDArray:
        import torch

        with torch.no_grad():
            features = self.network(torch.from_numpy(x[:-1]), torch.from_numpy(images)).numpy()
        scores: NDArray = features @ W
        return scores

    def tests(self, now: Training) -> list[Test]:
        """All ways and shots: learned features, untrained ones, pixels. They take as long as a
        training may, and are kept with it.
        """
        given, found = self.given, []
        for ways in given.ways:
            for shots in given.shots:
                many = min(ways, len(self.test.images))
                name = f"{given.test_tasks} tasks, {many} ways, {shots} shots"
                if name not in now.tests:
                    # Other tasks than those of training, whatever the seed.
                    rng = np.random.default_rng(10_000 + given.seed)
                    unseen = self.test.tasks(rng, given.test_tasks, many, shots, 5)
                    scores = (self.right(now.x, unseen), self.right(self.start(), unseen))
                    now.tests[name] = [[*mean(s)] for s in (*scores, nearest_mean(unseen))]
                    self._keep(now)
                learned, untrained, pixels = ((p[0], p[1]) for p in now.tests[name])
                found.append(Test(many, shots, learned, untrained, pixels))
        return found


# --- the command line -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--data", type=Path, help="folder of the data sets; digits without it")
    parser.add_argument("--ways", type=int, nargs="+", default=[5], help="classes of test tasks")
    parser.add_argument("--shots", type=int, nargs="+", default=[1], help="images of each")
    parser.add_argument("--test-tasks", type=int, default=400)
    parser.add_argument("--train-ways", type=int, default=20, help="classes of training tasks")
    parser.add_argument("--train-shots", type=int, default=1)
    parser.add_argument("--queries", type=int, default=3, help="queries of each class in training")
    parser.add_argument("--tasks", type=int, default=2, help="tasks of a step")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[2000],
        help="of a training; several numbers are one for each number of --unrolled",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=15.0, help="end of training")
    parser.add_argument("--rate", type=float, default=4e-3, help="first step size of Adam")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument(
        "--unrolled", type=int, nargs="+", default=[0],
        help="differentiate through so many steps; 0 (the default) for hypergradients",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--checkpoint", type=Path, help="save the training; go on from it")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--page", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--plot", type=Path, help="write the curve of the training to this file")
    parser.add_argument("--progress", action="store_true", help="tell how far it is")
    given = parser.parse_args(arguments)
    try:
        _check(given)
        steps = given.steps * (len(given.unrolled) if len(given.steps) == 1 else 1)
        ways = list(zip(given.unrolled, steps, strict=True))
        runs = [_run(given, *way, seed) for way in ways for seed in given.seeds]
        shown = table(runs)
        print(shown)
        if given.page is not None:
            storage.write_text(given.page, f"# {TITLE}\n\n{shown}\n")
        if given.plot is not None:
            plot(runs, given.plot)
    except bl.BilevelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; start it again to go on from its checkpoint", file=sys.stderr)
        return 130
    return 0


def _run(given: argparse.Namespace, unrolled: int, steps: int, seed: int) -> Run:
    """One training and its tests; each of several has a checkpoint of its own."""
    kept = given.checkpoint
    if kept is not None and len(given.unrolled) * len(given.seeds) > 1:
        kept = kept.with_stem(f"{kept.stem}-{unrolled}-{seed}")
    own = {"unrolled": unrolled, "steps": steps, "seed": seed, "checkpoint": kept}
    learner = Learner(argparse.Namespace(**{**vars(given), **own}))
    now = learner.train()
    return Run(unrolled, now.step, now.seconds, now.cpu, now.curve, learner.tests(now))


def _check(given: argparse.Namespace) -> None:
    """Refuse numbers that make no tasks."""
    names = ("train_ways", "train_shots", "queries", "tasks", "channels", "every", "test_tasks")
    counts = {name: getattr(given, name) for name in names}
    counts |= {"ways": min(given.ways), "shots": min(given.shots)}
    for name, value in counts.items():
        least = 2 if name in ("ways", "train_ways", "test_tasks") else 1
        if value < least:
            shown = name.replace("_", "-")
            raise bl.UsageError(f"--{shown} must be {least} or more, found {value}")
    if min(*given.steps, *given.unrolled, *given.seeds) < 0:
        raise bl.UsageError("--steps, --unrolled and --seeds must be 0 or more")
    if len(given.steps) not in (1, len(given.unrolled)):
        raise bl.UsageError("--steps takes one number, or as many as --unrolled has")
    for name in ("minutes", "rate"):
        if not getattr(given, name) > 0:
            raise bl.UsageError(f"--{name} must be above 0, found {getattr(given, name):g}")
    for path in (given.page, given.plot, given.checkpoint):
        if path is not None:
            made(path.parent)


if __name__ == "__main__":
    sys.exit(main())
