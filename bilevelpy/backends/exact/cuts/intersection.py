"""Intersection cuts: vertices of a relaxation within sets that have no bilevel feasible point.

Where a response ``z`` of a follower would hold at x, no bilevel feasible point has a greater f. So
there is none inside of ::

    S(z) = { (x, y) : f(x, y) >= f(x, z),  z breaks no row at x by a whole step }

since a row of whole numbers that is broken is broken by a step at least. A vertex ``v`` of the
linear relaxation inside of S with edges ``r_i`` of its cone (slacks ``s_i``) is cut off, and no
point outside of S, by ::

    sum over i of s_i / alpha_i >= 1,    alpha_i the way along r_i until S ends

(Balas 1971; Fischetti, Ljubic, Monaci and Sinnl 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.backends.exact.cuts.ways_out import Way
    from bilevelpy.reductions.rows import Functions

Array = np.ndarray[Any, np.dtype[Any]]

# A vertex is inside where it has so much to all ends (relative to the norm of their slopes).
INSIDE = 1e-5
# Rays are of no use where the product of the cone with its inverse is off by this.
ROUNDING = 1e-7
# Rates that are rounding, relative to the largest one.
NOISE = 1e-13
# Least and greatest coefficient of a cut that SCIP can do with, and what it is weakened by: no
# plain multiple of SCIP's tolerance. A binary that is off by that and rounding is not whole to SCIP
# 10.0, and strong branching finds that it cannot be 0 (tests/faults/test_engine.py).
RANGE, WEAKER = 1e6, 7.3e-9


@dataclass(frozen=True, slots=True)
class FreeSet:
    """``slopes @ v <= ends``: a set inside of which no point of the columns is bilevel feasible.

    The first row is that of f; the others hold with ``steps`` to spare where whole numbers do not
    break them.
    """

    slopes: Array
    ends: Array
    steps: Array

    @classmethod
    def of(cls, fall: Functions, ways: list[Way], room: float, width: int) -> FreeSet:
        """Of a cut whose formula is linear, with ``room`` to spare in f."""
        steps = np.array([0.0, *(2.0 * w.by if w.whole else 0.0 for w in ways)])
        parts = [(fall, 0, -1.0, room)]
        parts += [(w.functions, w.row, 1.0 if w.above else -1.0, w.end) for w in ways]
        slopes, ends = np.zeros((len(parts), width)), np.zeros(len(parts))
        for p, (functions, row, sign, end) in enumerate(parts):
            for j, c in linear_terms(functions, row):
                slopes[p, j] += sign * c
            ends[p] = sign * (end - float(functions.constant[row])) + steps[p]
        return cls(slopes, ends, steps)


@dataclass(frozen=True, slots=True)
class Cone:
    """The linear program of SCIP at its vertex: ``normals @ x >= level`` in its columns, with the
    edges as columns of ``rays``; ``movable`` are slacks that are not fixed, ``local`` those of
    bounds and rows of the node only; ``place`` is the column of the model, or -1.
    """

    variables: list[Any]
    place: Array
    vertex: Array
    normals: Array
    level: Array
    rays: Array
    movable: Array
    local: Array

    @classmethod
    def of(cls, scip: Any, places: dict[int, int]) -> Cone | None:
        """The cone; None where the vertex is none, or not to be had to some digits. ``places`` are
        columns by the pointers of their variables.
        """
        if not scip.isLPSolBasic():
            return None
        columns = scip.getLPColsData()
        width = len(columns)
        position = {c.getLPPos(): n for n, c in enumerate(columns)}
        vertex = np.array([c.getPrimsol() for c in columns])
        variables = [c.getVar() for c in columns]
        normals, movable, local = [], [], []
        for n, column in enumerate(columns):
            status = column.getBasisStatus()
            if status == "basic":
                continue
            if status == "zero":
                return None
            low, high, variable = column.getLb(), column.getUb(), variables[n]
            ends = variable.getLbGlobal(), variable.getUbGlobal()
            # What is fixed at this node only counts at an end that it has everywhere, if any.
            below = status == "lower" if low < high else ends[0] >= low
            row = np.zeros(width)
            row[n] = 1.0 if below else -1.0
            normals.append(row)
            movable.append(ends[0] < ends[1])
            local.append(ends[0] < low if below else ends[1] > high)
        for line in scip.getLPRowsData():
            status = line.getBasisStatus()
            if status == "basic":
                continue
            row = np.zeros(width)
            for column, c in zip(line.getCols(), line.getVals(), strict=True):
                if column.getLPPos() in position:
                    row[position[column.getLPPos()]] += c
            at = float(row @ vertex) + line.getConstant()
            below = abs(at - line.getLhs()) <= abs(at - line.getRhs())
            normals.append(row if below else -row)
            movable.append(line.getLhs() < line.getRhs())
            local.append(bool(line.isLocal()))
        if len(normals) != width:
            return None
        N = np.array(normals)
        try:
            rays = np.linalg.inv(N)
        except np.linalg.LinAlgError:
            return None
        if float(np.abs(N @ rays - np.eye(width)).max(initial=0.0)) > ROUNDING:
            return None
        place = np.array([places.get(x.ptr(), -1) for x in variables])
        return cls(
            variables, place, vertex, N, N @ vertex, rays, np.array(movable), np.array(local)
        )

    def cut(self, inside: FreeSet, v: Array) -> Row | None:
        """The cut of a set that the vertex, ``v`` in all columns, is inside of."""
        known = self.place >= 0
        if float(np.abs(self.vertex[known] - v[self.place[known]]).max(initial=0.0)) > INSIDE:
            return None
        room = inside.ends - inside.slopes @ v
        slopes = np.where(known, inside.slopes[:, self.place], 0.0)
        rates = slopes @ self.rays / room[:, None]
        rates[np.abs(rates) <= NOISE * np.abs(rates).max(initial=0.0)] = 0.0
        # An edge of the node only, along which the set has no end, leads out of it the other way.
        local = bool((self.local & rates.any(axis=0)).any())
        weights = np.where(self.movable, np.maximum(rates.max(axis=0), 0.0), 0.0)
        terms, level = weights @ self.normals, 1.0 + float(weights @ self.level)
        size = float(np.abs(terms).max(initial=0.0))
        if size == 0.0:
            return Row([], np.zeros(0), 1.0, local, math.inf)
        kept = []
        for n in np.flatnonzero(terms):
            if abs(terms[n]) * RANGE >= size:
                kept.append(n)
                continue
            variable = self.variables[n]
            ends = variable.getLbGlobal(), variable.getUbGlobal()
            most = max(terms[n] * e for e in ends)
            if not abs(most) * WEAKER < size:
                return None
            level -= most
        level -= WEAKER * max(size, abs(level))
        depth = (level - float(terms[kept] @ self.vertex[kept])) / float(np.linalg.norm(terms))
        return Row(
            [self.variables[n] for n in kept], terms[kept], level, local, depth
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """``terms @ variables >= level``, ``local`` to the node; the vertex is off by ``depth``."""

    variables: list[Any]
    terms: Array
    level: float
    local: bool
    depth: float

    def write(self, scip: Any) -> None:
        """Add it to the linear program of SCIP."""
        row = scip.createEmptyRowUnspec("inside", self.level, None, self.local, False, True)
        scip.cacheRowExtensions(row)
        for variable, c in zip(self.variables, self.terms, strict=True):
            scip.addVarToRow(row, variable, float(c))
        scip.flushRowExtensions(row)
        scip.addCut(row, forcecut=True)
        scip.releaseRow(row)
