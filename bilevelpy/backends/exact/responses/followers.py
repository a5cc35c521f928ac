"""Followers one by one: their global solves, the cuts from their answers, and the leader's best
among best responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.backends.exact.responses.cut import ROOM, Cut
from bilevelpy.backends.exact.responses.kinks import as_given, epigraph_rows, kink_columns
from bilevelpy.numerics.programs.follower import follower_program, row_scales
from bilevelpy.reductions.rewriting.fixing import fix

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# A response whose objective is within this of the least one (relative to its terms) is a best one.
BEST = 2e-7
# Rows may be off by this only: what a response gains by it changes F by as much as its square root.
FEASIBLE = 1e-8
# The same at points that others have found, on the edge of what rows allow; and what is rounding.
EDGE, ROUNDING = 1e-6, 1e-12
# x avoids a response by nothing where its rows are broken by this at most (relative to their
# terms), and it would be better by so much (relative).
HIDDEN, FALL = 2e-7, 1e-3
# Relative step of differences that tell how steep an objective is.
DIFFERENCE = 1e-6
# Gap at which a global solve of a follower ends, and up to which an unfinished one will do.
RESPONSE_GAP, SOLVED = 5e-8, 0.5 * BEST


@dataclass(frozen=True, slots=True)
class Followers:
    """Global solves of single followers, and cuts from their answers."""

    system: System
    limits: Callable[[], Limits]
    # Objective and rows of followers as cuts read them: with kinks in place of epigraphs.
    _given: dict[int, tuple[Functions, Rows]] = field(default_factory=dict)

    def given(self, k: int) -> tuple[Functions, Rows]:
        """Objective and rows of follower k with the kinks that its epigraphs stand for."""
        if k not in self._given:
            self._given[k] = as_given(self.system, k)
        return self._given[k]

    def decided(self, k: int) -> Array:
        """Which columns follower k decides: epigraphs follow from them."""
        own = self.system.columns.owner == k + 1
        return np.asarray(own & ~kink_columns(self.system))

    def model(self, k: int, v: Array) -> Model:
        """Follower k with everything else fixed at ``v``: its rows and bounds."""
        columns = self.system.columns
        fixed = {j: float(v[j]) for j in range(columns.count) if columns.owner[j] != k + 1}
        model = Model(columns, fixed)
        own = np.flatnonzero(columns.owner == k + 1)
        rows = self.loosened(k, v)
        model.rows(replace(rows, functions=fix(rows.functions, own, v)))
        return model

    def loosened(self, k: int, v: Array) -> Rows:
        """The rows of follower k, as wide as ``v`` needs within the tolerance: x may lie on the
        edge of what the follower can meet.
        """
        rows = self.system.lower_rows.take(self._rows(k))
        off, scales = rows.violation(v), row_scales(rows, v)
        # Equations that rounding alone makes wider are called infeasible by SCIP now and then.
        off = np.where((off > ROUNDING * scales) & (off <= EDGE * scales), 1.01 * off, 0.0)
        return replace(rows, lower=rows.lower - off, upper=rows.upper + off)

    def _rows(self, k: int) -> Array:
        return np.flatnonzero(self.system.lower_rows.follower == k + 1)

    def objective(self, k: int, v: Array) -> Functions:
        """The objective of follower k in its own columns."""
        own = np.flatnonzero(self.system.columns.owner == k + 1)
        return fix(self.system.lower_objectives.take([k]), own, v)

    def solve(self, k: int, v: Array) -> Outcome:
        """The best response of follower k."""
        model = self.model(k, v)
        model.minimize(self.objective(k, v))
        found = model.solve(replace(self.limits(), gap=RESPONSE_GAP))
        close = found.status == "time_limit" and found.gap <= SOLVED
        return replace(found, status="optimal") if close else found

    def beside(self, k: int, v: Array, least: float) -> Array | None:
        """A response that is much better than ``least`` where rows are a little wider: x avoids it
        by less than engines tell apart. None where there is none, or where rows do not move with
        real numbers of others, or the follower decides no whole ones: then f does not jump.
        """
        columns = self.system.columns
        own = columns.owner == k + 1
        rows = self.loosened(k, v)
        reads = {j for r in range(rows.count) for j in rows.functions.reads(r)}
        moves = any(not own[j] and not columns.integer[j] for j in reads)
        if not moves or not bool(columns.integer[own].any()):
            return None
        wide = HIDDEN * row_scales(rows, v)
        wider = replace(rows, lower=rows.lower - wide, upper=rows.upper + wide)
        model = Model(columns, {int(j): float(v[j]) for j in np.flatnonzero(~own)})
        model.rows(replace(wider, functions=fix(rows.functions, np.flatnonzero(own), v)))
        model.minimize(self.objective(k, v))
        found = model.solve(replace(self.limits(), gap=RESPONSE_GAP))
        if found.values is None or least - found.objective <= FALL * max(1.0, abs(least)):
            return None
        return found.values[: v.size]

    def inner(self, k: int, v: Array, level: float) -> Array | None:
        """A response with f at most ``level`` and as much slack in its rows as there is."""
        rows = self.system.lower_rows.take(self._rows(k))
        epigraphs = epigraph_rows(rows)
        moving = [
            r
            for r in range(rows.count)
            if not epigraphs[r] and self._reads_others(rows.functions, r, k)
        ]
        columns = self.system.columns
        if not moving:
            return None
        model = self.model(k, v)
        room = model.scip.addVar("room", "C", lb=0.0, ub=1.0)
        own = np.flatnonzero(columns.owner == k + 1)
        functions = fix(rows.functions, own, v)
        for r in moving:
            sign = float(math.isfinite(rows.upper[r])) - float(math.isfinite(rows.lower[r]))
            value = model.expression(functions, r, sign)
            if rows.lower[r] == rows.upper[r]:
                return None
            if math.isfinite(rows.upper[r]):
                model.row(value + room, -math.inf, float(rows.upper[r]))
            if math.isfinite(rows.lower[r]):
                model.row(value - room, float(rows.lower[r]), math.inf)
        model.row(model.expression(self.objective(k, v), 0, 1.0), -math.inf, level)
        model.scip.setObjective(-1.0 * room, "minimize")
        found = model.solve(replace(self.limits(), gap=1e-3))
        return found.values if found.values is not None and found.objective < -1e-7 else None

    def _reads_others(self, functions: Functions, row: int, k: int) -> bool:
        return any(self.system.columns.owner[j] != k + 1 for j in functions.reads(row))

    def cut(self, k: int, response: Array) -> Cut:
        """The cut from a response: inside its bounds, with room for what it gains by rows that it
        meets within the tolerance only.
        """
        columns = self.system.columns
        own = np.flatnonzero(columns.owner == k + 1)
        z = response.copy()
        z[own] = np.clip(z[own], columns.lower[own], columns.upper[own])
        objective, _ = self.given(k)
        slope = 0.0
        for j in np.flatnonzero(self.decided(k) & ~columns.integer):
            step = np.zeros(z.size)
            step[j] = DIFFERENCE * max(1.0, abs(float(z[j])))
            try:
                change = objective.value(z + step)[0] - objective.value(z - step)[0]
            except (ValueError, ArithmeticError):  # no value beside an end of its domain
                continue
            slope += abs(float(change)) / (2.0 * step[j])
        return Cut(k, z, ROOM * max(1.0, slope))


def responses(followers: Followers, at: Array) -> tuple[dict[int, float], str]:
    """The least objectives of all followers at x; ``at`` takes their responses. A linear follower
    without a bound has no best response: "infeasible".
    """
    solved: dict[int, float] = {}
    for k in range(len(followers.system.followers)):
        answer = followers.solve(k, at)
        if answer.status in ("unbounded", "unclear"):
            linear = follower_program(followers.system, k, at).degree == 1
            return solved, "infeasible" if linear else "trouble"
        if answer.status != "optimal" or answer.values is None:
            return solved, answer.status
        mine = followers.system.columns.owner == k + 1
        at[mine] = answer.values[: at.size][mine]
        solved[k] = answer.objective
    return solved, "optimal"


def is_sharp(system: System, k: int, v: Array) -> bool:
    """Whether responses with nearly the best value are nearly best ones: a linear follower, or one
    who decides whole numbers only (epigraphs of kinks follow from them).
    """
    decided = (system.columns.owner == k + 1) & ~kink_columns(system)
    if bool(system.columns.integer[decided].all()):
        return True
    return follower_program(system, k, v).reduced().degree == 1
