"""Followers one by one: their global solves, the cuts from their answers, and the leader's best
among best responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact_kinks import as_given, epigraph_rows, kink_columns
from bilevelpy.backends.exact_scip import LOST, Limits, Model, Outcome
from bilevelpy.numerics.constrained_certificate import row_scales
from bilevelpy.reductions.difference import difference
from bilevelpy.reductions.fixing import fix
from bilevelpy.reductions.intervals import column_ranges, tree_range
from bilevelpy.reductions.trees import linear_terms, tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]
Ends = tuple[float, float]

# A response whose objective is within this of the least one (relative to its terms) is a best one.
BEST = 2e-7
# Rows may be off by this only: what a response gains by it changes F by as much as its square root.
FEASIBLE = 1e-8
# The same at points that others have found, on the edge of what rows allow.
EDGE = 1e-6
# Responses as good as that of a cut meet it with this to spare: SCIP loses points that meet a row
# by nothing, and a tie is where the leader's choice lies.
ROOM = 2.0 * FEASIBLE
# Relative step of differences that tell how steep an objective is.
DIFFERENCE = 1e-6
# Gap at which a global solve of a follower ends, and up to which an unfinished one will do.
RESPONSE_GAP, SOLVED = 5e-8, 0.5 * BEST
# Numbers of steps within this of a whole one are whole.
WHOLE = 1e-6
# Coefficients are multiples of a common step where their ratios are fractions, to this accuracy,
# with denominators up to so much.
SAME_RATIO, DENOMINATOR = 1e-12, 1000
# Numbers below this are whole without rounding.
LARGEST = 2.0**53


@dataclass(frozen=True, slots=True)
class Cut:
    """A response of follower k, as values of all columns (those of others do not matter), and by
    how much the objective at another one may be above that at this one.
    """

    follower: int
    response: Array
    room: float = ROOM


@dataclass(slots=True)
class Progress:
    """The best bilevel feasible point so far, the bound, and the followers' least values there.

    ``watch`` is told of every better point (values, objective, bound); ``stopped`` says that it
    wanted no more.
    """

    best: Array | None = None
    objective: float = math.inf
    bound: float = -math.inf
    solved: dict[int, float] = field(default_factory=dict)
    nodes: int = 0
    why: str = ""
    watch: Callable[[Array, float, float], bool] | None = None
    stopped: bool = False

    def keep(self, values: Array, objective: float, solved: dict[int, float]) -> None:
        """A bilevel feasible point; it is kept where it is better than the best one. One that is
        lost in the distance is none: rounding decides there.
        """
        if objective < self.objective and float(np.abs(values).max(initial=0.0)) < LOST:
            self.best, self.objective, self.solved = values, objective, dict(solved)
            self.seen(values, objective, self.bound)

    def seen(self, values: Array, objective: float, bound: float) -> bool:
        """A better point is shown; whether the run has to stop."""
        if self.watch is not None and not self.stopped:
            self.stopped = self.watch(values, objective, bound)
        return self.stopped


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
        off = rows.violation(v)
        off = np.where(off <= EDGE * row_scales(rows, v), 1.01 * off, 0.0)
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
            value = model.expression(functions, r)
            if rows.lower[r] == rows.upper[r]:
                return None
            if math.isfinite(rows.upper[r]):
                model.row(value + room, -math.inf, float(rows.upper[r]))
            if math.isfinite(rows.lower[r]):
                model.row(value - room, float(rows.lower[r]), math.inf)
        model.row(model.expression(self.objective(k, v), 0), -math.inf, level)
        model.scip.setObjective(-1.0 * room, "minimize")
        found = model.solve(replace(self.limits(), gap=1e-3))
        return found.values if found.values is not None and found.objective < -1e-7 else None

    def _range(self, functions: Functions, row: int) -> tuple[float, float]:
        """Between what a row lies for all decisions of the leader within her bounds."""
        tree = tree_of(functions, row)
        return tree_range(tree, *column_ranges(self.system))[id(tree)]

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

    def write(self, model: Model, cut: Cut, margin: float = 0.0) -> None:
        """The cut as rows of a relaxation; with a ``margin`` (relative), z has to break its row by
        that at least: points inside of what the cut allows, and no relaxation any more.
        """
        k, system = cut.follower, self.system
        objective, rows = self.given(k)
        own = system.columns.owner == k + 1
        others = np.flatnonzero(~own)
        there = fix_at(objective, others, cut.response)
        here = system.lower_objectives.take([k])
        fall = model.expression(difference(here, there), 0)
        moving = [r for r in range(rows.count) if self._reads_others(rows.functions, r, k)]
        if not moving:
            model.row(fall, -math.inf, cut.room)
            return
        add = model.scip
        choices = [_switch(model, fall, cut.room)]
        scales = row_scales(rows, cut.response)
        placed = fix_at(rows.functions, others, cut.response)
        for r in moving:
            value = model.expression(placed, r)
            ends = float(rows.lower[r]), float(rows.upper[r])
            above, below = _whole_steps(system, placed, r, ends)
            room = margin * float(scales[r])
            least, most = self._range(placed, r)
            never = EDGE * FEASIBLE * float(scales[r])
            if most > ends[1] + never:
                choices.append(_switch(model, ends[1] + max(above, room) - value, 0.0))
            if least < ends[0] - never:
                choices.append(_switch(model, value - ends[0] + max(below, room), 0.0))
        add.addCons(sum(choices[1:], choices[0] + 0.0) >= 1.0)


def fix_at(functions: Functions, others: Array, response: Array) -> Functions:
    """The functions with the follower's own columns at a response; only ``others`` still move."""
    base = response.copy()
    base[others] = 0.0
    fixed = fix(functions, others, response)
    mask = np.zeros(response.size)
    mask[others] = 1.0
    constant = fixed.constant + fixed.linear @ base
    linear = (fixed.linear * mask).tolil()
    quadratic = {}
    for r, q in fixed.quadratic.items():
        constant[r] += 0.5 * float(base @ (q @ base))
        linear[[r], :] = linear[[r], :].toarray() + (q @ base * mask)[None, :]
        kept = (q * mask).T * mask
        kept = kept.T.tocsr()
        kept.eliminate_zeros()
        if kept.nnz:
            quadratic[r] = kept
    return type(functions)(constant, linear.tocsr(), quadratic, fixed.trees)


def _switch(model: Model, expression: Any, level: float) -> Any:
    """A binary that, where it is 1, forces ``expression <= level``."""
    scip = model.scip
    number = scip.getNVars()
    z = scip.addVar(f"choice.{number}", "B")
    s = scip.addVar(f"value.{number}", "C", lb=None, ub=None)
    scip.addCons(s - expression >= 0.0)
    scip.addConsIndicator(s <= level, z)
    return z


def _whole_steps(system: System, functions: Functions, row: int, ends: Ends) -> tuple[float, float]:
    """Half of what a row that takes the values ``c + g n`` with whole n only lies beyond its upper
    and its lower end where it breaks them: there is a next value. Nothing for other rows.
    """
    if row in functions.trees or row in functions.quadratic:
        return 0.0, 0.0
    terms = [(j, c) for j, c in linear_terms(functions, row) if c]
    if not terms or not all(system.columns.integer[j] for j, _ in terms):
        return 0.0, 0.0
    unit = _common(np.array([c for _, c in terms]))
    if unit == 0.0:
        return 0.0, 0.0
    lower, upper = ((end - float(functions.constant[row])) / unit for end in ends)
    # An end that is a value of the row up to rounding is met there, not broken.
    above = unit * (math.floor(upper + WHOLE) + 1.0 - upper) if math.isfinite(upper) else 0.0
    below = unit * (lower - math.ceil(lower - WHOLE) + 1.0) if math.isfinite(lower) else 0.0
    return 0.5 * above, 0.5 * below


def _common(numbers: Array) -> float:
    """The largest number that all are whole multiples of; 0 where there is none of a reasonable
    size.
    """
    if bool((numbers == np.rint(numbers)).all()) and float(np.abs(numbers).max()) < LARGEST:
        return float(np.gcd.reduce(numbers.astype(np.int64)))
    least = float(np.abs(numbers).min())
    ratios = [Fraction(abs(float(c)) / least).limit_denominator(DENOMINATOR) for c in numbers]
    apart = np.abs(np.abs(numbers) / least - np.array([float(r) for r in ratios]))
    if bool((apart > SAME_RATIO * np.array([float(r) for r in ratios])).any()):
        return 0.0
    parts = math.lcm(*(r.denominator for r in ratios))
    if parts > DENOMINATOR:
        return 0.0
    return least / parts * math.gcd(*(int(r * parts) for r in ratios))
