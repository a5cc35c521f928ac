"""Local solutions of smooth programs in columns by an interior-point method: IPOPT, which CasADi
brings along, with derivatives by CasADi.

A program is compiled once and solved for many starts, bounds and right-hand sides: columns are
fixed, and rows are closed or opened, by their bounds alone.
"""

from __future__ import annotations

import math
import operator
import time
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.errors import BackendError
from bilevelpy.reductions import scalar as sc
from bilevelpy.system.deadline import check
from bilevelpy.system.interruption import unlost

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows

Array = np.ndarray[Any, np.dtype[Any]]

# Rows and bounds may be off by this at a point that counts as feasible.
FEASIBLE = 1e-6
# Iterations of IPOPT at most.
ITERATIONS = 200
# Seconds that a run gets at least.
LEAST = 0.25
# Compiling, which nothing ends early, takes about so many times as long as writing: of rows that
# are quadratic, and of others.
COMPILING = (8.0, 1.7)


def library() -> Any:
    """The module ``casadi``.

    Raises
    ------
    BackendError
        Where it is not installed; the message names the extra.
    """
    try:
        import casadi
    except ImportError as error:
        raise BackendError(
            "this needs the interior-point solver IPOPT: `pip install casadi`, or install the "
            "extra `nlp` from a checkout (`pip install -e '.[nlp]'`)"
        ) from error
    return casadi


def is_installed() -> bool:
    """Whether the solver can be imported."""
    try:
        library()
    except BackendError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Local:
    """``values`` of all columns at the end of a run, and the objective there. ``converged``:
    IPOPT's own conditions hold, perhaps to its ``acceptable`` level only; ``violation`` is the
    largest one of rows and bounds.
    """

    values: Array
    objective: float
    violation: float
    converged: bool
    acceptable: bool = False

    @property
    def is_feasible(self) -> bool:
        """Whether rows and bounds hold."""
        return self.violation <= FEASIBLE * max(1.0, float(np.abs(self.values).max(initial=0.0)))


class InteriorPoint:
    """``min objective(v)`` under ``rows`` and bounds, compiled.

    Parameters
    ----------
    objective
        Its first function is minimised.
    rows
        Constraints; their bounds are the defaults of :meth:`solve`.
    """

    def __init__(self, objective: Functions, rows: Rows) -> None:
        ca, began = library(), time.perf_counter()
        self.rows = rows
        self.width = int(objective.linear.shape[1])
        v = ca.SX.sym("v", self.width)
        entries = [v[j] for j in range(self.width)]
        value = expressions(objective, v, entries)[0]
        body = expressions(rows.functions, v, entries)
        settings = {
            "print_time": False,
            "show_eval_warnings": False,
            "error_on_fail": False,
            # That of `factor`: nobody reads it, and CasADi says so where it is no number.
            "calc_lam_p": False,
            # It warns of more equations than variables, which IPOPT copes with where some are
            # bounds that meet; ends that cross are looked for in `solve`.
            "inputs_check": False,
            "ipopt.print_level": 0,
            "ipopt.sb": "yes",
            "ipopt.max_iter": ITERATIONS,
            "ipopt.tol": 1e-9,
            "ipopt.constr_viol_tol": 1e-9,
            "ipopt.acceptable_tol": 1e-7,
            "ipopt.acceptable_constr_viol_tol": 1e-7,
            # Bounds and rows are met as they are written: points go on into exact programs.
            "ipopt.bound_relax_factor": 0.0,
            "ipopt.honor_original_bounds": "yes",
            "ipopt.mu_strategy": "adaptive",
        }
        self._settings = settings
        factor = ca.SX.sym("factor")
        self._program = {"x": v, "p": factor, "f": value * factor, "g": body}
        self._solver: Any = None
        self._watch: Any = None
        # Seconds that writing the program has taken, and those of compiling.
        self.written, self.compiled = time.perf_counter() - began, 0.0
        # Whether a run was not begun for lack of time to compile.
        self.refused = False

    def _prepared(self, seconds: float) -> Any:
        """The compiled solver, which ends after so many seconds: a call after every iteration looks
        at the clock, for a limit among the options would be compiled in.
        """
        ca = library()
        if self._solver is None:
            began = time.perf_counter()
            self._watch = _watch(ca, self.width, self.rows.count)
            settings = self._settings | {"iteration_callback": self._watch}
            self._solver = ca.nlpsol("local", "ipopt", self._program, settings)
            self.compiled = time.perf_counter() - began
            seconds -= self.compiled
        self._watch.end = time.perf_counter() + max(seconds, LEAST)
        return self._solver

    def solve(
        self,
        start: Array,
        lower: Array,
        upper: Array,
        row_lower: Array | None = None,
        row_upper: Array | None = None,
        *,
        seconds: float = 60.0,
        unit: float = 1.0,
    ) -> Local | None:
        """One run from ``start``; None where functions have no values there, where ends cross, and
        where there is no time to compile the program. IPOPT measures the objective in ``unit``.

        Raises
        ------
        KeyboardInterrupt
            Where the run was interrupted.
        """
        low = self.rows.lower if row_lower is None else row_lower
        high = self.rows.upper if row_upper is None else row_upper
        lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
        if _is_crossed(low, high) or _is_crossed(lower, upper):
            return None
        factor = COMPILING[1 if self.rows.functions.trees else 0]
        if self._solver is None and factor * self.written > max(seconds, LEAST):
            self.refused = True
            return None
        solver = self._prepared(seconds)
        with unlost():
            try:
                found = solver(
                    x0=np.clip(start, lower, upper), p=1.0 / unit,
                    lbx=lower, ubx=upper, lbg=low, ubg=high,
                )  # fmt: skip
            except RuntimeError:  # an evaluation that IPOPT cannot step back from
                return None
        values = np.asarray(found["x"], dtype=float).reshape(-1)
        objective = unit * float(found["f"])
        body = np.asarray(found["g"], dtype=float).reshape(-1)
        if not (np.isfinite(values).all() and math.isfinite(objective)):
            return None
        values = np.clip(values, lower, upper)
        off = np.maximum(np.maximum(low - body, body - high), 0.0)
        stats = solver.stats()
        return Local(
            values,
            objective,
            math.inf if np.isnan(off).any() else float(off.max(initial=0.0)),
            bool(stats["success"]),
            stats["return_status"] == "Solved_To_Acceptable_Level",
        )


def _is_crossed(low: Array, high: Array) -> bool:
    """Whether some ends leave nothing."""
    return bool(((low > high) | (low == math.inf) | (high == -math.inf)).any())


def _watch(ca: Any, width: int, rows: int) -> Any:
    """CasADi's callback after iterations: 1 where the time (of ``time.perf_counter``) is up."""

    class Watch(ca.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            ca.Callback.__init__(self)
            self.end = math.inf
            self.construct("watch", {})

        def get_n_in(self) -> int:
            return int(ca.nlpsol_n_out())

        def get_n_out(self) -> int:
            return 1

        def get_sparsity_in(self, i: int) -> Any:
            size = {"f": 1, "x": width, "lam_x": width, "g": rows, "lam_g": rows}
            return ca.Sparsity.dense(size.get(ca.nlpsol_out(i), 0), 1)

        def eval(self, arguments: Any) -> list[float]:
            return [float(time.perf_counter() > self.end)]

    return Watch()


def expressions(functions: Functions, v: Any, entries: list[Any]) -> Any:
    """All functions as a column of CasADi expressions of ``v``, whose entries are ``entries``."""
    ca = library()
    linear = sp.csc_array(functions.linear)
    matrix = _sparse(ca, linear)
    body = ca.mtimes(matrix, v) + ca.DM(functions.constant) if functions.count else ca.SX(0, 1)
    if not functions.quadratic and not functions.trees:
        return body
    parts = ca.vertsplit(body) if functions.count > 1 else [body]
    for r, q in functions.quadratic.items():
        check()
        coo = q.tocoo()
        total = 0
        for i, j, c in zip(coo.row, coo.col, coo.data, strict=True):
            if i <= j:
                weight = 0.5 * float(c) if i == j else float(c)
                total = total + weight * entries[i] * entries[j]
        parts[r] = parts[r] + total
    for r, tree in functions.trees.items():
        parts[r] = parts[r] + _tree(ca, tree, entries)
    return ca.vertcat(*parts)


def _sparse(ca: Any, matrix: Any) -> Any:
    pattern = ca.Sparsity(
        *matrix.shape, matrix.indptr.astype(int).tolist(), matrix.indices.astype(int).tolist()
    )
    return ca.DM(pattern, matrix.data)


def _tree(ca: Any, root: sc.Scalar, entries: list[Any]) -> Any:
    """A scalar tree as an expression."""
    known: dict[int, Any] = {}
    for node in sc.postorder(root):
        match node:
            case sc.Num():
                known[id(node)] = ca.SX(node.value)
            case sc.Col():
                known[id(node)] = entries[node.index]
            case sc.Call():
                known[id(node)] = _call(ca, node.function, [known[id(a)] for a in node.arguments])
    return known[id(root)]


def _call(ca: Any, function: str, args: list[Any]) -> Any:
    match function:
        case "add":
            return reduce(operator.add, args)
        case "mul":
            return reduce(operator.mul, args)
        case "div":
            return args[0] / args[1]
        case "pow":
            return args[0] ** args[1]
        case "abs":
            return ca.fabs(args[0])
        case "max":
            return ca.fmax(args[0], args[1])
        case "min":
            return ca.fmin(args[0], args[1])
    return getattr(ca, function)(args[0])
