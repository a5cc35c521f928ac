"""Pictures of an experiment: its runs against time and counted evaluations, median and spread."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiment import Outcome, Setting
from numpy.typing import NDArray
from tables import best, lowest

from bilevelpy.plotting.figure import COLOURS, DASHES, dress, finish, new_figure
from bilevelpy.result import Record
from bilevelpy.system import storage

# Points of a curve, and the relative suboptimality below and above which nothing is shown: a run
# that breaks down for a moment may be at 1e200.
POINTS = 36
FLOOR, CEILING = 1e-6, 1e4
# Methods without a run of their own: a line across.
SIMPLE = ("baseline", "reference")


def draw(setting: Setting, outcomes: Sequence[Outcome], path: Path) -> bool:
    """Write the picture of a setting; False where no run has a history.

    Above how far F is from the best one of its seed (relative), below the held-out report, with
    a dot where its best was passed; left against seconds, right against evaluations. Lines are
    medians over the seeds, bands reach from the tenth to the ninetieth percentile.
    """
    from matplotlib import rc_context

    runs = {
        method: [o for o in outcomes if o.method == method and len(o.history) > 1]
        for method in dict.fromkeys(o.method for o in outcomes)
    }
    runs = {method: found for method, found in runs.items() if found}
    if not runs:
        return False

    def height(outcome: Outcome) -> Callable[[Record], float]:
        least = lowest(setting, outcomes, outcome.seed)
        sign = -1.0 if setting.maximize else 1.0

        def relative(record: Record) -> float:
            distance = sign * (record.F - least) / max(abs(least), 1e-300)
            return min(max(distance, FLOOR), CEILING)

        return relative

    def report(outcome: Outcome) -> Callable[[Record], float]:
        return lambda r: r.reports.get(setting.held_out, math.nan)

    # Letters as letters keep the file small; a fixed salt keeps it the same from run to run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": setting.name}):
        figure = new_figure(9.0, 6.0)
        grid: Any = figure.subplots(2, 2, sharex="col", sharey="row")
        for k, (method, found) in enumerate(runs.items()):
            style = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)]}
            for row, value in enumerate((height, report)):
                for column, place in enumerate((_seconds, _evaluations)):
                    where, curves = _sampled(found, place, value)
                    _curve(grid[row, column], where, curves, method, style)
            tops = [best(o, setting) for o in found]
            at, top = np.median([t for _, t in tops]), np.median([v for v, _ in tops])
            if math.isfinite(at) and at > 0:
                grid[1, 0].plot([at], [top], marker="o", markersize=5, color=style["color"])
        for o in {o.method: o for o in outcomes if o.status in SIMPLE}.values():
            same = [b for b in outcomes if b.method == o.method]
            level = np.median([b.numbers.get(setting.held_out, math.nan) for b in same])
            if math.isfinite(level):
                for axes in grid[1]:
                    axes.axhline(level, color="#999999", linewidth=0.8, linestyle=":")
        grid[0, 0].set_ylabel("distance of F to the best, relative")
        grid[1, 0].set_ylabel(setting.held_out)
        grid[1, 0].set_xlabel("seconds (dotted: baselines)")
        grid[1, 1].set_xlabel("evaluations (values, gradients, products)")
        for row, line in enumerate(grid):
            for axes in line:
                axes.set_xscale("log")
                dress(axes, logarithmic=row == 0)
                axes.minorticks_off()
                _numbered(axes)
        grid[0, 1].legend(frameon=False, fontsize=8)
        finish(figure, setting.name, path)
    storage.write_text(path, shortened(path.read_text(encoding="utf-8")))
    return True


def shortened(svg: str) -> str:
    """Coordinates to a tenth of a point, which is all that can be seen: the digits beyond are most
    of the file. Letters between tags keep theirs.
    """
    return re.sub(r'"[^"]*"', lambda attribute: re.sub(r"(\d\.\d)\d+", r"\1", attribute[0]), svg)


def _numbered(axes: Any) -> None:
    """Numbers between the powers of ten where none of these is in sight."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    low, high = np.log10(axes.get_xlim())
    if math.floor(high) < math.ceil(low):
        axes.xaxis.set_major_locator(LogLocator(subs=(2.0, 3.0, 5.0, 7.0)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))


def _seconds(record: Record) -> float:
    return record.time


def _evaluations(record: Record) -> float:
    return float(sum(record.counts.values()))


def _sampled(
    runs: Sequence[Outcome],
    place: Callable[[Record], float],
    value: Callable[[Outcome], Callable[[Record], float]],
) -> tuple[NDArray, NDArray]:
    """All runs at the same places: what each had reached there, and its end from there on."""
    paths = [[(place(r), value(o)(r)) for r in o.history] for o in runs]
    ends = [p for path in paths for p, _ in path if p > 0]
    first, last = min(ends, default=1e-3), max(ends, default=1.0)
    where = np.geomspace(first, max(last, first * 1.001), POINTS)
    curves = []
    for path in paths:
        places, values = np.array([p for p, _ in path]), np.array([v for _, v in path])
        taken = np.searchsorted(places, where, side="right") - 1
        curves.append(np.where(taken >= 0, values[np.maximum(taken, 0)], np.nan))
    return where, np.array(curves)


def _curve(axes: Any, where: NDArray, curves: NDArray, label: str, style: Any) -> None:
    shown = np.isfinite(curves).all(axis=0)
    if not shown.any():
        return
    where, curves = where[shown], curves[:, shown]
    axes.plot(where, np.median(curves, axis=0), label=label, linewidth=1.4, **style)
    if len(curves) > 1:
        low, high = np.percentile(curves, [10, 90], axis=0)
        axes.fill_between(where, low, high, color=style["color"], alpha=0.15, linewidth=0)
