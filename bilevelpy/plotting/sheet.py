"""A sheet of images with the weights that were learned for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.plotting.figure import finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 10, 3


def sheet(
    images: np.ndarray,
    weights: np.ndarray,
    side: int,
    *,
    name: str,
    labels: np.ndarray | None = None,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """The images with the least weights above, those with the greatest below.

    ``images`` (count, side * side), ``weights`` (count,), ``labels`` (count,) or None: a label is
    written above its image, so that one sees where the two disagree.
    """
    order = np.argsort(weights, kind="stable")
    count = min(COLUMNS * ROWS, len(order) // 2 or 1)
    rows = -(-count // COLUMNS)
    figure = new_figure(9.0, 1.05 * (2 * rows) + 1.4)
    parts: Any = figure.subfigures(2, 1)
    ends = (order[:count], order[::-1][:count])
    groups = [
        (f"{word} {name}: {weights[c].min():.3g} to {weights[c].max():.3g}", c)
        for word, c in zip(("least", "greatest"), ends, strict=True)
    ]
    for part, (words, chosen) in zip(parts, groups, strict=True):
        part.suptitle(words, fontsize=10)
        grid = part.subplots(rows, COLUMNS, squeeze=False)
        for k, axes in enumerate(grid.ravel()):
            axes.set_axis_off()
            if k < len(chosen):
                i = chosen[k]
                axes.imshow(images[i].reshape(side, side), cmap="gray_r", interpolation="nearest")
                words = f"{weights[i]:.2g}" if labels is None else f"label {labels[i]:g}"
                axes.set_title(words, fontsize=7, pad=2)
    return finish(figure, title, path)
