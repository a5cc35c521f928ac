"""Convergence of runs against time and against counted evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.plotting.figure import (
    COLOURS,
    DASHES,
    MARKERS,
    check_path,
    dress,
    finish,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bilevelpy.result import Record


# Changes of F below this share of it are rounding.
_STILL = 1e-8
# Label of an axis, attribute of a record, whether the axis is logarithmic.
_ROWS = (
    ("upper objective $F$", "F", False),
    ("hypergradient norm", "hypergradient_norm", True),
    ("lower residual", "lower_residual", True),
)


def convergence(
    runs: Mapping[str, Sequence[Record]], *, title: str = "", path: str | Path | None = None
) -> Figure:
    """Three curves per run, against seconds (left) and against evaluations (right).

    The upper objective, the projected hypergradient norm and the lower residual; the norms on
    logarithmic axes. What no run tells (a solver that takes the program as a whole has no norms and
    counts no evaluations) has no panel. ``path`` ends in .png, .svg or .pdf.
    """
    check_path(path)
    records_of_all = [r for records in runs.values() for r in records]
    rows = [
        row
        for row in _ROWS
        if row[1] == "F" or any(_shown(getattr(r, row[1]), row[2]) for r in records_of_all)
    ]
    counted = any(sum(r.counts.values()) for r in records_of_all)
    columns = 2 if counted else 1
    figure = new_figure(9.0, 2.5 * max(len(rows), 1.6))
    grid: Any = figure.subplots(len(rows), columns, sharex="col", sharey="row", squeeze=False)
    for k, (name, records) in enumerate(runs.items()):
        style = {
            "color": COLOURS[k % len(COLOURS)],
            "linestyle": DASHES[k // 2 % len(DASHES)],
            "marker": MARKERS[k % len(MARKERS)],
        }
        seconds = [r.time for r in records]
        evaluations = [float(sum(r.counts.values())) for r in records]
        for row, (_, attribute, logarithmic) in enumerate(rows):
            values = [_drawable(getattr(r, attribute), logarithmic) for r in records]
            for axes, where in zip(grid[row], (seconds, evaluations), strict=False):
                axes.plot(where, values, markersize=3, linewidth=1.4, label=name, **style)
    for row, (label, attribute, logarithmic) in enumerate(rows):
        found = [_drawable(getattr(r, attribute), logarithmic) for r in records_of_all]
        grid[row, 0].set_ylabel(label)
        for axes in grid[row]:
            dress(axes, logarithmic and any(math.isfinite(v) for v in found))
        if not logarithmic:
            _plain(grid[row, 0], [v for v in found if math.isfinite(v)])
    if not any(math.isfinite(r.F) for r in records_of_all):
        nothing = "no value of $F$ was recorded"
        grid[0, 0].text(0.5, 0.5, nothing, ha="center", transform=grid[0, 0].transAxes)
        grid[0, 0].grid(False)
        grid[0, 0].set(xticks=[], yticks=[])  # of an axis without values they would be made up
    grid[-1, 0].set_xlabel("seconds")
    if counted:
        grid[-1, 1].set_xlabel("evaluations (values, gradients, products)")
    if len(runs) > 1:
        grid[0, -1].legend(frameon=False, fontsize=9)
    return finish(figure, title, path)


def _plain(axes: Any, found: list[float]) -> None:
    """Numbers as they are; a value that never moved is a level line, not its rounding."""
    axes.ticklabel_format(axis="y", useOffset=False)
    if found:
        low, high = min(found), max(found)
        size = max(abs(low), abs(high))
        if high - low <= _STILL * size:
            reach = 0.05 * size or 1.0
            axes.set_ylim(low - reach, high + reach)


def _shown(value: float, logarithmic: bool) -> bool:
    """Whether the axis can show a value."""
    return math.isfinite(value) and (value > 0 or not logarithmic)


def _drawable(value: float, logarithmic: bool) -> float:
    """``value``, or NaN (a gap in the curve) where the axis cannot show it."""
    return value if _shown(value, logarithmic) else math.nan
