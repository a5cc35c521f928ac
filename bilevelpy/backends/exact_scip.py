"""A program of scalar rows with complementarity as a SCIP model.

Complementarity is a special ordered set of type 1 over multiplier and slack, so that no bound of a
multiplier has to be known. Slacks of rows are variables of their own; a variable whose bound is 0
is its own slack.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import BackendError
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.kkt import Pair
    from bilevelpy.reductions.rows import Functions, Rows

Array = np.ndarray[Any, np.dtype[Any]]

# SCIP reads numbers from here on as infinite.
INFINITE = 1e20


def engine() -> Any:
    """The module ``pyscipopt``.

    Raises
    ------
    BackendError
        Where it is not installed; the message names the extra.
    """
    try:
        import pyscipopt
    except ImportError as error:
        raise BackendError(
            "the backend `exact` needs SCIP: `pip install pyscipopt`, or install the extra "
            "`exact` from a checkout (`pip install -e '.[exact]'`)"
        ) from error
    return pyscipopt


@dataclass(frozen=True, slots=True)
class Outcome:
    """How SCIP ended.

    ``status`` is "optimal", "infeasible", "unbounded", "unclear" (one of the two), "time_limit",
    "interrupted" or "trouble" (SCIP failed); ``values`` are those of the columns, None without a
    point;
    ``bound`` is a proved lower bound of the minimised objective.
    """

    status: str
    values: Array | None
    objective: float
    bound: float
    nodes: int
    time: float

    @property
    def gap(self) -> float:
        """Distance of objective and bound, relative to the larger of the two and 1."""
        if self.values is None or not math.isfinite(self.bound):
            return math.inf
        return max(self.objective - self.bound, 0.0) / max(1.0, abs(self.objective))


@dataclass(frozen=True, slots=True)
class Limits:
    """When SCIP stops: seconds, relative gap, the shift of its random seed, and how far rows may be
    off.
    """

    seconds: float = math.inf
    gap: float = 1e-6
    seed: int = 0
    feasible: float = 1e-6


@dataclass(slots=True)
class Model:
    """A SCIP model under construction; ``variables[j]`` stands for column j."""

    columns: Columns
    fixed: Mapping[int, float] = field(default_factory=dict)
    scip: Any = None
    variables: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scip = engine().Model()
        self.scip.hideOutput()
        for j, name in enumerate(self.columns.names):
            low, high = float(self.columns.lower[j]), float(self.columns.upper[j])
            if j in self.fixed:
                low = high = float(self.fixed[j])
            whole = bool(self.columns.integer[j])
            kind = "B" if whole and low >= 0 and high <= 1 else "I" if whole else "C"
            self.variables.append(self.scip.addVar(name, kind, lb=_end(low), ub=_end(high)))

    # --- parts ------------------------------------------------------------------------------------

    def expression(self, functions: Functions, row: int) -> Any:
        """One function as an expression of SCIP."""
        if row in functions.trees:
            return self.tree(functions.trees[row])
        quick = engine().quicksum
        v = self.variables
        terms = [c * v[j] for j, c in linear_terms(functions, row)]
        terms += [c * v[i] * v[j] for i, j, c in quadratic_terms(functions, row)]
        return quick(terms) + float(functions.constant[row])

    def tree(self, root: sc.Scalar) -> Any:
        """A scalar tree as an expression of SCIP."""
        scip = engine()
        known: dict[int, Any] = {}
        for node in sc.postorder(root):
            match node:
                case sc.Num():
                    known[id(node)] = node.value
                case sc.Col():
                    known[id(node)] = 1.0 * self.variables[node.index]
                case sc.Call():
                    args = [known[id(a)] for a in node.arguments]
                    known[id(node)] = _apply(scip, node.function, args)
        return known[id(root)] + 0.0 * self.variables[0]

    def minimize(self, functions: Functions, sign: float = 1.0, least: float = -math.inf) -> None:
        """Set the objective ``sign * functions[0]``; what is not linear goes through a variable, of
        which ``least`` is a known lower bound.
        """
        expression = sign * self.expression(functions, 0)
        if functions.degree == 1:
            self.scip.setObjective(expression, "minimize")
            return
        height = self.scip.addVar("objective", "C", lb=_end(least), ub=None)
        self.scip.addCons(height >= expression)
        self.scip.setObjective(height, "minimize")

    def rows(self, rows: Rows, chosen: Iterable[int] | None = None) -> None:
        """Add constraints."""
        for r in range(rows.count) if chosen is None else chosen:
            self.row(self.expression(rows.functions, r), float(rows.lower[r]), float(rows.upper[r]))

    def row(self, expression: Any, low: float, high: float) -> None:
        """``low <= expression <= high``."""
        add = self.scip.addCons
        if not _moves(expression):
            value = float(expression) if not hasattr(expression, "terms") else _constant(expression)
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
        if pair.side == "lower":
            self.scip.addCons(value - made == low)
        else:
            self.scip.addCons(value + made == high)
        return made

    # --- solution ---------------------------------------------------------------------------------

    def solve(self, limits: Limits) -> Outcome:
        """Minimise."""
        scip = self.scip
        if math.isfinite(limits.seconds):
            scip.setParam("limits/time", max(limits.seconds, 1e-2))
        scip.setParam("timing/clocktype", 2)  # seconds on the wall, not of the processor
        # Relative to the larger of 1 and |F|, as `Outcome.gap` is.
        scip.setParam("limits/gap", 0.5 * limits.gap)
        scip.setParam("limits/absgap", 0.5 * limits.gap)
        scip.setParam("numerics/feastol", limits.feasible)
        scip.setParam("randomization/randomseedshift", int(limits.seed) % 2_000_000_000)
        status = "trouble"
        with _silent(), contextlib.suppress(Exception):  # SCIP's errors have no class of their own
            scip.optimize()
            status = _STATUS.get(scip.getStatus(), "time_limit")
        if status == "trouble":
            return Outcome(status, None, math.inf, -math.inf, 0, 0.0)
        values, objective = None, math.inf
        if scip.getNSols() and status not in ("infeasible", "unbounded", "unclear"):
            best = scip.getBestSol()
            values = np.array([scip.getSolVal(best, v) for v in self.variables])
            objective = float(scip.getSolObjVal(best))
        bound = float(scip.getDualbound())
        if abs(bound) >= INFINITE:
            bound = math.copysign(math.inf, bound)
        return Outcome(
            status, values, objective, bound, int(scip.getNTotalNodes()), scip.getSolvingTime()
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the LP solver of SCIP writes to the standard error of the process; it has no
    switch for that.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


_STATUS = {
    "optimal": "optimal",
    "gaplimit": "optimal",
    "infeasible": "infeasible",
    "unbounded": "unbounded",
    "inforunbd": "unclear",
    "userinterrupt": "interrupted",
}


def _end(value: float) -> float | None:
    return value if abs(value) < INFINITE else None


def _moves(expression: Any) -> bool:
    """Whether an expression reads a variable."""
    if isinstance(expression, int | float):
        return False
    terms = getattr(expression, "terms", None)
    return terms is None or any(len(t.vartuple) > 0 for t in terms)


def _constant(expression: Any) -> float:
    return float(sum(expression.terms.values()))


def _apply(scip: Any, function: str, args: list[Any]) -> Any:
    match function:
        case "add":
            total = args[0]
            for a in args[1:]:
                total = total + a
            return total
        case "mul":
            product = args[0]
            for a in args[1:]:
                product = product * a
            return product
        case "div":
            return args[0] / args[1]
        case "pow":
            return _power(scip, *args)
        case "abs":
            return abs(args[0])
        case "max":  # SCIP has neither: (a + b + |a - b|) / 2
            return 0.5 * (args[0] + args[1] + abs(args[0] - args[1]))
        case "min":
            return 0.5 * (args[0] + args[1] - abs(args[0] - args[1]))
        case "exp" | "log" | "sqrt" | "sin" | "cos":
            return getattr(scip, function)(args[0])
    raise BackendError(f"the backend `exact` has no function `{function}`")


def _power(scip: Any, base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float):
        whole = float(exponent).is_integer()
        return base ** (int(exponent) if whole else float(exponent))
    return scip.exp(exponent * scip.log(base))
