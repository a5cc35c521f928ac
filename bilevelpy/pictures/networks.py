"""Networks in a model: a set of pairs of nodes, and variables over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.ir.elements import label_at
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.types import Axis, AxisKind

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

MAX_ARCS = 400
Named = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Network:
    """Arcs as pairs of node names in the order of the axis, and where the nodes are."""

    bound: BoundProgram
    axis: Axis
    arcs: list[tuple[str, str]]
    places: dict[str, tuple[float, float]]

    def values(self, variables: Named) -> tuple[np.ndarray | None, str]:
        """The values of the first variable over the arcs (sums over its other axes), its name."""
        for level in self.bound.program.levels:
            for v in level.variables:
                if self.axis in v.axes and v.name in variables.get(level.name, {}):
                    array = np.asarray(variables[level.name][v.name], dtype=float)
                    place = v.axes.index(self.axis)
                    others = tuple(k for k in range(array.ndim) if k != place)
                    return array.sum(axis=others), v.name
        return None, ""


def networks(bound: BoundProgram) -> Network:
    """The network of a model: the first set of pairs over one set with a variable over it."""
    for axis in _axes(bound):
        if axis.kind is AxisKind.SUBSET and len(axis.parents) == 1:
            continue
        pairs = axis.kind in (AxisKind.PAIRS, AxisKind.SUBSET) and len(axis.parents) == 2
        if not pairs or axis not in bound.data.sizes:
            continue
        first, second = axis.parents
        if not (first is second or first.descends_from(second) or second.descends_from(first)):
            continue
        size = bound.data.sizes[axis]
        if size > MAX_ARCS:
            raise UsageError(f"a network of {size} arcs is too dense to draw (at most {MAX_ARCS})")
        found = [_pair(bound, axis, k) for k in range(size)]
        nodes = list(dict.fromkeys(n for arc in found for n in arc))
        given = _coordinates(bound, first, nodes)
        if given is None:
            from bilevelpy.plotting.network import positions

            given = positions(nodes, found)
        return Network(bound, axis, found, given)
    raise UsageError(
        f"`{bound.program.name}` has no network to draw: that takes a set of pairs "
        "(`set ARC within NODE * NODE`) and a variable over it"
    )


def _axes(bound: BoundProgram) -> list[Axis]:
    found = [a for level in bound.program.levels for v in level.variables for a in v.axes]
    return list(dict.fromkeys(found))


def _pair(bound: BoundProgram, axis: Axis, k: int) -> tuple[str, str]:
    def value(node: object) -> np.ndarray:
        return evaluate(node, bound.data)  # type: ignore[arg-type]

    label = label_at(axis, k, bound.data, value)
    tail, head = label if isinstance(label, tuple) else (label, label)
    return str(tail), str(head)


def _coordinates(
    bound: BoundProgram, nodes: Axis, names: list[str]
) -> dict[str, tuple[float, float]] | None:
    """Places from a param over (node, 2), or from two params called like coordinates."""

    def value(node: object) -> np.ndarray:
        return evaluate(node, bound.data)  # type: ignore[arg-type]

    size = bound.data.sizes.get(nodes)
    if size is None:
        return None
    labels = [str(label_at(nodes, k, bound.data, value)) for k in range(size)]
    table: np.ndarray | None = None
    flat: dict[str, np.ndarray] = {}
    for param in bound.program.params.values():
        array = bound.data.arrays.get(param.name)
        if array is None or not param.axes or param.axes[0] is not nodes:
            continue
        if len(param.axes) == 2 and array.shape == (size, 2):
            table = np.asarray(array, dtype=float)
            break
        flat[param.name.lower()] = np.asarray(array, dtype=float)
    for x, y in (("x", "y"), ("px", "py"), ("pos_x", "pos_y"), ("lon", "lat"), ("east", "north")):
        if table is None and x in flat and y in flat:
            table = np.stack([flat[x], flat[y]], axis=1)
    if table is None:
        return None
    places = {n: (float(p[0]), float(p[1])) for n, p in zip(labels, table, strict=True)}
    return {n: places[n] for n in names} if all(n in places for n in names) else None
