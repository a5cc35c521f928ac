"""Empty figures in one style, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bilevelpy.errors import UsageError
from bilevelpy.system.storage import path_given, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong's palette: distinct in grey and for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# What tells curves apart where there is no colour at all.
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")


def check_path(path: str | Path | None) -> None:
    """Refuse a file of another kind before anything is drawn."""
    if path is not None and path_given(path, "plot").suffix.lower() not in FORMATS:
        raise UsageError(f"a plot is written as {', '.join(FORMATS)}, not as `{Path(path).name}`")


def new_figure(width: float = 9.0, height: float = 7.5) -> Figure:
    """An empty figure with a canvas of its own: pyplot and its global state stay out of it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib: install the extra `plot`") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, logarithmic: bool = False) -> None:
    """Scale, grid and frame of one panel."""
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def finish(figure: Figure, title: str, path: str | Path | None) -> Figure:
    """Give the figure its title and write it, complete or not at all."""
    if title:
        figure.suptitle(title, fontsize=12)
    if path is not None:
        kind = Path(path).suffix[1:].lower()
        # A date in the file would make two runs differ that are the same.
        metadata = {"Date": None} if kind == "svg" else {}
        write_atomically(
            path, lambda stream: figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
        )
    return figure
