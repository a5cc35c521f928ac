"""Best responses of a follower at fixed x, quickly: convex ones by their class, others by an
interior-point method from several starts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.programs.interior_point import InteriorPoint
from bilevelpy.reductions.rewriting.intervals import column_ranges

if TYPE_CHECKING:
    from bilevelpy.numerics.programs.smooth import Program
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Starts of a follower that is not known to be convex, beside the given one.
STARTS = 6
# Further starts of one that is, where a run does not converge.
AGAIN = 3
# Where a variable has no bounds, starts lie in this half-width about the given point.
SPREAD = 10.0
# Seconds of a run at most.
MOST = 60.0
# Ends that cross by less (relative) do so by rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Ends:
    """Ends of a follower's own columns at fixed x, and those of its rows: rows of one column are
    told as the ends of it. An interior-point method loses its digits between ``v <= 0`` as a row
    and ``v >= 0`` as a bound.
    """

    low: Array
    high: Array
    row_low: Array
    row_high: Array


def _ends(program: Program) -> _Ends | None:
    """None where such rows leave nothing of a column."""
    rows, own = program.rows, program.free
    ends = _Ends(
        program.lower[own].copy(), program.upper[own].copy(), rows.lower.copy(), rows.upper.copy()
    )
    if rows.functions.trees:
        return ends
    matrix, constant = program.affine(rows.functions)
    matrix.eliminate_zeros()  # a coefficient may vanish at this x
    for r in np.flatnonzero(np.diff(matrix.indptr) == 1):
        if int(r) in rows.functions.quadratic and rows.functions.quadratic[int(r)][own][:, own].nnz:
            continue
        j, a = int(matrix.indices[matrix.indptr[r]]), float(matrix.data[matrix.indptr[r]])
        low, high = sorted(((rows.lower[r] - constant[r]) / a, (rows.upper[r] - constant[r]) / a))
        ends.low[j], ends.high[j] = max(ends.low[j], low), min(ends.high[j], high)
        ends.row_low[r], ends.row_high[r] = -math.inf, math.inf
    off = ends.low - ends.high
    return None if bool((off > ROUNDING * np.maximum(1.0, np.abs(ends.low))).any()) else ends


@dataclass(slots=True)
class Responses:
    """Responses of all followers of a system; ``rng`` draws the starts, of which further ones are
    tried until ``deadline`` (of ``time.perf_counter``).
    """

    system: System
    rng: np.random.Generator
    convex: bool
    _compiled: dict[int, InteriorPoint]
    _ranges: tuple[Array, Array]
    deadline: float = math.inf

    @classmethod
    def of(cls, system: System, rng: np.random.Generator, convex: bool) -> Responses:
        """For followers that are known to be convex, or not."""
        return cls(system, rng, convex, {}, column_ranges(system, leader=False))

    def solve(self, k: int, v: Array) -> tuple[Array, float] | None:
        """The values of all columns with the best response found, and its objective; None where
        there is none, or no run has come to an end in time.
        """
        program = follower_program(self.system, k, v).reduced()
        if not program.free.size:
            return v.copy(), program.value(v)
        if program.degree < 3:
            answer = program.solve(self.rng, self.deadline)
            if answer.values is None:
                return None
            return answer.values, answer.objective
        if k not in self._compiled:
            objective = self.system.lower_objectives.take([k])
            rows = follower_program(self.system, k, v).rows
            self._compiled[k] = InteriorPoint(objective, rows)
        run = self._compiled[k]
        ends = _ends(program)
        if ends is None:
            return None
        # IPOPT's tolerance is absolute: not so for an objective that x makes small.
        unit = program.unit(v)
        best: tuple[Array, float] | None = None
        ended = False
        low, high = v.copy(), v.copy()
        own = program.free
        low[own] = np.maximum(self._ranges[0][own], ends.low)
        high[own] = np.minimum(self._ranges[1][own], ends.high)
        for start in self._starts(v, program.free):
            left = self.deadline - time.perf_counter()
            if best is not None and left < 0.0:
                break
            seconds = min(left, MOST)
            found = run.solve(
                start, low, high, ends.row_low, ends.row_high, seconds=seconds, unit=unit
            )
            if found is None or not found.is_feasible:
                continue
            ended |= found.converged
            if best is None or found.objective < best[1]:
                best = found.values, found.objective
            if self.convex and found.converged and not found.acceptable:
                break
        # What a run that time has cut off leaves is a feasible point and no response.
        late = time.perf_counter() >= self.deadline
        return None if late and not ended else best

    def _starts(self, v: Array, own: Array) -> list[Array]:
        low, high = self._ranges[0][own], self._ranges[1][own]
        a = np.where(np.isfinite(low), low, np.minimum(v[own], high) - SPREAD)
        b = np.where(np.isfinite(high), high, np.maximum(v[own], low) + SPREAD)
        made = [np.clip(v, self._ranges[0], self._ranges[1])]
        made[0][np.setdiff1d(np.arange(v.size), own)] = v[np.setdiff1d(np.arange(v.size), own)]
        for t in range(AGAIN if self.convex else STARTS):
            start = v.copy()
            # The corners and the middle first: responses often lie at ends.
            share = (0.0, 1.0, 0.5)[t] if t < 3 else self.rng.random(own.size)
            start[own] = a + (b - a) * share
            made.append(start)
        return made

    def all(self, v: Array) -> tuple[Array, dict[int, float]] | None:
        """Responses of every follower at the leader's part of ``v``."""
        out = v.copy()
        least: dict[int, float] = {}
        for k in range(len(self.system.followers)):
            found = self.solve(k, out if self.system.followers[k].nash else v)
            if found is None or not math.isfinite(found[1]):
                return None
            own = self.system.columns.owner == k + 1
            out[own] = found[0][own]
            least[k] = found[1]
        return out, least
