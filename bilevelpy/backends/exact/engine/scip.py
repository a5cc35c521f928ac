"""A program of scalar rows with complementarity as a SCIP model.

Complementarity is a special ordered set of type 1 over multiplier and slack, so that no bound of a
multiplier has to be known. Slacks of rows are variables of their own; a variable whose bound is 0
is its own slack.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.cones import with_cones
from bilevelpy.backends.exact.engine.events import watch
from bilevelpy.backends.exact.engine.expressions import INFINITE, constant, engine, moves, silent
from bilevelpy.backends.exact.engine.outcome import Interlude, Limits, Outcome
from bilevelpy.numerics.programs.follower import objective_scale
from bilevelpy.reductions.trees import linear_terms, quadratic_terms
from bilevelpy.system.deadline import TooLong
from bilevelpy.system.interruption import as_interrupt, has_handler, unlost

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.optimality.conditions import Pair
    from bilevelpy.reductions.rows import Functions, Rows

Array = np.ndarray[Any, np.dtype[Any]]

# Values from which on rounding is more than what rows may be off by.
LOST = 1e13
# Values that SCIP takes for equal.
EQUAL = 1e-9
# Points that are kept beside the best one.
OTHERS = 12
# An objective with larger terms than this at a good point is told in units of its size there.
LARGE = 1e5
# Seconds that a solve gets however late it is.
LEAST = 0.05
# Seconds, and part of the time gone by, after which the pace of a proof is looked at again.
SLICE, SLICE_PART = 0.5, 0.1


@dataclass(slots=True)
class Model:
    """A SCIP model under construction; ``variables[j]`` stands for column j."""

    columns: Columns
    fixed: Mapping[int, float] = field(default_factory=dict)
    scip: Any = None
    variables: list[Any] = field(default_factory=list)
    # Variables beside the columns, with their values at values of these; logarithms of columns.
    derived: list[tuple[Any, Callable[[Array], float]]] = field(default_factory=list)
    logarithms: dict[int, Any] = field(default_factory=dict)
    # What the caller's callback has raised, which SCIP forgets; whether we have stopped SCIP.
    raised: BaseException | None = None
    halted: bool = False
    # The objective (function and sign), its row, and how it is told in units.
    _height: tuple[Functions, float, Any, Callable[[float], Any]] | None = None

    def __post_init__(self) -> None:
        self.scip = engine().Model()
        self.scip.hideOutput()
        for j, name in enumerate(self.columns.names):
            low, high = float(self.columns.lower[j]), float(self.columns.upper[j])
            # Ends of whole numbers are rounded by SCIP, apart where they are not whole.
            whole = bool(self.columns.integer[j]) and j not in self.fixed
            if j in self.fixed:
                low = high = float(self.fixed[j])
            kind = "B" if whole and low >= 0 and high <= 1 else "I" if whole else "C"
            self.variables.append(self.scip.addVar(name, kind, lb=_end(low), ub=_end(high)))

    # --- parts ------------------------------------------------------------------------------------

    def expression(self, functions: Functions, row: int, sign: float = 0.0) -> Any:
        """One function as an expression of SCIP; ``sign`` times it is to be small (0: unknown)."""
        if row in functions.trees or row in functions.quadratic:
            # Dual reductions keep some optima only. With SOS1 sets beside nonlinear rows SCIP 10.0
            # has lost the optimum by them (tests/faults/test_engine.py); linear programs need them.
            self.scip.setParam("misc/allowweakdualreds", False)
            self.scip.setParam("misc/allowstrongdualreds", False)
        if row in functions.trees:
            return with_cones(self, functions.trees[row], sign)
        v = self.variables
        terms = [c * v[j] for j, c in linear_terms(functions, row)]
        terms += [c * v[i] * v[j] for i, j, c in quadratic_terms(functions, row)]
        return engine().quicksum(terms) + float(functions.constant[row])

    def minimize(
        self,
        functions: Functions,
        sign: float = 1.0,
        least: float = -math.inf,
        beside: Functions | None = None,
    ) -> None:
        """Set the objective ``sign * functions[0]``, and a linear one ``beside`` it; what is not
        linear goes through a variable, of which ``least`` is a known lower bound.
        """
        expression = sign * self.expression(functions, 0, sign)
        if functions.degree == 1:
            self.scip.setObjective(expression, "minimize")
            return
        plain = 0.0 if beside is None else sign * self.expression(beside, 0)

        def tell(unit: float) -> Any:
            name, low = "objective" if unit == 1.0 else "objective in units", _end(least / unit)
            height = self.scip.addVar(name, "C", lb=low, ub=None)
            self.derived.append((height, lambda v: sign * float(functions.value(v)[0]) / unit))
            told = expression if unit == 1.0 else (1.0 / unit) * expression
            row = self.scip.addCons(height >= told)
            self.scip.setObjective((height if unit == 1.0 else unit * height) + plain, "minimize")
            return row

        self._height = functions, sign, tell(1.0), tell

    def begin_from(self, values: Array) -> bool:
        """Offer a good point, and tell an objective with large terms there in units of its size (a
        power of two): its row may be off by an absolute tolerance. Whether there are such units.
        """
        large = False
        if self._height is not None:
            functions, sign, row, tell = self._height
            size, every = abs(float(functions.value(values)[0])), np.arange(values.size)
            terms = objective_scale(functions, 0, values, every) + abs(float(functions.constant[0]))
            if large := max(size, terms) > LARGE and 1.0 < size < LOST:
                self.scip.freeTransform()
                self.scip.delCons(row)
                self._height = functions, sign, tell(2.0 ** round(math.log2(size))), tell
        self.offer(values)
        return large

    def rows(self, rows: Rows, chosen: Iterable[int] | None = None) -> None:
        """Add constraints."""
        for r in range(rows.count) if chosen is None else chosen:
            low, high = float(rows.lower[r]), float(rows.upper[r])
            sign = float(math.isfinite(high)) - float(math.isfinite(low))
            self.row(self.expression(rows.functions, r, sign), low, high)

    def row(self, expression: Any, low: float, high: float) -> None:
        """``low <= expression <= high``."""
        add = self.scip.addCons
        if not moves(expression):
            value = float(expression) if not hasattr(expression, "terms") else constant(expression)
            slack = 1e-9 * max(1.0, abs(value))
            if value < low - slack or value > high + slack:
                # An empty set is said by contradictory bounds: SCIP takes no constant rows.
                one = self.scip.addVar("empty", "C", lb=0.0, ub=0.0)
                add(one >= 1.0)
            return
        if low == high:
            add(expression == low)
            return
        if math.isfinite(high):
            add(expression <= high)
        if math.isfinite(low):
            add(expression >= low)

    def pair(self, pair: Pair, rows: Rows) -> None:
        """One of multiplier and slack is zero."""
        # Nonlinear programs of many starts do not know of pairs, and run off where multipliers
        # have no bound.
        self.scip.setParam("heuristics/multistart/freq", -1)
        slack = self.slack(pair, rows)
        multiplier = self.variables[pair.multiplier]
        self.scip.addConsSOS1([multiplier, slack], [1.0, 2.0])

    def slack(self, pair: Pair, rows: Rows) -> Any:
        """The non-negative variable that is the slack of a pair."""
        if pair.row is None:
            assert pair.column is not None
            j = pair.column
            value = self.variables[j]
            low, high = float(self.columns.lower[j]), float(self.columns.upper[j])
            if pair.side == "lower" and low == 0.0:
                return value
        else:
            value = self.expression(rows.functions, pair.row)
            low, high = float(rows.lower[pair.row]), float(rows.upper[pair.row])
        made = self.scip.addVar(f"slack.{pair.name}", "C", lb=0.0, ub=None)
        end, sign = (low, 1.0) if pair.side == "lower" else (high, -1.0)
        if pair.row is None:
            self.derived.append((made, lambda v: max(sign * (float(v[j]) - end), 0.0)))
        else:
            functions, row = rows.functions, pair.row
            self.derived.append((made, lambda v: max(sign * (functions.at(row, v) - end), 0.0)))
        if pair.side == "lower":
            self.scip.addCons(value - made == low)
        else:
            self.scip.addCons(value + made == high)
        return made

    # --- solution ---------------------------------------------------------------------------------

    def offer(self, values: Array) -> bool:
        """Give SCIP a point (values of the columns) to start from or to go on with."""
        # In the original space: presolving may have replaced variables by sums of others.
        return bool(self.scip.addSol(self._filled(self.scip.createOrigSol(), values)))

    def try_point(self, values: Array, finder: Any = None) -> bool:
        """Give SCIP a point while it solves (``finder`` is its heuristic); whether it was taken.
        One that SCIP has left out by now, with ends for all nodes, is an error to it.
        """
        for variable, value in zip(self.variables, values, strict=True):
            x = self.scip.getTransformedVar(variable)
            if not x.getLbGlobal() - EQUAL <= value <= x.getUbGlobal() + EQUAL:
                return False
        return bool(self.scip.trySol(self._filled(self.scip.createSol(finder), values)))

    def _filled(self, point: Any, values: Array) -> Any:
        for variable, value in zip(self.variables, values, strict=True):
            self.scip.setSolVal(point, variable, float(value))
        for variable, compute in self.derived:
            self.scip.setSolVal(point, variable, compute(values))
        return point

    def solve(self, limits: Limits, interlude: Interlude | None = None) -> Outcome:
        """Minimise. Where that takes longer than ``interlude.after`` seconds, the point that
        ``interlude.point`` finds meanwhile is given to SCIP, which goes on with it.

        Raises
        ------
        KeyboardInterrupt
            Where a run was interrupted that nobody watches: one that is ends as "interrupted".
        """
        scip = self.scip
        long = interlude is not None and interlude.after < limits.seconds
        seconds = interlude.after if interlude is not None and long else limits.seconds
        if math.isfinite(seconds):
            scip.setParam("limits/time", max(seconds, 1e-2))
        scip.setParam("timing/clocktype", 2)  # seconds on the wall, not of the processor
        # Relative to the larger of 1 and |F|, as `Outcome.gap` is.
        scip.setParam("limits/gap", 0.5 * limits.gap)
        scip.setParam("limits/absgap", 0.5 * limits.gap)
        scip.setParam("numerics/feastol", limits.feasible)
        scip.setParam("randomization/randomseedshift", int(limits.seed) % 2_000_000_000)
        watcher = None if interlude is None else interlude.watcher
        if watcher is not None:
            watch(self, watcher)
        status = "trouble"
        try:
            # SCIP's errors have no class.
            with silent(), contextlib.suppress(Exception), unlost():
                self._optimize()
                stopped = ""
                if interlude is not None and long and scip.getStatus() == "timelimit":
                    stopped = self._go_on(limits, interlude)
                status = stopped or _STATUS.get(scip.getStatus(), "time_limit")
        except KeyboardInterrupt as error:
            self.raised = self.raised or error
        if isinstance(self.raised, KeyboardInterrupt):
            status = "interrupted"
        elif self.raised is not None:
            raise self.raised
        if status == "interrupted" and watcher is None and not self.halted:
            raise KeyboardInterrupt
        if status == "trouble":
            return Outcome(status, None, math.inf, -math.inf, 0, 0.0)
        values, objective = None, math.inf
        if scip.getNSols() and status not in ("infeasible", "unbounded", "unclear"):
            best = scip.getBestSol()
            values, objective = self.point(best), float(scip.getSolObjVal(best))
            if status == "optimal" and float(np.abs(values).max(initial=0.0)) >= LOST:
                # Rows hold by nothing but rounding there: F may have no bound.
                status, values, objective = "unclear", None, math.inf
        bound = _finite(scip.getDualbound())
        others, nodes = () if values is None else self._others(), int(scip.getNTotalNodes())
        return Outcome(status, values, objective, bound, nodes, scip.getSolvingTime(), others)

    def _others(self) -> tuple[Array, ...]:
        """Worse points, where whole numbers set them apart."""
        if not bool(self.columns.integer.any()):
            return ()
        return tuple(self.point(solution) for solution in self.scip.getSols()[1 : OTHERS + 1])

    def point(self, solution: Any) -> Array:
        """The columns at a solution, which may be off their ends a little: roots have no value."""
        values = np.array([self.scip.getSolVal(solution, v) for v in self.variables])
        return values.clip(self.columns.lower, self.columns.upper)

    def _optimize(self) -> None:
        """Run SCIP, which ends by the signal INT alone; others come as that where Python waits for
        them.
        """
        if not has_handler():
            self.scip.optimize()
            return
        with as_interrupt():
            self.scip.optimizeNogil()

    def halt(self) -> None:
        """Stop SCIP as soon as may be: for callbacks inside of its run."""
        self.halted = True
        self.scip.interruptSolve()

    def _go_on(self, limits: Limits, interlude: Interlude) -> str:
        """The rest of a run that was stopped for an interlude; "interrupted" where the user stopped
        that, "hopeless" where its pace did.
        """
        scip = self.scip
        began = time.perf_counter()
        try:
            values = interlude.point()
        except TooLong:
            values = None
        except KeyboardInterrupt:  # what SCIP has found is kept
            return "interrupted"
        spent = interlude.after + (time.perf_counter() - began)
        if values is not None and spent < limits.seconds:
            self.begin_from(values)
        elif values is not None:
            self.offer(values)
        pace = interlude.pace
        if pace is not None:
            pace.see(scip.getSolvingTime(), _finite(scip.getDualbound()))
        while spent < limits.seconds:
            left = limits.seconds - spent
            slice_ = left if pace is None else min(left, max(SLICE, SLICE_PART * spent))
            scip.setParam("limits/time", min(scip.getSolvingTime() + slice_, INFINITE))
            self._optimize()
            if pace is None or scip.getStatus() != "timelimit":
                break
            spent = interlude.after + (time.perf_counter() - began)
            pace.see(scip.getSolvingTime(), _finite(scip.getDualbound()))
            if pace.is_hopeless(limits.seconds - spent, _finite(scip.getPrimalbound())):
                return "hopeless"
        return ""


_STATUS = {
    "optimal": "optimal",
    "gaplimit": "optimal",
    "infeasible": "infeasible",
    "unbounded": "unbounded",
    "inforunbd": "unclear",
    "userinterrupt": "interrupted",
}


def _finite(value: float) -> float:
    """A number of SCIP, with its infinity as one."""
    return math.copysign(math.inf, value) if abs(value) >= INFINITE else float(value)


def _end(value: float) -> float | None:
    return value if abs(value) < INFINITE else None
