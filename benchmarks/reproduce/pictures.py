"""Convergence plots as small SVG files, told apart by dashes and markers and not by colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

from benchmarks.reproduce.runs import Measured

STYLES = (
    ("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (5, 1)), "v"), ((0, (1, 1)), "x"),
    ((0, (3, 1, 1, 1)), "P"),
)  # fmt: skip
GREYS = ("0.0", "0.35", "0.0", "0.35", "0.55", "0.0", "0.45")
# Points of a curve at most: more of them are not seen.
POINTS = 120
matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "bilevelpy", "font.size": 9, "axes.grid": True,
     "grid.color": "0.9", "legend.frameon": False}
)  # fmt: skip


def _line(axes: Any, k: int, x: Sequence[float], y: Sequence[float], label: str) -> None:
    step = max(1, len(x) // POINTS)
    keep = [*range(0, len(x), step)]
    if keep[-1] != len(x) - 1:
        keep.append(len(x) - 1)
    style, marker = STYLES[k % len(STYLES)]
    axes.plot(
        [x[i] for i in keep],
        [y[i] for i in keep],
        linestyle=style,
        marker=marker,
        markevery=max(1, len(keep) // 8),
        markersize=4,
        color=GREYS[k % len(GREYS)],
        linewidth=1.3,
        label=label,
    )


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def convergence(path: Path, kappa: int, curves: Mapping[str, Measured]) -> None:
    """The exact hypergradient against iterations and against lower gradients plus products."""
    figure, panels = plt.subplots(1, 2, figsize=(8.2, 3.6), sharey=True, layout="constrained")
    for k, (title, m) in enumerate(curves.items()):
        norms = [max(v, 1e-12) for v in m.norms]
        _line(panels[0], k, [i + 1 for i in range(len(norms))], norms, title)
        _line(panels[1], k, [max(c, 1) for c in m.oracles], norms, title)
    for panel, label in zip(panels, ("iteration", "lower gradients + products"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel=label)
    panels[0].set_ylabel(f"exact hypergradient, kappa = {kappa}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, path)


def penalties(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """The error of penalties against their weight."""
    figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for k, (title, points) in enumerate(curves.items()):
        _line(axes, k, [p[0] for p in points], [p[1] for p in points], title)
    axes.set(xscale="log", yscale="log", xlabel="lambda", ylabel="relative error of x")
    axes.legend()
    _save(figure, path)


def losses(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Upper losses against steps."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    for k, (title, values) in enumerate(curves.items()):
        _line(axes, k, list(range(len(values))), values, title)
    axes.set(yscale="log", xlabel="step", ylabel="upper loss")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _save(figure, path)
