"""Directions in which a follower does better: sets that go along with its response.

Where a whole step ``d`` makes f smaller whatever y is, ``c'd < 0``, y is no best response wherever
``y + d`` holds. So no bilevel feasible point is inside of ::

    S(d) = { (x, y) : A x + B (y + d) <= b + steps,   low <= y + d <= high, with steps to spare }

(Wang and Xu 2017; Fischetti, Ljubic, Monaci and Sinnl 2018). Other than the set of a response it
has no side for f, and rows that d does not come nearer to have no side either: they hold at y.
Steps of one or two whole numbers by one each are few, have few sides, and are known before any
point.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.cuts.intersection import FreeSet
from bilevelpy.backends.exact.cuts.ways_out import whole_steps
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Side = tuple[Array, float, float]

# Whole numbers up to which steps of two are looked at, four a pair, and steps at all.
PAIRS, ALONE = 30, 300
# Sets that a point is looked for in: those that it is deepest inside of.
DEEPEST = 16
# What f falls by at least, relative to its terms: far above what counts as a tie.
FALL = 1e-5
# Changes of rows below this are rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Directions:
    """The directions of a follower with a linear objective and linear rows.

    Sides of rows and bounds ``slopes @ v <= ends`` (divided by the ``norms``), with ``steps`` to
    the next values; a direction has the sides with finite ``limits`` (directions times sides).
    """

    slopes: Array
    norms: Array
    steps: Array
    limits: Array

    @classmethod
    def all(cls, system: System) -> tuple[Directions, ...]:
        """Those of all followers that have some."""
        found = (cls.of(system, k) for k in range(len(system.followers)))
        return tuple(d for d in found if d is not None)

    @classmethod
    def of(cls, system: System, k: int) -> Directions | None:
        """The directions of follower k; None where there are none."""
        sides, kept = _sides(system, k)
        made = _steps(system, k)
        made = made[np.abs(made @ kept.T).max(axis=1, initial=0.0) <= ROUNDING]
        if not (made.size and sides):
            return None
        slopes = np.array([side[0] for side in sides])
        norms = np.linalg.norm(slopes, axis=1)
        ends, steps = (np.array([side[n] for side in sides]) / norms for n in (1, 2))
        slopes /= norms[:, None]
        nearer = made @ slopes.T
        limits = np.where(nearer > ROUNDING, ends + steps - nearer, np.inf)
        return cls(slopes, norms, steps, limits)

    def around(self, v: Array, depth: float) -> list[FreeSet]:
        """The sets that a point is deepest inside of."""
        depths = (self.limits - self.slopes @ v).min(axis=1)
        order = np.argsort(-depths, kind="stable")[:DEEPEST]
        return [self._set(int(n)) for n in order if depths[n] > depth]

    def _set(self, n: int) -> FreeSet:
        near = np.isfinite(self.limits[n])
        norms = self.norms[near]
        return FreeSet(
            self.slopes[near] * norms[:, None],
            self.limits[n][near] * norms,
            self.steps[near] * norms,
        )


def _sides(system: System, k: int) -> tuple[list[Side], Array]:
    """Ends of rows and bounds that a step of follower k may break, with what is to spare; and the
    equations, which a step has to keep.
    """
    columns, own = system.columns, np.flatnonzero(system.columns.owner == k + 1)
    rows = system.lower_rows.take(np.flatnonzero(system.lower_rows.follower == k + 1))
    found: list[Side] = []
    kept = [np.zeros(columns.count)]
    for r in range(rows.count):
        a = np.zeros(columns.count)
        for j, c in linear_terms(rows.functions, r):
            a[j] += c
        if not a[own].any():
            continue
        ends = float(rows.lower[r]), float(rows.upper[r])
        if ends[0] == ends[1]:
            kept.append(a)
            continue
        constant = float(rows.functions.constant[r])
        above, below = whole_steps(system, rows.functions, r, ends)
        found.append((a, ends[1] - constant, 2.0 * above))
        found.append((-a, constant - ends[0], 2.0 * below))
    for j in own[columns.integer[own]]:
        a = np.zeros(columns.count)
        a[j] = 1.0
        found.append((a, float(columns.upper[j]), 1.0))
        found.append((-a, -float(columns.lower[j]), 1.0))
    return [side for side in found if np.isfinite(side[1])], np.array(kept)


def _steps(system: System, k: int) -> Array:
    """Steps of one and two whole numbers by which f clearly falls."""
    columns = system.columns
    own = np.flatnonzero((columns.owner == k + 1) & columns.integer).tolist()
    cost, sizes = np.zeros(columns.count), np.maximum(np.abs(columns.lower), np.abs(columns.upper))
    for j, c in linear_terms(system.lower_objectives, k):
        cost[j] += c * (columns.owner[j] == k + 1)
    terms = float(np.abs(cost) @ np.where(np.isfinite(sizes), sizes, 1.0))
    chosen: list[tuple[tuple[int, float], ...]] = []
    if len(own) <= ALONE:
        chosen += [((j, s),) for j in own for s in (-1.0, 1.0)]
    if len(own) <= PAIRS:
        signs = [(s, t) for s in (-1.0, 1.0) for t in (-1.0, 1.0)]
        chosen += [((i, s), (j, t)) for i, j in combinations(own, 2) for s, t in signs]
    falls = [c for c in chosen if sum(s * cost[j] for j, s in c) < -FALL * max(terms, 1.0)]
    made = np.zeros((len(falls), columns.count))
    for n, step in enumerate(falls):
        for j, change in step:
            made[n, j] = change
    return made
