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


def convergence(
    runs: Mapping[str, Sequence[Record]], *, title: str = "", path: str | Path | None = None
) -> Figure:
    """Three curves per run, against seconds (left) and against evaluations (right).

    The upper objective, the projected hypergradient norm and the lower residual; the norms on
    logarithmic axes. ``path`` ends in .png, .svg or .pdf.
    """
    check_path(path)
    figure = new_figure()
    grid: Any = figure.subplots(3, 2, sharex="col", sharey="row")
    rows = (
        ("upper objective $F$", "F", False),
        ("hypergradient norm", "hypergradient_norm", True),
        ("lower residual", "lower_residual", True),
    )
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
            for axes, where in ((grid[row, 0], seconds), (grid[row, 1], evaluations)):
                axes.plot(where, values, markersize=3, linewidth=1.4, label=name, **style)
    for row, (label, attribute, logarithmic) in enumerate(rows):
        found = [_drawable(getattr(r, attribute), logarithmic) for rs in runs.values() for r in rs]
        grid[row, 0].set_ylabel(label)
        for axes in grid[row]:
            dress(axes, logarithmic and any(math.isfinite(v) for v in found))
    grid[2, 0].set_xlabel("seconds")
    grid[2, 1].set_xlabel("evaluations (values, gradients, products)")
    if len(runs) > 1:
        grid[0, 1].legend(frameon=False, fontsize=9)
    return finish(figure, title, path)


def _drawable(value: float, logarithmic: bool) -> float:
    """``value``, or NaN (a gap in the curve) where the axis cannot show it."""
    return value if math.isfinite(value) and (value > 0 or not logarithmic) else math.nan
