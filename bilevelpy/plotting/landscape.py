"""The upper objective over the upper variables, the lower level solved at every point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.plotting.figure import COLOURS, DASHES, dress, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.float64]]
# A step that is this much steeper than both of its neighbours is a jump, and drawn as a gap.
_JUMP = 10.0
# A change of slope at one point that is this share of the largest slope is marked as a kink.
_KINK = 0.05
# Whole numbers have nothing in between: a thin line only leads the eye.
_DOTS: dict[str, Any] = {"marker": "o", "markersize": 5, "linewidth": 0.5}


def broken(values: Array) -> Array:
    """``values`` with a gap (NaN) where the curve jumps, so that no line bridges it."""
    steps = np.abs(np.diff(values))
    size = np.nanmax(values) - np.nanmin(values) if np.isfinite(values).any() else 0.0
    out = values.copy()
    for k in range(1, len(steps) - 1):
        around = max(steps[k - 1], steps[k + 1], 0.002 * size)
        if steps[k] > _JUMP * around:
            out[k + 1] = np.nan
    return out


def kinks(x: Array, values: Array) -> Array:
    """The points at which the slope of a curve changes at once.

    A kink puts its whole change of slope on one or two grid points; where the curve is smooth, the
    change is spread evenly over many.
    """
    if len(x) < 7:
        return np.array([])
    slopes = np.diff(values) / np.diff(x)
    bends = np.abs(np.diff(slopes))
    finite = bends[np.isfinite(bends)]
    if not finite.size:
        return np.array([])
    scale = float(np.nanmax(np.abs(slopes)))
    found: list[float] = []
    for k in range(2, len(bends) - 2):
        window = np.r_[bends[max(k - 6, 0) : k - 1], bends[k + 2 : k + 7]]
        usual = float(np.nanmax(window)) if np.isfinite(window).any() else np.inf
        sharp = bends[k] > _KINK * scale and bends[k] > 4.0 * usual
        if sharp and bends[k] >= np.nanmax(bends[k - 1 : k + 2]):
            found.append(float(x[k + 1]))
    return np.array(found)


def line(
    x: Array,
    F: Array,
    *,
    name: str,
    answer: tuple[float, float],
    path_x: Sequence[float] = (),
    path_F: Sequence[float] = (),
    title: str = "",
    path: str | Path | None = None,
    whole: bool = False,
) -> Figure:
    """F(x, y(x)) over one upper variable, with the path of the run and its end."""
    figure = new_figure(8.0, 4.8)
    axes: Any = figure.subplots()
    dots = _DOTS if whole else {}
    values = F if whole else broken(F)
    axes.plot(x, values, color=COLOURS[0], label="$F(x, y(x))$", **{"linewidth": 1.6} | dots)
    for k, at in enumerate([] if whole else kinks(x, F)):
        label = "kink" if k == 0 else None
        axes.axvline(at, color="#777777", linestyle=":", linewidth=1.0, label=label)
    if len(path_x):
        axes.plot(path_x, path_F, color=COLOURS[1], linestyle="--", marker="o", markersize=4,
                  linewidth=1.0, label="path of the run")  # fmt: skip
    axes.plot(*answer, marker="*", markersize=14, color="#000000", linestyle="", label="answer")
    axes.set_xlabel(name)
    axes.set_ylabel("upper objective $F$")
    axes.legend(frameon=False, fontsize=9)
    dress(axes)
    return finish(figure, title, path)


def plane(
    x1: Array,
    x2: Array,
    F: Array,
    *,
    names: tuple[str, str],
    answer: tuple[float, float],
    path_x: Sequence[tuple[float, float]] = (),
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Contours of F(x, y(x)) over two upper variables (``F[j, i]`` at ``x1[i], x2[j]``)."""
    figure = new_figure(7.5, 6.0)
    axes: Any = figure.subplots()
    shown = np.ma.masked_invalid(F)
    filled = axes.contourf(x1, x2, shown, levels=24, cmap="Greys_r", alpha=0.75)
    lines = axes.contour(x1, x2, shown, levels=12, colors="#333333", linewidths=0.6)
    axes.clabel(lines, fontsize=7, fmt="%.3g")
    figure.colorbar(filled, ax=axes, label="upper objective $F(x, y(x))$")
    if len(path_x):
        points = np.asarray(path_x)
        axes.plot(points[:, 0], points[:, 1], color=COLOURS[1], linestyle="--", marker="o",
                  markersize=4, linewidth=1.2, label="path of the run")  # fmt: skip
    axes.plot(*answer, marker="*", markersize=15, color=COLOURS[0], markeredgecolor="white",
              linestyle="", label="answer")  # fmt: skip
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.legend(fontsize=9)
    axes.tick_params(labelsize=9)
    return finish(figure, title, path)


def response(
    t: Array,
    F: Array,
    curves: dict[str, Array],
    *,
    name: str,
    at: float,
    title: str = "",
    path: str | Path | None = None,
    whole: bool = False,
) -> Figure:
    """The response y(x) and F(x, y(x)) along a line; ``at`` is where the answer lies on it."""
    # Where rows of the leader are violated there is no F; a panel without a curve says nothing.
    known = int(np.isfinite(F).sum()) > 1
    figure = new_figure(8.0, 6.5 if known else 4.4)
    rows = 2 if known else 1
    panels: Any = figure.subplots(
        rows, 1, sharex=True, squeeze=False, height_ratios=(1, 1.4)[-rows:]
    )[:, 0]
    low = panels[-1]
    dots = _DOTS if whole else {}
    if known:
        shown = F if whole else broken(F)
        panels[0].plot(t, shown, color="#000000", **{"linewidth": 1.5} | dots)
        panels[0].set_ylabel("upper objective $F$")
        panels[0].ticklabel_format(axis="y", useOffset=False)
    for k, (label, values) in enumerate(curves.items()):
        shown = values if whole else broken(values)
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)]}
        low.plot(t, shown, label=label, **{"linewidth": 1.5} | style | dots)
    low.set_ylabel("response $y(x)$")
    low.set_xlabel(
        name if known else f"{name}  ($F$ is not drawn: rows of the leader are violated)"
    )
    # Below the curves, of which it would hide some.
    figure.legend(
        *low.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False,
        fontsize=8,
    )  # fmt: skip
    for axes in panels:
        axes.axvline(at, color="#777777", linestyle=":", linewidth=1.2)
        dress(axes)
    panels[0].annotate("answer", (at, 1.0), xycoords=("data", "axes fraction"), fontsize=8,
                       ha="center", va="bottom", color="#555555")  # fmt: skip
    return finish(figure, title, path)
