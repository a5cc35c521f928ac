"""One entry for all kinds of pictures of an answer, and which of them a model has."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.ir.types import DomainKind
from bilevelpy.options import did_you_mean
from bilevelpy.pictures.images import images
from bilevelpy.pictures.networks import networks
from bilevelpy.pictures.response import Response, flat_upper, response, shares_of
from bilevelpy.plotting.figure import check_path
from bilevelpy.plotting.landscape import line, plane
from bilevelpy.plotting.landscape import response as draw_response

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.result import Result

Array = np.ndarray[Any, np.dtype[np.float64]]
# Points along a line, side of a grid, curves in one figure.
POINTS, GRID, CURVES = 241, 33, 10
# Entries of x that are tried for a line along which something happens.
CANDIDATES = 8
# Lower variables beyond which each point costs, and the points and the side of the grid then.
COSTLY = ((100, 41, 13), (20, 81, 21))


def draw(
    bound: BoundProgram,
    result: Result,
    kind: str,
    path: str | Path | None = None,
    *,
    along: str | None = None,
    points: int | None = None,
) -> Figure:
    """Draw a picture of an answer.

    Parameters
    ----------
    kind
        "landscape": F(x, y(x)) over one or two upper variables with the path of the run;
        "response": y(x) along a line through the answer; "network": flows and decisions on arcs;
        "images": a sheet of images with their learned weights; "values": the entries of every
        variable.
    along
        For "response": the upper variable (``"lam"``, or one entry ``"lam[3]"``) that moves.
    points
        Points along a line, or a side of the grid; fewer by default where the lower level, which
        is solved at each, is large.

    Raises
    ------
    UsageError
        The model has no such picture; the text says why.
    """
    check_path(path)
    require(bound, kind, along)
    if any(not np.isfinite(v).all() for v in result.upper.values()):
        raise UsageError("the result has no point to draw")
    return _MAKERS[kind](bound, result, path, along, points)


def require(bound: BoundProgram, kind: str, along: str | None = None) -> None:
    """Raise ``UsageError`` with the reason where a model has no picture of this kind."""
    if along is not None and kind != "response":
        raise UsageError(f"only the picture `response` moves along a variable, not `{kind}`")
    if along is not None:
        names = [v.name for v in bound.program.upper.variables]
        if along.partition("[")[0] not in names:
            raise UsageError(f"there is no upper variable `{along}`{did_you_mean(along, names)}")
    if kind == "convergence":
        return
    if kind not in _MAKERS:
        raise UsageError(
            f"there is no picture `{kind}`{did_you_mean(kind, list(KINDS))}; there are: "
            + ", ".join(KINDS)
        )
    name = bound.program.name
    if kind == "network":
        networks(bound)
    elif kind == "images":
        images(bound)
    elif kind == "values":
        return
    elif not bound.program.lowers:
        raise UsageError(f"`{name}` has no lower level, so there is no response to draw")
    elif any(level.nash for level in bound.program.lowers):
        raise UsageError(f"the followers of `{name}` play a Nash game, which is no single response")
    elif kind == "landscape" and _count(bound) not in (1, 2):
        raise UsageError(
            f"a landscape shows one or two upper variables, `{name}` has {_count(bound)}; "
            "the picture `response` follows a line through the answer"
        )
    elif kind == "landscape" and any(
        v.domain.kind is DomainKind.SIMPLEX for v in bound.program.upper.variables
    ):
        raise UsageError(
            f"the shares of a simplex do not move one by one; the picture `response` of `{name}` "
            "moves one and divides the rest"
        )
    elif not _count(bound):
        raise UsageError(f"`{name}` has no upper variables to vary")


def _count(bound: BoundProgram) -> int:
    """The number of upper scalars."""
    upper = bound.program.upper.variables
    return sum(math.prod(bound.data.sizes[a] for a in v.axes) for v in upper)


def drawable(bound: BoundProgram) -> list[str]:
    """The kinds of pictures that a model has, the most telling one first."""
    found = []
    for kind in _MAKERS:
        with contextlib.suppress(UsageError):
            require(bound, kind)
            # Grey levels are not negative; a matrix of coefficients is an image on request only.
            if kind != "images" or images(bound).pixels.min(initial=0.0) >= 0.0:
                found.append(kind)
    return found


def _limits(sample: Response, j: int, centre: float, seen: list[float]) -> tuple[float, float]:
    """The range to show of upper variable ``j``: its bounds, else around what was visited."""
    low, high = float(sample.bounds[0][j]), float(sample.bounds[1][j])
    reach = [centre, *seen]
    span = max(max(reach) - min(reach), abs(centre), 1.0)
    wide = high - low > 50 * span
    low = max(low, min(reach) - span) if wide else low
    high = min(high, max(reach) + span) if wide else high
    return low, high


def _enough(sample: Response) -> tuple[int, int]:
    """Points along a line and the side of a grid, by the size of the lower level."""
    large = (counts for size, *counts in COSTLY if len(sample.lower_names) > size)
    line_points, side = next(large, (POINTS, GRID))
    return line_points, side


def _samples(sample: Response, j: int, low: float, high: float, points: int | None) -> Array:
    """Points between two ends; whole numbers where the variable has no others."""
    if sample.integer[j]:
        return np.arange(math.ceil(low), math.floor(high) + 1, dtype=float)
    return np.linspace(low, high, points or _enough(sample)[0])


def _landscape(
    bound: BoundProgram, result: Result, path: Any, along: str | None, points: int | None
) -> Figure:
    x = flat_upper(bound, result)
    sample = response(bound)
    visited = [r.x for r in result.history if len(r.x) == x.size]
    limits = [_limits(sample, j, float(x[j]), [v[j] for v in visited]) for j in range(x.size)]
    title = f"{result.model}: {result.status}"
    if x.size == 1:
        at = _samples(sample, 0, *limits[0], points)
        values = np.array([sample(np.array([t]))[0] for t in at])
        _some(values)
        return line(
            at,
            values,
            name=sample.names[0],
            answer=(float(x[0]), result.F),
            path_x=[v[0] for v in visited],
            path_F=[r.F for r in result.history if len(r.x) == 1],
            title=title,
            path=path,
            whole=bool(sample.integer[0]),
        )
    side = points or _enough(sample)[1]
    x1, x2 = np.linspace(*limits[0], side), np.linspace(*limits[1], side)
    grid = np.full((side, side), math.nan)
    for j in range(side):
        # Back and forth, so that each solve starts beside the last one.
        for i in range(side) if j % 2 == 0 else reversed(range(side)):
            grid[j, i] = sample(np.array([x1[i], x2[j]]))[0]
    _some(grid)
    return plane(
        x1,
        x2,
        grid,
        names=(sample.names[0], sample.names[1]),
        answer=(float(x[0]), float(x[1])),
        path_x=[(v[0], v[1]) for v in visited],
        title=title,
        path=path,
    )


def _response(
    bound: BoundProgram, result: Result, path: Any, along: str | None, points: int | None
) -> Figure:
    x = flat_upper(bound, result)
    sample = response(bound)
    name, moving = _direction(sample.names, _telling(sample, x) if along is None else along)
    rest = shares_of(bound, moving)
    first = int(np.flatnonzero(moving)[0])
    low, high = (0.0, 1.0) if rest.any() else _limits(sample, first, float(x[first]), [])
    at = _samples(sample, first, low, high, points)
    F = np.empty(at.size)
    y = np.empty((at.size, len(sample.lower_names)))
    for k, t in enumerate(at):
        point = x.copy()
        point[moving] = x[moving] + (t - x[first])
        if rest.any():
            total = float(x[rest].sum())
            point[rest] = (1.0 - t) * (x[rest] / total if total > 0 else 1.0 / rest.sum())
        point = np.clip(point, *sample.bounds)
        F[k], y[k] = sample(point)
    _some(y)
    spread = np.nanmax(y, axis=0) - np.nanmin(y, axis=0)
    shown = np.argsort(-spread, kind="stable")[:CURVES]
    curves = {sample.lower_names[j]: y[:, j] for j in sorted(shown)}
    return draw_response(
        at,
        F,
        curves,
        name=f"{name} (the others share the rest)" if rest.any() else name,
        at=float(x[first]),
        title=f"{result.model}: response along {name}",
        path=path,
        whole=bool(sample.integer[first]),
    )


def _telling(sample: Response, x: Array) -> str:
    """The entry to move by default: of those that the run has moved most, the one whose return to
    its start changes the response most. Some have no effect at all.
    """
    moved = np.abs(x - sample.start)
    order = np.argsort(-moved, kind="stable")[:CANDIDATES]
    order = order[moved[order] > 0.0] if moved.any() else order
    if len(order) == 1:
        return sample.names[int(order[0])]
    here = sample(x)[1]
    effects: list[float] = []
    for j in order:
        low, high = _limits(sample, int(j), float(x[j]), [])
        there = x.copy()
        there[j] = sample.start[j] if x[j] != sample.start[j] else low if x[j] > low else high
        effects.append(float(np.nan_to_num(np.linalg.norm(sample(there)[1] - here), nan=0.0)))
    return sample.names[int(order[int(np.argmax(effects))])]


def _some(values: Array) -> None:
    """Refuse a picture without a single point."""
    if not np.isfinite(values).any():
        raise UsageError(
            "there is nothing to draw: at every point the lower level is not solved, or a row of "
            "the leader is violated"
        )


def _direction(names: list[str], along: str | None) -> tuple[str, Array]:
    """Which entries move together, and what the axis is called."""
    wanted = names[0] if along is None else along
    whole = np.array([n == wanted or n.split("[")[0] == wanted for n in names])
    exact = np.array([n == wanted for n in names])
    moving = exact if exact.any() else whole
    if not moving.any():
        raise UsageError(
            f"there is no upper variable `{wanted}`{did_you_mean(wanted, names[:200])}"
        )
    several = int(moving.sum())
    return (f"{wanted} (all {several} entries shifted)" if several > 1 else wanted), moving


def _network(
    bound: BoundProgram, result: Result, path: Any, along: str | None, points: int | None
) -> Figure:
    from bilevelpy.plotting.network import network

    found = networks(bound)
    flows, flow_name = found.values(result.lower)
    marks, mark_name = found.values({"upper": result.upper})
    return network(
        found.arcs,
        found.places,
        flows=flows,
        flow_name=flow_name,
        marks=marks,
        mark_name=mark_name,
        title=f"{result.model}: {result.status}",
        path=path,
    )


def _images(
    bound: BoundProgram, result: Result, path: Any, along: str | None, points: int | None
) -> Figure:
    from bilevelpy.plotting.sheet import sheet

    found = images(bound)
    weights = np.asarray(result.upper[found.weights], dtype=float)
    title = f"{result.model}: {result.status}"
    return sheet(
        found.pixels,
        weights,
        found.side,
        name=found.weights,
        labels=found.labels,
        title=title,
        path=path,
    )


def _values(
    bound: BoundProgram, result: Result, path: Any, along: str | None, points: int | None
) -> Figure:
    from bilevelpy.pictures.values import panels
    from bilevelpy.plotting.values import values

    title = f"{result.model}: {result.status}"
    return values(panels(bound, result), title=title, path=path)


# The most telling one first.
_MAKERS: dict[str, Callable[..., Figure]] = {
    "network": _network,
    "images": _images,
    "landscape": _landscape,
    "response": _response,
    "values": _values,
}
KINDS = ("convergence", *_MAKERS)
