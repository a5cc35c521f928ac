"""Does a file mean the model? A consumer solves it, and the follower is solved again there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import LinearConstraint, linprog, minimize

from bilevelpy.errors import ExportError
from bilevelpy.ir.serial import digest
from bilevelpy.reductions.rows import Functions, System, system

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

READ_BY_SCIP = ("lp", "mps", "nl")
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """``passed`` is None where nothing could be checked; ``F`` is the consumer's optimum, in the
    sense of the model; ``gap`` what the follower can still gain at the consumer's point, relative.
    """

    passed: bool | None
    message: str
    F: float | None = None
    gap: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verify(bound: BoundProgram, target: str, path: Path, tolerance: float = 1e-4) -> Report:
    """Check a file that was written for ``bound``.

    Parameters
    ----------
    tolerance
        Of the relative gap and of the objective at the consumer's point.
    """
    if target == "json":
        from bilevelpy.importers.canonical import read_document

        same = digest(read_document(path, bound.data.externs)) == digest(bound)
        return Report(same, "read back: the same model" if same else "read back: another model")
    if target == "mps-aux":
        return Report(None, "not verified: MibS is in no package index; build it from coin-or/MibS")
    if target not in READ_BY_SCIP:
        from bilevelpy.exporters import registry

        command = registry.get(target).consumer.format(file=path, stem=path.with_suffix(""))
        return Report(None, f"not verified here: run {command}")
    return _with_scip(bound, path, tolerance)


def _with_scip(bound: BoundProgram, path: Path, tolerance: float) -> Report:
    try:
        from pyscipopt import Model
    except ImportError:
        return Report(None, "not verified: pip install pyscipopt reads this format")
    scip = Model()
    scip.hideOutput()
    try:
        scip.readProblem(str(path))
    except OSError as error:
        raise ExportError(f"SCIP cannot read {path}: {error}") from error
    scip.optimize()
    if not scip.getNSols():
        return Report(None, f"SCIP says {scip.getStatus()}: there is no point to check")
    found = system(bound)
    point = _point(found, scip, path)
    if point is None:
        return Report(None, f"SCIP: {scip.getStatus()}, but its columns cannot be told apart")
    value = found.sign * float(found.objective.value(point)[0])
    solver = found.sign * float(scip.getObjVal())
    gap = follower_gap(found, point)
    agrees = abs(value - solver) <= tolerance * (1 + abs(value))
    passed = bool(agrees and gap <= tolerance)
    words = "optimal for the follower" if gap <= tolerance else "NOT optimal for the follower"
    message = f"SCIP: {scip.getStatus()}, F = {value:.9g}; its point is {words} (gap {gap:.2g})"
    if not agrees:
        message += f"; the file's objective there is {solver:.9g}"
    return Report(passed, message, value, gap)


def _point(found: System, scip: Any, path: Path) -> Array | None:
    """The consumer's values by column; names are those of the file."""
    values = {v.name: scip.getVal(v) for v in scip.getVars(transformed=False)}
    if path.suffix == ".nl":
        beside = path.with_suffix(".col")
        listed = beside.read_text().split("\n") if beside.is_file() else []
        values |= {n: values[f"x{k}"] for k, n in enumerate(listed) if f"x{k}" in values}
        names: tuple[str, ...] = found.columns.names
    elif path.suffix == ".lp":
        from bilevelpy.exporters.lp import lp_names

        names = lp_names().names(found.columns.names)
    else:
        from bilevelpy.exporters.mps import mps_names

        names = mps_names().names(found.columns.names)
    if any(n not in values for n in names):
        return None
    return np.array([values[n] for n in names])


def follower_gap(found: System, point: Array) -> float:
    """The most that a follower can gain at fixed x, relative to 1 + |f|; infeasible: infinity."""
    total = 0.0
    for k in range(len(found.followers)):
        own = np.flatnonzero(found.columns.owner == k + 1)
        objective = found.lower_objectives.take([k])
        mine = np.flatnonzero(found.lower_rows.follower == k + 1)
        rows = found.lower_rows.take(mine)
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
        # Rounding of the fixed part must not make the follower infeasible.
        answer = linprog(cost, a, b + 1e-9, bounds=list(zip(low, high, strict=True)))
        base = float(objective.value(rest)[0])
        return base + float(answer.fun) if answer.status == 0 else -np.inf

    def at(y: Array) -> Array:
        full = point.copy()
        full[own] = y
        return full

    constraints: list[Any] = []
    if rows.count and rows.functions.degree == 1:
        constraints = [LinearConstraint(linear.toarray(), rows.lower - offset, rows.upper - offset)]
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
