"""Points beside x that the leader's rows exclude, moved back onto them.

A step along an equation, or along a row that responses decide, leaves it by a little, and all of it
where bounds clip the step. Newton's method in the moved variables brings it back::

    x <- clip(x - J' (J J')^+ excess)        J: slopes of the violated rows along the responses
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Respond = Callable[[Array], "Array | None"]
# Slopes of rows (by their numbers) along the responses in the moved variables, at values of all
# columns.
Slopes = Callable[[Array, Array], "Array | None"]

# Steps back at most; the part of a step that has to be left of it.
TRIES, LEFT = 12, 0.1
# Moved variables, or directions, along which slopes are found by differences at most; the length of
# these (relative).
FEW, SHORT = 16, 1e-5


class Rows:
    """The leader's rows beside one point ``v``. ``slopes`` are those along the responses, where
    they are known; otherwise those of rows that read no response are exact, and others are found
    by differences at ``v``, once.
    """

    def __init__(
        self,
        system: System,
        v: Array,
        chosen: Array,
        respond: Respond,
        slopes: Slopes | None,
        room: float,
    ) -> None:
        self.system, self.v, self.chosen, self.respond = system, v, chosen, respond
        self.given, self.room = slopes, room
        self.size = max(1.0, float(np.abs(v[chosen]).max(initial=0.0)))
        self.below = set(system.lower_columns.tolist())
        self._differences: Array | None = None

    def point(self, trial: Array, over: Callable[[], bool]) -> Array | None:
        """Values at the responses to a trial, or to a point near it that suits the leader; None
        where there is none that is clearly beside ``v``.
        """
        columns, chosen = self.system.columns, self.chosen
        low, high = columns.lower[chosen], columns.upper[chosen]
        step = float(np.linalg.norm(trial[chosen] - self.v[chosen]))
        last: Array | None = None
        learned: Array | float = 0.0  # what steps have taught of slopes that were none
        trial = self._on_own(trial)
        for _ in range(TRIES):
            found = self.respond(trial)
            if found is None:
                return None
            excess = self._excess(found)
            if not np.isfinite(excess).all():
                return None
            bad = np.flatnonzero(np.abs(excess) > self.room)
            if not bad.size:
                return found if self._is_beside(found, step) else None
            if over():
                return None
            slopes = self._slopes(found)
            if slopes is None:
                return None
            if last is not None and self.given is None:
                # Broyden's correction: kinks of responses bend rows beside v.
                move = found[chosen] - last[chosen]
                functions = self.system.upper_rows.functions
                wrong = functions.value(found) - functions.value(last) - (slopes + learned) @ move
                learned = learned + np.outer(wrong, move) / float(move @ move)
            slopes, last = (slopes + learned)[bad], found
            trial = found.copy()
            trial[chosen] = _back(found[chosen], slopes, excess[bad], low, high)
            if np.array_equal(trial[chosen], found[chosen]):
                return None
        return None

    def _on_own(self, trial: Array) -> Array:
        """A trial on the rows that read no response, as far as they allow."""
        functions, chosen = self.system.upper_rows.functions, self.chosen
        columns = self.system.columns
        own = [
            r
            for r in range(self.system.upper_rows.count)
            if r not in functions.trees and not functions.reads(r) & self.below
        ]
        for _ in range(TRIES if own else 0):
            excess = self._excess(trial)
            bad = [r for r in own if abs(excess[r]) > self.room]
            if not bad or not np.isfinite(excess[bad]).all():
                break
            slopes = np.array([self._exact(r, trial) for r in bad])
            there = trial.copy()
            low, high = columns.lower[chosen], columns.upper[chosen]
            there[chosen] = _back(trial[chosen], slopes, excess[bad], low, high)
            trial = there
        return trial

    def _exact(self, r: int, v: Array) -> Array:
        """The slope of a polynomial row that reads no response."""
        one = self.system.upper_rows.functions.take([r])
        slope = np.asarray(one.linear.todense()).reshape(-1).astype(float)
        if 0 in one.quadratic:
            slope = slope + one.quadratic[0] @ v
        return np.asarray(slope[self.chosen])

    def _is_beside(self, found: Array, step: float) -> bool:
        return float(np.linalg.norm(found[self.chosen] - self.v[self.chosen])) >= LEFT * step

    def _excess(self, v: Array) -> Array:
        """By how much rows are above their upper end (positive) or below their lower one."""
        rows = self.system.upper_rows
        off = rows.violation(v)
        if not off.any() or not np.isfinite(off).all():
            return off
        return np.where(rows.functions.value(v) > rows.upper, off, -off)

    def _slopes(self, v: Array) -> Array | None:
        """Slopes of all rows."""
        rows = self.system.upper_rows
        if self.given is not None:
            return self.given(v, np.arange(rows.count))
        functions = rows.functions
        found = np.zeros((rows.count, self.chosen.size))
        for r in range(rows.count):
            if r in functions.trees or functions.reads(r) & self.below:
                measured = self._by_differences()
                if measured is None:
                    return None
                found[r] = measured[r]
                continue
            found[r] = self._exact(r, v)
        return found

    def _by_differences(self) -> Array | None:
        """Slopes of all rows at ``v`` along the axes or, of many variables, along a few directions:
        enough for a way back. None where a response is missing.
        """
        if self._differences is not None:
            return self._differences
        functions, columns, n = self.system.upper_rows.functions, self.system.columns, self.chosen
        low, high = columns.lower[n], columns.upper[n]
        here = functions.value(self.v)
        # Towards where there is room.
        inwards = np.where(high - self.v[n] >= self.v[n] - low, 1.0, -1.0)
        ways = np.eye(n.size)
        if n.size > FEW:
            ways = np.abs(np.random.default_rng(0).standard_normal((FEW, n.size)))
        moves, changes = [], []
        for way in ways:
            trial = self.v.copy()
            trial[n] = np.clip(self.v[n] + SHORT * self.size * way * inwards, low, high)
            found = self.respond(trial)
            if found is None:
                return None
            moves.append(trial[n] - self.v[n])
            changes.append(functions.value(found) - here)
        self._differences = np.linalg.lstsq(np.array(moves), np.array(changes), rcond=None)[0].T
        return self._differences


def _back(x: Array, slopes: Array, excess: Array, low: Array, high: Array) -> Array:
    """The nearest point at which linear rows have lost their ``excess``; bounds that are met hold
    their variables, and what is lost there is left to the others.
    """
    free = np.ones(x.size, dtype=bool)
    rest = excess.copy()
    for _ in range(x.size):
        move = np.zeros(x.size)
        move[free] = -np.linalg.lstsq(slopes[:, free], rest, rcond=None)[0]
        there = np.clip(x + move, low, high)
        rest = rest + slopes @ (there - x)
        held = free & (there != x + move)
        x, free = there, free & ~held
        if not held.any():
            break
    return x
