"""Tables and pictures of few-shot learning."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Test:
    """Accuracy on tasks of classes never seen before, each with half of its 95 % interval."""

    ways: int
    shots: int
    learned: tuple[float, float]
    untrained: tuple[float, float]
    pixels: tuple[float, float]


@dataclass(frozen=True)
class Run:
    """A training: how many steps it differentiated through (0: hypergradients), what it took, its
    curve (rows of step, seconds, accuracy on new classes) and its tests.
    """

    unrolled: int
    step: int
    seconds: float
    cpu: float
    curve: Sequence[Sequence[float]]
    tests: Sequence[Test]

    @property
    def how(self) -> str:
        """How its gradients were found."""
        return (
            f"differentiation through {self.unrolled} steps" if self.unrolled else "hypergradients"
        )


def mean(right: NDArray) -> tuple[float, float]:
    """Mean over tasks, and half of its 95 % interval."""
    return float(right.mean()), float(1.96 * right.std(ddof=1) / math.sqrt(len(right)))


def table(runs: Sequence[Run]) -> str:
    """Accuracy of each test. With one training, and half of its 95 % interval over the tasks; with
    several, mean and standard deviation over them.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.how, []).append(run)
    learned = [f"learned by {how}" for how in groups]
    head = ["test", *learned, "untrained features", "nearest mean of pixels"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    first = next(iter(groups.values()))
    for k, test in enumerate(first[0].tests):
        cells = [_shown([run.tests[k].learned for run in group]) for group in groups.values()]
        cells += [_shown([run.tests[k].untrained for run in first])]
        cells += [_shown([run.tests[k].pixels for run in first])]
        lines.append(f"| {test.ways}-way {test.shots}-shot | {' | '.join(cells)} |")
    lines.append("")
    for how, group in groups.items():
        minutes = statistics.fmean(run.seconds for run in group) / 60
        cpu = statistics.fmean(run.cpu for run in group) / 60
        steps = " - ".join(str(n) for n in sorted({r.step for r in group}))
        lines.append(
            f"After {steps} steps by {how}, {minutes:.1f} min ({cpu:.1f} min of processor time)."
        )
    if len(first) > 1:
        lines.append(f"Mean and standard deviation of {len(first)} trainings.")
    return "\n".join(lines)


def _shown(values: Sequence[tuple[float, float]]) -> str:
    if len(values) == 1:
        return f"{values[0][0]:.4f} ± {values[0][1]:.4f}"
    found = [value for value, _ in values]
    return f"{statistics.fmean(found):.4f} ± {statistics.stdev(found):.4f}"


def plot(runs: Sequence[Run], path: Path) -> None:
    """Accuracy on new classes along the trainings."""
    from bilevelpy.plotting.figure import COLOURS, DASHES, dress, finish, new_figure

    figure = new_figure(7.0, 3.5)
    axes: Any = figure.subplots()
    ways = list(dict.fromkeys(run.how for run in runs))
    told = set()
    for run in runs:
        if not run.curve:
            continue
        k = ways.index(run.how)
        _, seconds, score = np.array(run.curve).T
        label = None if run.how in told else run.how
        told.add(run.how)
        axes.plot(seconds, score, color=COLOURS[k], linestyle=DASHES[k], linewidth=1.4, label=label)
    axes.set_xlabel("seconds")
    axes.set_ylabel("accuracy on new classes")
    if len(told) > 1:
        axes.legend(frameon=False, fontsize=8)
    dress(axes)
    finish(figure, "", path)
