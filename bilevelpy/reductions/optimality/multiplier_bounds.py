"""Bounds of the multipliers of followers that nobody reads: those of basic solutions are enough.

At a point of the conditions with x and y fixed, the multipliers ``m`` meet ::

    g(x, y) + M m = 0,      those of inequalities m >= 0, and 0 where a slack is positive

With them there are others that meet it, whose columns of M are independent (Caratheodory): nobody
who reads x and y alone minds which. Multipliers with an entry in one stationarity row only (bounds
of variables, rows of one variable) are parallel there, so that one of them at most is not 0. The
remaining ones, ``n`` that differ in direction, are settled by as many rows without such an entry::

    n = - inverse(N_K) g_K(x, y)

for some set K of rows. One or two that a part of the follower has are bounded by all K; where N is
totally unimodular (networks, transport, assignment), inverses have entries -1, 0 and 1, so that
``|n|`` is at most the sum of the largest ``|g_j|``. (Bounds of all valid multipliers there are
none, and big constants that are guessed cut off optima: Kleinert, Labbe, Plein, Schmidt 2020.)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bilevelpy.reductions.integer.multiples import is_unimodular
from bilevelpy.reductions.trees import linear_terms
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

Array = np.ndarray[Any, np.dtype[Any]]
Ends = tuple[float, float]

# What is added to an end for rounding (relative), and sizes from which on an end says nothing.
ROOM, LARGEST = 1e-7, 1e5
# Sets of rows that are tried at most, and directions of multipliers up to which they are.
SETS, TRIED = 3000, 3
# Entries that are 0, and directions that are one, up to this.
ROUNDING = 1e-9
# Passes over the rows of a part.
PASSES = 6


@dataclass(slots=True)
class _Part:
    """Stationarity rows that multipliers of several variables tie together.

    ``rows[i]`` are the ends of g there, ``single[i]`` the multipliers of that row alone with their
    coefficients, ``directions`` (directions by rows) the others up to a factor, ``along[d]`` those
    of a direction with that factor.
    """

    rows: list[Ends] = field(default_factory=list)
    single: list[list[tuple[int, float]]] = field(default_factory=list)
    directions: Array = field(default_factory=lambda: np.zeros((0, 0)))
    along: list[list[tuple[int, float]]] = field(default_factory=list)


def with_multiplier_bounds(program: KKT) -> KKT:
    """The conditions with ends for multipliers, where basic ones have some.

    Only for programs in which nothing but stationarity rows reads multipliers: a leader who reads
    shadow prices may want others. Followers whose rows have products of variables stay as they are.
    """
    lower, upper = program.columns.lower.copy(), program.columns.upper.copy()
    for part in _parts(program):
        check()
        ranges = _ranges(part, lower)
        if ranges is None:
            continue
        for d, members in enumerate(part.along):
            for m, factor in members:
                _within(m, sorted((ranges[d][0] / factor, ranges[d][1] / factor)), lower, upper)
        for i, singles in enumerate(part.single):
            low, high = _sum(part.rows[i], part.directions[:, i], ranges)
            for m, c in singles:
                _within(m, sorted((-low / c, -high / c)), lower, upper)
    return replace(program, columns=replace(program.columns, lower=lower, upper=upper))


def _within(m: int, ends: list[float], lower: Array, upper: Array) -> None:
    """Ends of a multiplier, which may always be 0."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if low > -LARGEST:
        lower[m] = max(lower[m], low - ROOM * (1.0 - low))
    if high < LARGEST:
        upper[m] = min(upper[m], high + ROOM * (1.0 + high))


def _parts(program: KKT) -> list[_Part]:
    """The parts of all followers that are covered."""
    rows, columns = program.rows, program.columns
    base = program.system.columns.count
    multipliers = {p.multiplier for p in (*program.pairs, *program.equations)}
    if any(
        program.kinds[r] != "stationarity" and any(j >= base for j in rows.functions.reads(r))
        for r in range(rows.count)
    ):
        return []
    first = program.kinds.index("stationarity") if program.stationary else 0
    spoilt: set[int] = set()
    entries: list[tuple[int, int, float]] = []
    ends: list[Ends] = []
    for place in range(len(program.stationary)):
        r = first + place
        if r in rows.functions.trees or r in rows.functions.quadratic:
            spoilt.add(int(rows.follower[r]))
            ends.append((-math.inf, math.inf))
            continue
        low = high = -float(rows.lower[r])
        for j, c in linear_terms(rows.functions, r):
            if j in multipliers:
                entries.append((place, j, c))
            else:
                a, b = sorted((c * float(columns.lower[j]), c * float(columns.upper[j])))
                low, high = low + a, high + b
        ends.append((low, high))
    count = len(program.stationary)
    data = ([e[2] for e in entries], ([e[0] for e in entries], [e[1] for e in entries]))
    matrix = sp.csc_array(data, shape=(count, columns.count))
    if not matrix.nnz:
        return []
    _, label = connected_components(sp.csr_array(abs(matrix) @ abs(matrix).T), directed=False)
    members: dict[int, list[int]] = {}
    for place in range(count):
        if int(rows.follower[first + place]) not in spoilt:
            members.setdefault(int(label[place]), []).append(place)
    return [_part(matrix, places, ends) for places in members.values()]


def _part(matrix: Any, places: list[int], ends: list[Ends]) -> _Part:
    at = {p: i for i, p in enumerate(places)}
    part = _Part([ends[p] for p in places], [[] for _ in places])
    own = sp.csc_array(sp.csr_array(matrix)[places])
    known: dict[tuple[tuple[int, float], ...], int] = {}
    found: list[tuple[tuple[int, float], ...]] = []
    for j in np.flatnonzero(np.diff(own.indptr)).tolist():
        span = slice(own.indptr[j], own.indptr[j + 1])
        column = sorted(zip(own.indices[span].tolist(), own.data[span].tolist(), strict=True))
        if len(column) == 1:
            part.single[column[0][0]].append((j, column[0][1]))
            continue
        # Parallel columns, as those of both ends of a row, are one direction.
        factor = column[0][1]
        key = tuple((i, round(c / factor, 9)) for i, c in column)
        if key not in known:
            known[key] = len(found)
            found.append(tuple((i, c / factor) for i, c in column))
            part.along.append([])
        part.along[known[key]].append((j, factor))
    part.directions = np.zeros((len(found), len(at)))
    for d, terms in enumerate(found):
        for i, c in terms:
            part.directions[d, i] = c
    return part


def _ranges(part: _Part, lower: Array) -> list[Ends] | None:
    """Ends of the value along every direction (the multiplier times its factor); None where
    nothing is known.
    """
    count = len(part.along)
    if not count:
        return []
    found = _tried(part) or _unimodular(part)
    if found is None:
        return None
    low = np.array([e[0] for e in found])
    high = np.array([e[1] for e in found])
    for d, members in enumerate(part.along):
        if all(lower[m] >= 0.0 for m, _ in members):
            signs = {factor > 0.0 for _, factor in members}
            if signs == {True}:
                low[d] = max(low[d], 0.0)
            elif signs == {False}:
                high[d] = min(high[d], 0.0)
    _tightened(part, low, high, lower)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _tightened(part: _Part, low: Array, high: Array, lower: Array) -> None:
    """What rows say whose own multipliers have one sign: ``g + N n`` has the other one. The value
    0 of a direction stays, and so do ends that contradict each other.
    """
    for _ in range(PASSES):
        for i, singles in enumerate(part.single):
            free = any(lower[m] < 0.0 for m, _ in singles)
            for sign in (1.0, -1.0):
                # sign * (g + N n) <= 0 where no single can outweigh a positive value of it.
                if free or any(sign * c < 0.0 for _, c in singles):
                    continue
                g = sign * part.rows[i][0 if sign > 0 else 1]
                n = sign * part.directions[:, i]
                least = np.where(n > 0, n * low, np.where(n < 0, n * high, 0.0))
                total = float(least.sum()) + g
                if not math.isfinite(total):
                    continue
                for d in np.flatnonzero(n):
                    end = -(total - least[d]) / n[d]
                    if n[d] > 0 and end < high[d]:
                        high[d] = max(end, low[d])
                    elif n[d] < 0 and end > low[d]:
                        low[d] = min(end, high[d])


def _tried(part: _Part) -> list[Ends] | None:
    """The values that all sets of rows lead to."""
    count, rows = part.directions.shape
    if (
        count > TRIED
        or sum(math.comb(rows, k) * math.comb(count, k) for k in range(1, count + 1)) > SETS
    ):
        return None
    low, high = np.zeros(count), np.zeros(count)
    middle = np.array([0.5 * (a + b) for a, b in part.rows])
    half = np.array([0.5 * (b - a) for a, b in part.rows])
    if not bool(np.isfinite(middle).all()):
        return None
    for k in range(1, count + 1):
        for chosen in itertools.combinations(range(count), k):
            for K in itertools.combinations(range(rows), k):
                N = part.directions[np.ix_(chosen, K)].T
                if abs(float(np.linalg.det(N))) <= ROUNDING:
                    continue
                inverse = np.linalg.inv(N)
                at = -inverse @ middle[list(K)]
                off = np.abs(inverse) @ half[list(K)]
                low[list(chosen)] = np.minimum(low[list(chosen)], at - off)
                high[list(chosen)] = np.maximum(high[list(chosen)], at + off)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _unimodular(part: _Part) -> list[Ends] | None:
    """The sum of the largest ``|g_j|`` where the directions are columns of such a matrix."""
    unit = np.abs(part.directions[part.directions != 0.0])
    if bool((np.abs(unit - 1.0) > ROUNDING).any()):
        return None
    if not is_unimodular(sp.csr_array(np.round(part.directions))):
        return None
    touched = (part.directions != 0.0).any(axis=0)
    sizes = np.sort([max(abs(a), abs(b)) for a, b in np.array(part.rows)[touched]])
    most = float(sizes[-len(part.along) :].sum())
    return [(-most, most)] * len(part.along) if math.isfinite(most) else None


def _sum(ends: Ends, n: Array, ranges: list[Ends]) -> Ends:
    """The ends of ``g_i + sum_d N_di n_d``."""
    low, high = ends
    for d in np.flatnonzero(n):
        a, b = sorted((n[d] * ranges[d][0], n[d] * ranges[d][1]))
        low, high = low + a, high + b
    return low, high
