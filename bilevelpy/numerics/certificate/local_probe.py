"""Whether F along re-solved responses falls beside a point: the check of a claim of local
optimality that trusts no derivative.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from bilevelpy.numerics.certificate.probe_rows import Rows, Slopes

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Steps relative to the size of x, directions beside the axes, and evaluations at most.
STEPS = (1e-2, 1e-3)
RANDOM = 8
MOST = 60
# Directions between the best one and its neighbours: rounds, neighbours, upper variables at most.
ROUNDS, NEIGHBOURS, FEW = 3, 4, 6
# A fall of F by more than this (relative) is one.
FALL = 1e-5
# Rows of the leader may be off by this at a point beside.
ROOM = 1e-9
# Rows this close to an end (relative) hold x.
AT = 1e-6


@dataclass(frozen=True, slots=True)
class Probe:
    """``tried`` points beside had responses that suit the leader; the best of them changes F by
    ``-fall``, at the values ``place``. ``late``: the time was up before all were tried.
    """

    tried: int
    fall: float
    place: Array | None
    late: bool = False


def probe(
    system: System,
    v: Array,
    respond: Callable[[Array], Array | None],
    rng: np.random.Generator,
    deadline: float = math.inf,
    chosen: Array | None = None,
    normals: Array | None = None,
    first: Array | None = None,
    slopes: Slopes | None = None,
) -> Probe:
    """Try points beside x; ``respond`` gives values of all columns at best responses. ``chosen``
    are the columns that are moved (else all upper ones), ``normals`` the outward normals there of
    what holds x: directions follow it. ``first`` is a direction to begin with, ``slopes`` those of
    the leader's rows along the responses, where they are known.
    """
    chosen = system.upper_columns if chosen is None else chosen
    low, high = system.columns.lower[chosen], system.columns.upper[chosen]
    here = float(system.objective.value(v)[0])
    axes = [s * e for e in np.eye(chosen.size) for s in (1.0, -1.0)] if chosen.size <= MOST else []
    random = rng.standard_normal((RANDOM, chosen.size))
    random /= np.maximum(np.linalg.norm(random, axis=1, keepdims=True), 1e-300)
    directions = [*axes, *random]
    rng.shuffle(directions)
    if normals is None:
        normals = row_normals(system, v, chosen)
    if normals.size:
        # A step straight across a row that holds x shows nothing: go along it.
        along = [tangent(d, normals) for d in random]
        directions = [*(d for d in along if float(np.linalg.norm(d)) > 1e-6), *directions]
    largest = 0.0 if first is None else float(np.abs(first).max(initial=0.0))
    if first is not None and 0.0 < largest < math.inf:
        first = first / largest  # whose square is a number
        directions = [first / np.linalg.norm(first), *directions]
    size = max(1.0, float(np.abs(v[chosen]).max(initial=0.0)))
    rows = Rows(system, v, chosen, respond, slopes, ROOM * size)
    tried, fall, place = 0, 0.0, None

    def look(d: Array, step: float) -> float | None:
        """How far F falls at a point beside; None where there is none."""
        nonlocal tried, fall, place
        trial = v.copy()
        trial[chosen] = np.clip(v[chosen] + step * size * d, low, high)
        if np.array_equal(trial[chosen], v[chosen]):
            return None
        found = rows.point(trial, lambda: time.perf_counter() > deadline)
        if found is None:
            return None
        tried += 1
        gain = here - float(system.objective.value(found)[0])
        if gain > FALL * max(1.0, abs(here)) and gain > fall:
            fall, place = gain, found
        return gain

    for step in STEPS:
        seen: list[tuple[float, Array]] = []
        wanted = directions[: MOST // len(STEPS)]
        finer = ROUNDS if chosen.size <= FEW and step == STEPS[-1] else 0
        for _ in range(1 + finer):
            for d in wanted:
                if time.perf_counter() > deadline:
                    return Probe(tried, fall, place, late=True)
                gain = look(d, step)
                if gain is not None:
                    seen.append((gain, d))
            wanted = [] if place is not None else between(seen)
    return Probe(tried, fall, place)


def between(seen: list[tuple[float, Array]]) -> list[Array]:
    """Directions halfway from that in which F falls most, or rises least, to those next to it:
    where the edge of a piece of F holds x, the cone of those that lead down may be a narrow one.
    """
    if not seen:
        return []
    best = max(seen, key=lambda pair: pair[0])[1]
    others = sorted((d for _, d in seen if d is not best), key=lambda d: -float(d @ best))
    halves = [best / np.linalg.norm(best) + d / np.linalg.norm(d) for d in others[:NEIGHBOURS]]
    return [d / np.linalg.norm(d) for d in halves if float(np.linalg.norm(d)) > 1e-6]


def tangent(d: Array, normals: Array) -> Array:
    """The projection of a direction onto ``{t : normals t <= 0}``."""
    weights, _ = nnls(normals.T, d)
    return np.asarray(d - normals.T @ weights)


def row_normals(system: System, v: Array, chosen: Array) -> Array:
    """Outward normals in ``chosen`` of the polynomial upper rows that read no lower variable and
    hold x; an equation has two.
    """
    rows, below = system.upper_rows, set(system.lower_columns.tolist())
    found = []
    for r in range(rows.count):
        if r in rows.functions.trees or rows.functions.reads(r) & below:
            continue
        one = rows.functions.take([r])
        slope = np.asarray(one.linear.todense()).reshape(-1)[chosen].astype(float)
        if 0 in one.quadratic:
            slope = slope + (one.quadratic[0] @ v)[chosen]
        found += ends(slope, float(one.value(v)[0]), float(rows.lower[r]), float(rows.upper[r]))
    return np.array(found).reshape(len(found), chosen.size)


def ends(slope: Array, value: float, low: float, high: float) -> list[Array]:
    """The normals at the ends that a value lies at."""
    out = []
    for end, sign in ((high, 1.0), (low, -1.0)):
        if math.isfinite(end) and abs(value - end) <= AT * max(1.0, abs(end)) and slope.any():
            out.append(sign * slope)
    return out
