"""Does a file mean the model? A consumer solves it, and the follower is solved again there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import LinearConstraint, linprog, minimize

from bilevelpy.errors import ExportError
from bilevelpy.exporters import consumers, registry
from bilevelpy.exporters.consumers import Missing, Outcome
from bilevelpy.exporters.matrices.matrix import TITLES, with_ends
from bilevelpy.exporters.naming import printable
from bilevelpy.ir.serial import digest
from bilevelpy.numerics.programs.slsqp import independent
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import Functions, System, join_rows, system
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.exporters.naming import Namer
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]
# Relative gap of the follower, and difference of objectives, at the consumer's point.
TOLERANCE = 1e-4
INSTALLED = {
    "ampl": "AMPL (proprietary); with reformulation=big-m GLPK does: pip install swiglpk",
    "bileveljump": "Julia with BilevelJuMP, which no package index of Python, Node or Debian has",
    "mps-aux": "MibS, to be built from coin-or/MibS",
}


@dataclass(frozen=True, slots=True)
class Report:
    """``passed`` is None where nothing could be checked; ``F`` is the consumer's optimum, in the
    sense of the model; ``gap`` what the follower can still gain at the consumer's point, relative.
    ``is_global`` is False where the consumer looks for local optima alone.
    """

    passed: bool | None
    message: str
    F: float | None = None
    gap: float | None = None
    is_global: bool = True

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verify(bound: BoundProgram, target: str, path: Path) -> Report:
    """Check a file that was written for ``bound``."""
    suffix = registry.get(target).suffix
    if path.suffix == suffix:
        return _verify(bound, target, path)
    # Readers go by the ending of a file.
    with tempfile.TemporaryDirectory() as folder:
        for file in path.parent.iterdir():
            if file.is_file() and file.name.startswith(f"{path.stem}."):
                shutil.copyfile(file, Path(folder) / file.name)
        place = Path(folder) / f"{path.stem}{suffix}"
        shutil.copyfile(path, place)
        return _verify(bound, target, place)


def _verify(bound: BoundProgram, target: str, path: Path) -> Report:
    checks: dict[str, Callable[[], Report]] = {
        "json": lambda: _json(bound, path),
        "mps-aux": lambda: _matrix(bound, path),
        "torch": lambda: _graph(bound, path),
        "onnx": lambda: _graph(bound, path),
        "sympy": lambda: _start(bound, path),
        "latex": lambda: Report(True, f"KaTeX: {consumers.katex(path).status}"),
        "blv": lambda: _one_level(bound, path),
    }
    try:
        if target in checks:
            return checks[target]()
        run = _runs(target, path)
        if run is None:
            raise Missing(INSTALLED.get(target, "a reader of this format"))
        return compare(bound, target, path, run())
    except Missing as missing:
        return Report(None, f"not verified here: it takes {missing}")


def _runs(target: str, path: Path) -> Callable[[], Outcome] | None:
    """What solves the files of a target."""
    if target == "ampl":
        # Only the form with constants is GMPL; the other one needs AMPL itself.
        gmpl = TITLES["big-m"] in path.read_text(encoding="utf-8")
        return (lambda: consumers.glpk(path)) if gmpl else None
    found: dict[str, Callable[[], Outcome]] = {
        "lp": lambda: consumers.scip(path),
        "mps": lambda: consumers.scip(path),
        "nl": lambda: consumers.scip(path),
        "pyomo": lambda: consumers.program(path, "Pyomo with SCIP", ["pyomo", "pyscipopt"]),
        "cvxpy": lambda: consumers.program(path, "CVXPY with SCIP", ["pyscipopt"], "SCIP"),
        "casadi": lambda: consumers.program(path, "CasADi with Ipopt", ["casadi"]),
        "blvpy": lambda: consumers.blvpy(path),
        "gams-emp": lambda: consumers.gams(path, "emp=reshop"),
        "gams-mpec": lambda: consumers.gams(path, "mpec=nlpec"),
    }
    return found.get(target)


def compare(bound: BoundProgram, target: str, path: Path, outcome: Outcome) -> Report:
    """Compare a consumer's optimum with the model at its point, and re-solve the follower there."""
    who = f"{outcome.solver}: {outcome.status}"
    if outcome.objective is None or outcome.values is None:
        return Report(None, f"{who}; there is no point to check")
    found = system(bound)
    names = _names(target, found)
    values = outcome.values
    missing = [j for j, n in enumerate(names) if n not in values]
    if missing and _read(found) & set(missing):
        return Report(None, f"{who}, but its columns cannot be told apart")
    # Some writers leave out columns that nothing reads: any value of these will do.
    start = found.columns.start
    point = np.array([values.get(n, start[j]) for j, n in enumerate(names)])
    value = found.sign * float(found.objective.value(point)[0])
    # Programs print the objective in the sense of the model, files are minimisations.
    theirs = outcome.objective * (1.0 if path.suffix == ".py" else found.sign)
    gap = follower_gap(found, point)
    agrees = abs(value - theirs) <= TOLERANCE * (1 + abs(value))
    words = "optimal for the follower" if gap <= TOLERANCE else "NOT optimal for the follower"
    message = f"{who}, F = {value:.9g}; its point is {words} (gap {gap:.2g})"
    if not agrees:
        message += f"; the file's objective there is {theirs:.9g}"
    passed = bool(agrees and gap <= TOLERANCE)
    return Report(passed, message, value, gap, outcome.is_global)


def _read(found: System) -> set[int]:
    """The columns that a function of the model reads."""
    functions = (
        found.objective,
        found.lower_objectives,
        found.upper_rows.functions,
        found.lower_rows.functions,
    )
    return {int(j) for f in functions for r in range(f.count) for j in f.reads(r)}


def _names(target: str, found: System) -> tuple[str, ...]:
    """The names that the columns of the model have in a file."""
    from bilevelpy.exporters.languages.ampl import ampl_names
    from bilevelpy.exporters.languages.gams import gams_names
    from bilevelpy.exporters.matrices.lp import lp_names
    from bilevelpy.exporters.matrices.mps import mps_names

    namers: dict[str, Callable[[], Namer]] = {
        "lp": lp_names,
        "mps": mps_names,
        "ampl": ampl_names,
        "gams-emp": gams_names,
        "gams-mpec": gams_names,
    }
    if target == "nl":
        return tuple(printable(n) for n in found.columns.names)
    if target not in namers:
        return found.columns.names
    return namers[target]().names(found.columns.names)


def _json(bound: BoundProgram, path: Path) -> Report:
    from bilevelpy.importers.canonical import read_document

    same = digest(read_document(path, bound.data.externs)) == digest(bound)
    return Report(same, "read back: the same model" if same else "read back: another model")


def _matrix(bound: BoundProgram, path: Path) -> Report:
    """MibS is in no package index: HiGHS reads the matrix, and its numbers are compared."""
    from bilevelpy.exporters.matrices.mps import mps_names
    from bilevelpy.importers.aux_file import read_aux
    from bilevelpy.importers.faults import Text
    from bilevelpy.importers.mps_file import read_matrix

    found = lift(system(bound), leader=True)
    matrix, split = read_matrix(path), read_aux(Text(path.with_suffix(".aux")))
    names = mps_names().names(found.columns.names)
    costs = {e.key: e.cost for e in split.columns}
    lower = np.asarray(found.lower_objectives.linear.sum(axis=0)).reshape(-1)
    parts = [with_ends(found.upper_rows), with_ends(found.lower_rows)]
    rows = join_rows(parts, found.columns.count)
    theirs = [tuple(linear_terms(rows.functions, r)) for r in range(rows.count)]
    same = (
        matrix.names == names
        and np.array_equal(matrix.lower, found.columns.lower)
        and np.array_equal(matrix.upper, found.columns.upper)
        and np.array_equal(matrix.integer, found.columns.integer)
        and np.array_equal(matrix.cost, found.objective.linear.toarray()[0])
        and list(matrix.rows) == theirs
        # A row with two ends is one end and its distance from the other.
        and np.allclose(matrix.row_lower, rows.lower, rtol=1e-12)
        and np.allclose(matrix.row_upper, rows.upper, rtol=1e-12)
        and costs == {names[int(j)]: float(lower[j]) for j in found.lower_columns}
        and len(split.rows) == parts[1].count
    )
    words = "the same coefficients" if same else "OTHER coefficients"
    return Report(bool(same), f"read back by HiGHS: {words}. It takes {INSTALLED['mps-aux']}")


def _graph(bound: BoundProgram, path: Path) -> Report:
    """A graph at a point that it was not traced at, against the oracle."""
    from bilevelpy.exporters.graphs.traced import difference

    found = difference(bound, path)
    reader = "ONNX Runtime" if path.suffix == ".onnx" else "torch.export.load"
    return Report(found <= 1e-9, f"{reader}: differs from the oracle by {found:.2g}, relative")


def _start(bound: BoundProgram, path: Path) -> Report:
    """SymPy's value at the start of the model."""
    outcome = consumers.program(path, "SymPy", ["sympy"])
    found = system(bound)
    value = found.sign * float(found.objective.value(found.columns.start)[0])
    same = outcome.objective is not None and abs(outcome.objective - value) <= TOLERANCE * (
        1 + abs(value)
    )
    return Report(same, f"SymPy at the start: F = {outcome.objective}, the model says {value:.9g}")


def _one_level(bound: BoundProgram, path: Path) -> Report:
    """The model of one level by way of .nl in SCIP."""
    from bilevelpy.exporters.blv import blv_names

    for package in ("pyomo", "pyscipopt"):
        consumers.need(package)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.nl"
        command = [sys.executable, "-m", "bilevelpy", "export", str(path), "--to", "nl"]
        data = [path.with_suffix(e) for e in (".data.json", ".data.npz")]
        looped = all(d.is_file() for d in data)
        command += [word for d in data if looped for word in ("--data", str(d))]
        done = subprocess.run(
            [*command, "--out", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ExportError(f"{path} is no model of this language: {done.stderr.strip()}")
        outcome = consumers.scip(place)
    found = system(bound)
    if outcome.values is None or outcome.objective is None:
        return Report(None, f"SCIP: {outcome.status}; there is no point to check")
    named: Iterable[str] = blv_names().names(found.columns.names)
    if looped:
        named = (f"v[{k + 1}]" for k in range(found.columns.count))
    values = {o: outcome.values[n] for o, n in zip(found.columns.names, named, strict=True)}
    again = Outcome("SCIP", outcome.status, outcome.objective, values)
    return compare(bound, "blv", path, again)


def follower_gap(found: System, point: Array) -> float:
    """The most that a follower can gain at fixed x, relative to 1 + |f|; infeasible: infinity."""
    total = 0.0
    for k in range(len(found.followers)):
        own = np.flatnonzero(found.columns.owner == k + 1)
        objective = found.lower_objectives.take([k])
        mine = np.flatnonzero(found.lower_rows.follower == k + 1)
        rows = with_ends(found.lower_rows.take(mine))
        if float(rows.violation(point).max(initial=0.0)) > 1e-5:
            return float("inf")
        here = float(objective.value(point)[0])
        best = _best(objective, rows, own, point, found)
        total = max(total, (here - best) / (1 + abs(here)))
    return total


def _best(objective: Functions, rows: Any, own: Array, point: Array, found: System) -> float:
    """The follower's least value with everything else fixed."""
    rest = point.copy()
    rest[own] = 0.0
    low, high = found.columns.lower[own], found.columns.upper[own]
    offset = rows.functions.value(rest)
    linear = rows.functions.linear[:, own]
    affine = not objective.quadratic and not objective.trees
    if rows.functions.degree == 1 and affine:
        ends = np.isfinite(rows.upper), np.isfinite(rows.lower)
        a = np.vstack([linear.toarray()[ends[0]], -linear.toarray()[ends[1]]])
        b = np.concatenate([(rows.upper - offset)[ends[0]], (offset - rows.lower)[ends[1]]])
        cost = objective.linear[:, own].toarray()[0]
        # What the consumer takes for feasible must not leave the follower without a choice.
        here = point[own]
        beyond = np.concatenate([rows.violation(point), low - here, here - high])
        room = 1e-9 + float(beyond.max(initial=0.0))
        answer = linprog(cost, a, b + room, bounds=list(zip(low, high, strict=True)))
        base = float(objective.value(rest)[0])
        return base + float(answer.fun) if answer.status == 0 else -np.inf

    def at(y: Array) -> Array:
        full = point.copy()
        full[own] = y
        return full

    constraints: list[Any] = []
    if rows.count and rows.functions.degree == 1:
        # SLSQP wants equations and inequalities apart.
        matrix, ends = linear.toarray(), (rows.lower - offset, rows.upper - offset)
        equal = np.flatnonzero(rows.is_equation)
        both = (equal[independent(matrix[equal])], np.flatnonzero(~rows.is_equation))
        constraints = [
            LinearConstraint(matrix[chosen], ends[0][chosen], ends[1][chosen])
            for chosen in both
            if chosen.size
        ]
    elif rows.count:
        constraints = [
            {"type": "ineq", "fun": lambda y: (rows.upper - rows.functions.value(at(y)))
             [np.isfinite(rows.upper)]},
            {"type": "ineq", "fun": lambda y: (rows.functions.value(at(y)) - rows.lower)
             [np.isfinite(rows.lower)]},
        ]  # fmt: skip
    answers = [
        minimize(
            lambda y: float(objective.value(at(y))[0]),
            start,
            method="SLSQP",
            bounds=list(zip(low, high, strict=True)),
            constraints=constraints,
            options={"maxiter": 300, "ftol": 1e-12},
        )
        for start in _starts(point[own], low, high)
    ]
    # A start from which the search ends outside of the rows says nothing.
    inside = [a.fun for a in answers if rows.violation(at(a.x)).max(initial=0.0) <= 1e-6]
    return float(min(inside, default=np.inf))


def _starts(here: Array, low: Array, high: Array) -> list[Array]:
    """The point itself, and others: it may be stationary without being minimal."""
    rng = np.random.default_rng(0)
    left = np.where(np.isfinite(low), low, here - 10.0)
    right = np.where(np.isfinite(high), high, here + 10.0)
    return [here, *(left + rng.random(here.size) * (right - left) for _ in range(6))]
