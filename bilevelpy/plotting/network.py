"""Networks: arcs as wide as their flow, with the leader's decision written on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.plotting.figure import COLOURS, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arc = tuple[str, str]
_WIDEST, _THINNEST = 7.0, 0.8
_PLATE = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85}
_NODE = {"boxstyle": "circle,pad=0.35", "fc": "#f2f2f2", "ec": "#333333"}


def positions(nodes: Sequence[str], arcs: Sequence[Arc]) -> dict[str, tuple[float, float]]:
    """Places for nodes that have no coordinates: path lengths decide (Kamada and Kawai)."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(arcs)
    found = nx.kamada_kawai_layout(graph) if nx.is_connected(graph) else nx.circular_layout(graph)
    return {str(n): (float(p[0]), float(p[1])) for n, p in found.items()}


def network(
    arcs: Sequence[Arc],
    places: Mapping[str, tuple[float, float]],
    *,
    flows: np.ndarray | None = None,
    flow_name: str = "",
    marks: np.ndarray | None = None,
    mark_name: str = "",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the arcs, opposite ones bent apart. ``flows`` set widths, ``marks`` are written."""
    figure = new_figure(8.0, 6.0)
    axes: Any = figure.subplots()
    top = float(np.max(np.abs(flows))) if flows is not None and flows.size else 0.0
    for k, (tail, head) in enumerate(arcs):
        flow = 0.0 if flows is None else float(abs(flows[k]))
        used = top > 0 and flow > 1e-6 * top
        width = _THINNEST + (_WIDEST - _THINNEST) * flow / top if used else _THINNEST
        bend = 0.18 if (head, tail) in arcs or arcs.count((tail, head)) > 1 else 0.0
        axes.annotate(
            "",
            places[head],
            places[tail],
            arrowprops={
                "arrowstyle": "-|>,head_width=0.35,head_length=0.7",
                "linewidth": width,
                "linestyle": "-" if used else ":",
                "color": COLOURS[0] if used else "#888888",
                "shrinkA": 13,
                "shrinkB": 13,
                "connectionstyle": f"arc3,rad={bend}",
                "alpha": 0.85,
            },
        )
        text = _label(flows, marks, k)
        if text:
            (x0, y0), (x1, y1) = places[tail], places[head]
            # The middle of a bent arc lies to its right by half the bend.
            x = (x0 + x1) / 2 + bend / 2 * (y1 - y0)
            y = (y0 + y1) / 2 - bend / 2 * (x1 - x0)
            axes.text(x, y, text, fontsize=8, ha="center", va="center", zorder=5, bbox=_PLATE)
    for name, (x, y) in places.items():
        axes.text(x, y, name, fontsize=10, ha="center", va="center", zorder=6, bbox=_NODE)
    xs, ys = zip(*places.values(), strict=True)
    axes.set_xlim(*_padded(xs))
    axes.set_ylim(*_padded(ys))
    axes.set_axis_off()
    words = [f"width and number: {flow_name}" if flow_name else ""]
    words.append(f"[brackets]: {mark_name}" if mark_name else "")
    legend = "   ".join(w for w in words if w)
    axes.text(0.0, -0.02, legend, transform=axes.transAxes, fontsize=9, color="#444444")
    return finish(figure, title, path)


def _label(flows: np.ndarray | None, marks: np.ndarray | None, k: int) -> str:
    parts = []
    if flows is not None:
        parts.append(f"{flows[k]:.3g}" if abs(flows[k]) > 1e-9 else "0")
    if marks is not None and np.isfinite(marks[k]):
        parts.append(f"[{marks[k]:.3g}]" if abs(marks[k]) > 1e-9 else "[0]")
    return " ".join(parts)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.12 * (high - low) or 0.5
    return low - pad, high + pad
