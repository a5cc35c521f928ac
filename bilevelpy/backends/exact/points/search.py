"""A search over the leader's variables for a better point where a proof does not end in time: by
compass steps, or exchanges where she decides whole numbers only.

Every trial point is answered by best responses, quickly found; one that is better than all others
is confirmed by global solves of the followers, so whatever is kept is bilevel feasible. It proves
nothing. Where no point is known yet and she decides whole numbers, steps make the sum of what best
responses break her rows by smaller until they meet them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.points.local import LocalPhase, confirm
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.programs.follower import follower_program, row_scales
from bilevelpy.numerics.programs.interior_point import is_installed

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Steps relative to the size of x: the first one, and the one that ends a descent.
FIRST, LAST = 0.3, 1e-5
# Upper rows may be off by this, relative to their terms.
OFF = 1e-6
# Random steps away from the best point of whole numbers, and pairs that are tried from a point.
KICK, PAIRS = 3, 400
# Steps of one whole number where no point is known, and how far from a start random ones begin.
STEPS, AROUND = (1.0, -1.0, 3.0, -3.0), 10.0


def search_on(
    followers: Followers,
    state: Progress,
    program: KKT,
    settled: bool,
    rng: np.random.Generator,
    deadline: float,
    points: list[Array],
    starts: int,
) -> None:
    """Improve ``state``: local solutions from ``points`` of relaxations and random ones for half of
    the time, a search over x for the rest.
    """
    now = time.perf_counter()
    half = now + 0.5 * max(deadline - now, 0.0)
    phase = LocalPhase(followers, state, program, settled, rng, half)
    phase.from_points(points[::-1])
    phase.run(starts)
    Search(followers, state, deadline, rng).run([*points, *phase.points[:8]])


def good_point(followers: Followers, state: Progress, seed: int, points: list[Array]) -> None:
    """A good point before a tree, which seldom meets one where rows of the leader read responses:
    in the time that a follower has.
    """
    system, deadline = followers.system, time.perf_counter() + followers.limits().seconds
    below = set(system.lower_columns.tolist())
    rows = system.upper_rows
    if any(rows.functions.reads(r) & below for r in range(rows.count)):
        Search(followers, state, deadline, np.random.default_rng(seed)).quickly(points)


@dataclass(slots=True)
class Search:
    """Compass steps and random directions from good points until ``deadline`` (perf_counter)."""

    followers: Followers
    state: Progress
    deadline: float
    rng: np.random.Generator
    quick: Responses | None = field(init=False)

    def __post_init__(self) -> None:
        system = self.system
        whole = bool(system.columns.integer[system.lower_columns].any())
        followers = range(len(system.followers))
        at = system.columns.start
        quick = is_installed() and (
            # Whole numbers are quickly found in linear programs only.
            not whole or all(follower_program(system, k, at).degree == 1 for k in followers)
        )
        self.quick = Responses.of(system, self.rng, convex=False) if quick else None

    @property
    def system(self) -> System:
        """The program."""
        return self.followers.system

    def run(self, points: list[Array]) -> None:
        """Improve ``state`` from its best point and from ``points`` (values of all columns)."""
        columns = self.system.columns
        moving = np.flatnonzero((columns.owner == 0) & ~columns.integer)
        whole = np.flatnonzero((columns.owner == 0) & columns.integer)
        if not moving.size and not (whole.size and self.quick is not None):
            return
        for point in [*points, columns.start]:
            self._value(point[: columns.count])
        if not moving.size:
            self._meet(points, whole)
            self._exchanges(whole)
            return
        while self._time():
            if self.state.best is None:
                self._value(self._random(moving, points))
                continue
            base = self.state.best[: columns.count].copy()
            self._descend(base, moving)
            # From elsewhere: the best of some random points.
            trials = [self._random(moving, [base, *points]) for _ in range(8)]
            values = [(self._value(t), k) for k, t in enumerate(trials) if self._time()]
            finite = [v for v in values if math.isfinite(v[0])]
            if finite:
                self._descend(trials[min(finite)[1]], moving)

    def quickly(self, points: list[Array]) -> None:
        """Exchanges that help, where no point is known from one near ``points`` of relaxations."""
        whole = np.flatnonzero((self.system.columns.owner == 0) & self.system.columns.integer)
        if whole.size and self.quick is not None:
            self._meet(points, whole)
            if self.state.best is not None:
                self._improve(self.state.best[: self.system.columns.count].copy(), whole)

    def _meet(self, points: list[Array], whole: Array) -> None:
        """Descents of what rows of the leader are broken by, until there is a point: from the last
        relaxation on, then from anywhere.
        """
        columns = self.system.columns
        starts = [point[: columns.count] for point in points]
        while self._time() and self.state.best is None:
            at = starts.pop().copy() if starts else self._anywhere(whole)
            at[whole] = np.clip(np.round(at[whole]), columns.lower[whole], columns.upper[whole])
            if self._is_allowed(at):
                self._value(self._fewest(at, whole))

    def _anywhere(self, whole: Array) -> Array:
        columns, at = self.system.columns, self.system.columns.start.copy()
        low = np.maximum(columns.lower[whole], at[whole] - AROUND)
        at[whole] = self.rng.uniform(low, np.minimum(columns.upper[whole], at[whole] + AROUND))
        return at

    def _fewest(self, at: Array, whole: Array) -> Array:
        """The end of steps of single whole numbers that break the leader's rows by less."""
        off, columns = self._off(at), self.system.columns
        better = True
        while better and off > OFF:
            better = False
            for n in self.rng.permutation(len(STEPS) * whole.size):
                j, trial = whole[n // len(STEPS)], at.copy()
                trial[j] = np.clip(
                    at[j] + STEPS[n % len(STEPS)], columns.lower[j], columns.upper[j]
                )
                if not self._time():
                    return at
                if trial[j] != at[j] and self._is_allowed(trial):
                    found = self._off(trial)
                    if found < off - OFF:
                        at, off, better = trial, found, True
                        break
        return at

    def _off(self, v: Array) -> float:
        """By how much best responses break the leader's rows, relative to their terms, in all."""
        assert self.quick is not None
        try:
            found = self.quick.all(v)
        except (ValueError, ArithmeticError):
            return math.inf
        if found is None:
            return math.inf
        rows = self.system.upper_rows
        return float((rows.violation(found[0]) / row_scales(rows, found[0])).sum())

    def _exchanges(self, whole: Array) -> None:
        """Whole numbers up and down by one, alone and in pairs, from the best point for as long as
        that helps; then from a few random steps away from it, again and again.
        """
        while self._time() and self.state.best is not None:
            at = self.state.best[: self.system.columns.count].copy()
            self._improve(at, whole)
            for _ in range(KICK):
                at[whole] += self._step(whole)
            columns = self.system.columns
            at[whole] = np.clip(at[whole], columns.lower[whole], columns.upper[whole])
            if self._is_allowed(at):
                self._improve(at, whole)

    def _step(self, whole: Array) -> Array:
        step = np.zeros(whole.size)
        step[self.rng.integers(whole.size)] = self.rng.choice((-1.0, 1.0))
        return step

    def _improve(self, at: Array, whole: Array) -> None:
        """The first exchange that helps, until none does."""
        value = self._value(at)
        n = whole.size
        better = True
        while better and self._time():
            better = False
            single = self.rng.permutation(2 * n).tolist()
            pairs = self.rng.choice(n * (n - 1), min(PAIRS, n * (n - 1)), replace=False).tolist()
            steps: list[tuple[tuple[int, float], ...]] = []
            steps += [((k // 2, 1.0 - 2.0 * (k % 2)),) for k in single]
            # The second of a pair is one of the others.
            ends = [(k // (n - 1), k % (n - 1)) for k in pairs]
            steps += [((i, 1.0), (j + (j >= i), -1.0)) for i, j in ends]
            for step in steps:
                trial = at.copy()
                for i, by in step:
                    trial[whole[i]] += by
                if not self._time():
                    return
                if not self._is_allowed(trial):
                    continue
                found = self._value(trial)
                if found < value - 1e-9 * max(1.0, abs(value)):
                    at[:], value, better = trial, found, True
                    break

    def _is_allowed(self, v: Array) -> bool:
        """Whether the leader's bounds, and those of her rows that read no responses, hold."""
        columns, rows = self.system.columns, self.system.upper_rows
        own = columns.owner == 0
        if bool((v[own] < columns.lower[own]).any() or (v[own] > columns.upper[own]).any()):
            return False
        off = rows.violation(v) > OFF * row_scales(rows, v)
        below = set(self.system.lower_columns.tolist())
        return not any(not rows.functions.reads(int(r)) & below for r in np.flatnonzero(off))

    def _time(self) -> bool:
        return time.perf_counter() < self.deadline

    def _value(self, v: Array) -> float:
        """F at best responses to the leader's part of ``v``; infinite where there are none, or
        where they break rows of the leader.
        """
        if self.quick is None:
            return confirm(self.followers, v, self.state, self.deadline)[0]
        system = self.system
        v = np.clip(v, system.columns.lower, system.columns.upper)
        try:
            found = self.quick.all(v)
            if found is None:
                return math.inf
            rows = system.upper_rows
            if bool((rows.violation(found[0]) > OFF * row_scales(rows, found[0])).any()):
                # Another of the best responses may suit the leader.
                return confirm(self.followers, found[0], self.state, self.deadline)[0]
            value = float(system.objective.value(found[0])[0])
        except (ValueError, ArithmeticError):
            return math.inf
        if value < self.state.objective:
            return confirm(self.followers, found[0], self.state, self.deadline)[0]
        return value

    def _random(self, moving: Array, near: list[Array]) -> Array:
        columns = self.system.columns
        base = near[int(self.rng.integers(len(near)))] if near else columns.start
        v = base[: columns.count].copy()
        low, high = columns.lower[moving], columns.upper[moving]
        size = np.maximum(1.0, np.abs(v[moving])) * 10.0 ** self.rng.uniform(-1.0, 1.0)
        spread = v[moving] + size * self.rng.standard_normal(moving.size)
        if self.rng.random() < 0.5:  # anywhere between finite bounds
            inside = np.isfinite(low) & np.isfinite(high)
            width = high[inside] - low[inside]
            spread[inside] = low[inside] + width * self.rng.random(int(inside.sum()))
        v[moving] = np.clip(spread, low, high)
        return v

    def _descend(self, v: Array, moving: Array) -> None:
        """Compass search: a step that helps is doubled, one round without success halves it."""
        value = self._value(v)
        if not math.isfinite(value):
            return
        step = FIRST
        while step > LAST and self._time():
            better = False
            for d in self._directions(moving.size):
                trial = v.copy()
                trial[moving] += step * np.maximum(1.0, np.abs(v[moving]).max()) * d
                found = self._value(trial)
                if found < value - 1e-9 * max(1.0, abs(value)):
                    v, value, better = trial, found, True
                    break
                if not self._time():
                    return
            step *= 2.0 if better else 0.4

    def _directions(self, count: int) -> list[Array]:
        axes = [s * e for e in np.eye(count) for s in (1.0, -1.0)]
        random = self.rng.standard_normal((4, count))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        directions = [*axes, *random]
        self.rng.shuffle(directions)
        return directions
