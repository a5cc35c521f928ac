"""The values of an answer: a panel for each variable, every entry a dot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.plotting.figure import COLOURS, MARKERS, dress, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Entries up to which each bears its label, and up to which each has a stem of its own.
LABELLED, STEMS = 24, 60
# Letters of all labels together that fit side by side below a panel.
_LETTERS = 60
_LETTERS_WIDE = 120


@dataclass(frozen=True, slots=True)
class Panel:
    """``values`` of one variable (or of several numbers of one level) with a label for each."""

    title: str
    upper: bool
    labels: tuple[str, ...]
    values: np.ndarray


def values(panels: Sequence[Panel], *, title: str = "", path: str | Path | None = None) -> Figure:
    """Draw the panels: circles are upper variables, squares lower ones."""
    columns = 1 if len(panels) <= 2 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(9.0, 2.3 * rows + 0.9)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    room = _LETTERS_WIDE if columns == 1 else _LETTERS
    for axes, panel in zip(grid.ravel(), panels, strict=False):
        _draw(axes, panel, room)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    return finish(figure, title, path)


def _draw(axes: Any, panel: Panel, room: int) -> None:
    """One panel; where there are too many entries for labels, they are counted."""
    flat = np.asarray(panel.values, dtype=float).ravel()
    at = np.arange(1, flat.size + 1)
    style = {"color": COLOURS[0 if panel.upper else 1], "marker": MARKERS[not panel.upper]}
    few = flat.size <= STEMS
    if few:
        axes.vlines(at, 0.0, flat, color="#999999", linewidth=1.0)
    axes.plot(at, flat, linestyle="", markersize=6 if few else 3, **style)
    axes.axhline(0.0, color="#555555", linewidth=0.7)
    axes.set_title(f"{panel.title} ({'upper' if panel.upper else 'lower'})", fontsize=10)
    axes.set_ylabel("value")
    if flat.size <= LABELLED:
        upright = sum(map(len, panel.labels)) <= room
        turned = {} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(at, panel.labels, fontsize=8, **turned)
        axes.margins(x=0.5 / max(flat.size, 1))
    else:
        axes.set_xlabel(f"entry of {panel.title}")
    dress(axes)
