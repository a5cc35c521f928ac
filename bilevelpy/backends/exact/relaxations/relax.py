"""The single-level program that the exact backend hands to SCIP; where its relaxation has no bound,
pairs are decided by hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.engine.expressions import engine
from bilevelpy.backends.exact.engine.outcome import Interlude, Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST, Model
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.reductions.rewriting.fixing import fix_products
from bilevelpy.reductions.rewriting.intervals import column_ranges, tree_range
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT, Pair

Array = np.ndarray[Any, np.dtype[Any]]

# What a lower bound of the objective is lowered by (relative): less than the gap that proves.
SLACK = 1e-7

# How far rows may be off where no point is to be clearly better.
SHARP = 1e-9

# Sub-programs that an unbounded relaxation is split into at most.
SPLITS = 2000

# Seconds, and the part of those left, for a second try at what SCIP could not solve: other ways
# follow.
RETRY, TENTH = 2.0, 0.1


@dataclass(frozen=True, slots=True)
class Side:
    """A pair whose multiplier ("multiplier") or slack ("slack") is fixed at zero."""

    pair: int
    zero: str


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A KKT program with what is added to it: ``fixed`` columns, decided pairs, ``extra`` rows that
    a function writes into the SCIP model, and a point to start from.
    """

    kkt: KKT
    fixed: Mapping[int, float] = field(default_factory=dict)
    sides: tuple[Side, ...] = ()
    extra: Callable[[Model], None] | None = None
    start: Array | None = None

    def model(self, objective: Functions | None, sign: float = 1.0, skip: str = "") -> Model:
        """As a SCIP model; rows of the kind ``skip`` are left out."""
        program = self.kkt
        model = Model(program.columns, self.fixed)
        chosen = [r for r, kind in enumerate(program.kinds) if kind != skip]
        model.rows(program.rows, chosen)
        decided = {side.pair: side.zero for side in self.sides}
        for k, pair in enumerate(program.pairs):
            self._pair(model, pair, decided.get(k))
        if self.extra is not None:
            self.extra(model)
        if objective is not None:
            objective = fix_products(objective, self.fixed)
            least, beside = self._least(objective, sign), None
            if objective.degree == 2 and not math.isfinite(least):
                # SCIP may cut an unbounded relaxation for ever that a curved row bounds from one
                # side; prices and the like, which have no bound, are better told apart.
                beside, objective = objective.parted()
                least = self._least(objective, sign)
            model.minimize(objective, sign, least, beside)
            if self.start is not None:
                model.offer(self.start)
        return model

    def is_bounded(self, sign: float) -> bool:
        """Whether the objective is known to be bounded below without the undecided pairs."""
        objective = self.kkt.objective.scaled(sign)
        if objective.degree == 1:
            return self._linear_part(objective).solve().status in ("optimal", "infeasible")
        if math.isfinite(self._least(self.kkt.objective, sign)):
            return True
        return math.isfinite(self._lowest(objective))

    def is_void(self) -> bool:
        """Whether the linear rows with the decided pairs leave nothing."""
        nothing = Functions(np.zeros(1), sp.csr_array((1, self.kkt.columns.count)))
        return self._linear_part(nothing).solve().status == "infeasible"

    def _lowest(self, objective: Functions) -> float:
        """The lower end of the range of an objective, by the form that it is written in."""
        low, high = column_ranges(self.kkt.system)
        extra = self.kkt.columns.count - low.size
        low = np.concatenate([low, self.kkt.columns.lower[low.size :]])
        high = np.concatenate([high, self.kkt.columns.upper[high.size :]]) if extra else high
        tree = tree_of(objective, 0)
        return tree_range(tree, low, high)[id(tree)][0]

    def _linear_part(self, objective: Functions) -> Program:
        """The linear rows with the decided pairs, as a program."""
        columns, rows = self.kkt.columns, self.kkt.rows
        lower, upper = columns.lower.copy(), columns.upper.copy()
        low, high = rows.lower.copy(), rows.upper.copy()
        for side in self.sides:
            pair = self.kkt.pairs[side.pair]
            if side.zero == "multiplier":
                upper[pair.multiplier] = 0.0
            elif pair.row is not None:
                end = high[pair.row] if pair.side == "upper" else low[pair.row]
                low[pair.row] = high[pair.row] = end
            elif pair.column is not None:
                end = upper[pair.column] if pair.side == "upper" else lower[pair.column]
                lower[pair.column] = upper[pair.column] = end
        chosen = [r for r in range(rows.count) if not _is_curved(rows.functions, r)]
        linear = replace(rows, lower=low, upper=high).take(chosen)
        free = np.array([j for j in range(columns.count) if j not in self.fixed], dtype=np.int64)
        at = columns.start.copy()
        for j, value in self.fixed.items():
            at[j] = value
        whole = np.zeros(columns.count, dtype=bool)
        return Program(objective, linear, lower, upper, whole, free, at)

    def nothing_below(self, found: Outcome, limits: Limits, sign: float) -> bool:
        """Whether no point has a clearly smaller objective: a question without an objective, whose
        answer no unbounded relaxation can spoil.
        """
        model = self.model(None)
        step = max(10.0 * limits.gap * max(1.0, abs(found.objective)), 1e-6)
        value = model.expression(self.kkt.objective.scaled(sign), 0, 1.0)
        model.row(value, -math.inf, found.objective - step)
        # Tolerances of rows times coefficients may be worth more than the step.
        return model.solve(replace(limits, feasible=SHARP)).status == "infeasible"

    def _least(self, objective: Functions, sign: float) -> float:
        """A lower bound of a convex quadratic objective under the rows alone, of others by their
        form (sums of squares and norms are not negative): a point that attains it ends the run.

        Where columns are unbounded, the linear relaxation of SCIP has none to begin with.
        """
        if objective.degree == 3:
            lowest = self._lowest(objective.scaled(sign))
            return lowest - SLACK * max(1.0, abs(lowest)) if math.isfinite(lowest) else -math.inf
        if sign < 0 or objective.degree != 2:
            return -math.inf
        program = self._linear_part(objective)
        if program.degree != 2:
            return -math.inf
        found = program.solve()
        if found.status != "optimal":
            return -math.inf
        return found.objective - SLACK * max(1.0, abs(found.objective))

    def _pair(self, model: Model, pair: Pair, zero: str | None) -> None:
        if zero is None:
            model.pair(pair, self.kkt.rows)
        elif zero == "multiplier":
            model.scip.addCons(model.variables[pair.multiplier] <= 0.0)
        else:
            model.scip.addCons(model.slack(pair, self.kkt.rows) <= 0.0)

    def solve(
        self, limits: Limits, sign: float = 1.0, interlude: Interlude | None = None
    ) -> Outcome:
        """Minimise the leader's objective (times ``sign``)."""
        return _solve(self, limits, sign, interlude)


def _solve(program: Relaxed, limits: Limits, sign: float, interlude: Interlude | None) -> Outcome:
    """SCIP once where its relaxation has a bound. Where it has none, SCIP may drop parts of its
    tree whose relaxation is unbounded: its answer has to be confirmed, or pairs are decided here.
    """
    began = time.perf_counter()
    outcome = program.model(program.kkt.objective, sign).solve(limits, interlude)
    left = limits.seconds - (time.perf_counter() - began)
    if outcome.status == "trouble" and left > LEAST:
        # A linear program that SCIP could not solve: an objective with large terms in units, or its
        # slower settings for such ones, often can.
        model = program.model(program.kkt.objective, sign)
        quiet = None if interlude is None else replace(interlude, after=math.inf)
        point = None if interlude is None else interlude.point()
        if point is None or not model.begin_from(point):
            model.scip.setEmphasis(engine().SCIP_PARAMEMPHASIS.NUMERICS)
        left = limits.seconds - (time.perf_counter() - began)
        again = model.solve(
            replace(limits, seconds=max(min(left, max(RETRY, TENTH * left)), LEAST)), quiet
        )
        outcome = again if again.status in ("optimal", "infeasible") else outcome
    if outcome.status == "infeasible" and program.kkt.objective.degree == 3 and not program.fixed:
        return _confirmed(program, outcome, limits, sign, began)
    limited = outcome.status in ("time_limit", "trouble", "interrupted", "hopeless")
    if limited or (outcome.status != "unclear" and program.is_bounded(sign)):
        return outcome
    left = limits.seconds - (time.perf_counter() - began)
    rest = replace(limits, seconds=max(left, LEAST))
    if outcome.status == "unclear" and is_empty(program, rest):
        return replace(outcome, status="infeasible", bound=math.inf)
    if outcome.values is not None and program.nothing_below(outcome, rest, sign):
        return outcome
    return _split(program, limits, sign, began)


def _confirmed(
    program: Relaxed, outcome: Outcome, limits: Limits, sign: float, began: float
) -> Outcome:
    """The end of a program that SCIP calls infeasible. Its cuts for kinks within kinks of an
    objective (Huber losses) have left nothing where there are points: an objective rules out none.
    """
    left = limits.seconds - (time.perf_counter() - began)
    found = program.model(None).solve(replace(limits, seconds=max(left, LEAST)))
    if found.values is None:
        return outcome
    objective = sign * float(program.kkt.objective.value(found.values)[0])
    return replace(found, status="trouble", objective=objective, bound=-math.inf)


def _split(program: Relaxed, limits: Limits, sign: float, began: float) -> Outcome:
    """Pairs decided one by one until relaxations are bounded; with every pair decided, an unbounded
    one says that the program is.
    """
    best = Outcome("infeasible", None, math.inf, math.inf, 0, 0.0)
    open_: list[tuple[Side, ...]] = [program.sides]
    nodes, tried = 0, 0
    while open_:
        sides = open_.pop()
        left = limits.seconds - (time.perf_counter() - began)
        if left <= 0 or tried > SPLITS:
            return replace(best, status="time_limit" if left <= 0 else "stuck", bound=-math.inf)
        tried += 1
        child = replace(program, sides=sides)
        taken = {s.pair for s in sides}
        free = [k for k in range(len(program.kkt.pairs)) if k not in taken]
        if free and not child.is_bounded(sign):
            if child.is_void():
                continue
            open_ += [(*sides, Side(free[0], "multiplier")), (*sides, Side(free[0], "slack"))]
            continue
        try:
            found = child.model(program.kkt.objective, sign).solve(replace(limits, seconds=left))
        except KeyboardInterrupt:
            return replace(best, status="interrupted", bound=-math.inf)
        nodes += found.nodes
        if found.status in ("unbounded", "unclear"):
            if found.status == "unclear" and is_empty(child, limits):
                continue
            return replace(found, status="unbounded", bound=-math.inf)
        if found.status in ("time_limit", "interrupted", "trouble"):
            return replace(found, bound=-math.inf)
        if found.values is not None and found.objective < best.objective:
            best = replace(found, bound=min(found.bound, best.bound))
    return replace(best, nodes=nodes, time=time.perf_counter() - began)


def _is_curved(functions: Functions, row: int) -> bool:
    return row in functions.quadratic or row in functions.trees


def is_empty(program: Relaxed, limits: Limits) -> bool:
    """Whether there is no point at all."""
    return program.model(None).solve(limits).status == "infeasible"
