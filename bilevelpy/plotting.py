"""Figures of a run: convergence against time and against counted evaluations. Needs the extra
``plot``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import UsageError
from bilevelpy.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bilevelpy.result import Record

# Wong's palette: distinct in grey and for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_FORMATS = (".png", ".svg", ".pdf")


def convergence(
    runs: Mapping[str, Sequence[Record]], *, title: str = "", path: str | Path | None = None
) -> Figure:
    """Three curves per run, against seconds (left) and against evaluations (right).

    The upper objective, the projected hypergradient norm and the lower residual; the norms on
    logarithmic axes. ``path`` ends in .png, .svg or .pdf.
    """
    if path is not None and Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"a plot is written as {', '.join(_FORMATS)}, not as `{Path(path).name}`")
    figure = _figure()
    grid: Any = figure.subplots(3, 2, sharex="col", sharey="row")
    rows = (
        ("upper objective $F$", "F", False),
        ("hypergradient norm", "hypergradient_norm", True),
        ("lower residual", "lower_residual", True),
    )
    for k, (name, records) in enumerate(runs.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        seconds = [r.time for r in records]
        evaluations = [float(sum(r.counts.values())) for r in records]
        for row, (_, attribute, logarithmic) in enumerate(rows):
            values = [_drawable(getattr(r, attribute), logarithmic) for r in records]
            for axes, where in ((grid[row, 0], seconds), (grid[row, 1], evaluations)):
                axes.plot(
                    where, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=name
                )
    for row, (label, attribute, logarithmic) in enumerate(rows):
        found = [_drawable(getattr(r, attribute), logarithmic) for rs in runs.values() for r in rs]
        grid[row, 0].set_ylabel(label)
        for axes in grid[row]:
            _dress(axes, logarithmic and any(math.isfinite(v) for v in found))
    grid[2, 0].set_xlabel("seconds")
    grid[2, 1].set_xlabel("evaluations (values, gradients, products)")
    if len(runs) > 1:
        grid[0, 1].legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    if path is not None:
        kind = Path(path).suffix[1:].lower()
        write_atomically(path, lambda stream: figure.savefig(stream, format=kind, dpi=150))
    return figure


def _figure() -> Figure:
    """An empty figure with a canvas of its own: pyplot and its global state stay out of it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib: install the extra `plot`") from error
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _drawable(value: float, logarithmic: bool) -> float:
    """``value``, or NaN (a gap in the curve) where the axis cannot show it."""
    return value if math.isfinite(value) and (value > 0 or not logarithmic) else math.nan


def _dress(axes: Axes, logarithmic: bool) -> None:
    """Scale, grid and frame of one panel."""
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
