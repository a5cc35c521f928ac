"""Why no point satisfies everything: rows that every best response violates, or what is wrong with
a follower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linprog

from bilevelpy.backends.exact.certificate.conflict import conflict, contradiction
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.backends.exact.relaxations.relax import Relaxed, is_empty
from bilevelpy.reductions.scalar import columns as columns_of

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rewriting.normalize import Units
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]

# Curvature below this part of the largest entry is negative.
CURVED = 1e-9
# Rows that the model states, and those that say what its norms are.
STATED = ("upper", "lower", "norm")


@dataclass(frozen=True, slots=True)
class Why:
    """The reason in words; ``details`` hold violated rows with their violations, x and the best
    response there. ``proved``: a global solve stands behind it.
    """

    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    proved: bool = True


NO_RESPONSE = Why("no x that the leader may choose leaves the follower a best response")


def boundless(system: System) -> int | None:
    """A follower whose objective falls for ever wherever it has a feasible point, whatever x is:
    along a direction that no row and no bound ends. Linear followers, with coefficients of
    their own variables that nothing moves; whole numbers may go there as well as others, since
    coefficients are fractions. Quadratic ones where the curvature along it is negative.
    """
    columns, rows = system.columns, system.lower_rows
    for k in range(len(system.followers)):
        own = np.flatnonzero(columns.owner == k + 1)
        mine = np.flatnonzero(rows.follower == k + 1)
        if not own.size or any(_bends(rows.functions, int(r), own) for r in mine):
            continue
        if _curves_down(system, k, own, mine):
            return k
        if _bends(system.lower_objectives, k, own):
            continue
        A = rows.functions.linear[mine][:, own].toarray()
        up, down = np.isfinite(rows.upper[mine]), np.isfinite(rows.lower[mine])
        ways = [
            (
                -1.0 if columns.lower[j] == -np.inf else 0.0,
                1.0 if columns.upper[j] == np.inf else 0.0,
            )
            for j in own
        ]
        cost = system.lower_objectives.linear[[k]][:, own].toarray()[0]
        size = float(np.abs(cost).max(initial=0.0))
        both = np.vstack([A[up], -A[down]])
        found = linprog(cost, both, np.zeros(len(both)), bounds=ways)
        if found.status == 0 and found.fun < -1e-7 * size:
            return k
    return None


def _curves_down(system: System, k: int, own: Array, mine: Array) -> bool:
    """Whether a quadratic objective has negative curvature along an axis, or among the variables
    that have no bounds and no rows, that its follower may follow for ever.
    """
    columns, rows = system.columns, system.lower_rows
    q = system.lower_objectives.quadratic.get(k)
    if k in system.lower_objectives.trees or q is None:
        return False
    Q = q[own][:, own].toarray()
    least = -CURVED * float(np.abs(Q).max(initial=0.0))
    A = rows.functions.linear[mine][:, own].toarray()
    up, down = np.isfinite(rows.upper[mine]), np.isfinite(rows.lower[mine])
    open_ = np.isposinf(columns.upper[own]), np.isneginf(columns.lower[own])
    for sign, ways in zip((1.0, -1.0), open_, strict=True):
        held = (sign * A[up] > 0.0).any(axis=0) | (sign * A[down] < 0.0).any(axis=0)
        if bool((ways & ~held & (np.diag(Q) < least)).any()):
            return True
    free = open_[0] & open_[1] & ~A.any(axis=0) & ~columns.integer[own]
    return bool(free.any()) and float(np.linalg.eigvalsh(Q[free][:, free])[0]) < least


def _bends(functions: Functions, row: int, own: Array) -> bool:
    """Whether coefficients of a follower's variables move, with x or with each other."""
    if row in functions.trees:
        return bool(columns_of([functions.trees[row]]) & set(own.tolist()))
    q = functions.quadratic.get(row)
    return q is not None and bool(q[own].nnz)


def explain_infeasible(program: KKT, limits: Limits, units: Units) -> Why:
    """The reason why ``program`` (in ``units``) has no point."""
    endless = boundless(program.system)
    if endless is not None:
        name = program.system.followers[endless].name
        return Why(
            f"the follower `{name}` is unbounded at every x at which it has a feasible point"
        )
    found = _violated(program, limits, units)
    if found is not None:
        return found
    base = Relaxed(program)
    if base.model(None, skip="upper").solve(limits).status != "infeasible":
        if is_empty(replace(base, kkt=replace(program, pairs=())), limits):
            both = [r for r, kind in enumerate(program.kinds) if kind in STATED]
            return _with_rows("no point satisfies the leader's constraints", program, both, limits)
        return NO_RESPONSE
    own = [r for r, kind in enumerate(program.kinds) if kind in ("lower", "norm")]
    primal = replace(
        program,
        rows=program.rows.take(own),
        kinds=tuple(program.kinds[r] for r in own),
        pairs=(),
    )
    level = program.system.followers[0].name
    if is_empty(Relaxed(primal), limits):
        everything = list(range(primal.rows.count))
        # The follower that the contradicting rows belong to, where they belong to one.
        whose = {int(primal.rows.follower[r]) for r in conflict(primal, everything, limits)}
        if len(whose) == 1:
            level = program.system.followers[whose.pop() - 1].name
        text = f"the follower `{level}` has no feasible point at any x"
        return _with_rows(text, primal, everything, limits)
    return Why(f"the follower `{level}` is unbounded at every x at which it has a feasible point")


def _with_rows(text: str, program: KKT, rows: list[int], limits: Limits) -> Why:
    """A reason with the rows that contradict each other, where they are found."""
    found = conflict(program, rows, limits)
    if not found:
        return Why(text)
    names = [program.rows.names[r] for r in found]
    return Why(f"{text}: {contradiction(program, found)}", {"conflict": names})


def _violated(program: KKT, limits: Limits, units: Units) -> Why | None:
    """The least violation of the leader's rows that read responses, over all x and best responses;
    None where there is no such row, or no best response at all.
    """
    names = program.system.columns.names
    lower = set(program.system.lower_columns.tolist())
    upper = [r for r, kind in enumerate(program.kinds) if kind == "upper"]
    coupling = [r for r in upper if program.rows.functions.reads(r) & lower]
    coupling += [r for r in upper if program.rows.functions.reads(r) & set(program.multipliers)]
    if not coupling:
        return None
    model = Model(program.columns)
    model.rows(program.rows, [r for r in range(program.rows.count) if r not in coupling])
    for pair in program.pairs:
        model.pair(pair, program.rows)
    excess = []
    for r in coupling:
        e = model.scip.addVar(f"excess.{r}", "C", lb=0.0, ub=None)
        value = model.expression(program.rows.functions, r)
        if math.isfinite(program.rows.upper[r]):
            model.scip.addCons(value - e <= float(program.rows.upper[r]))
        if math.isfinite(program.rows.lower[r]):
            model.scip.addCons(value + e >= float(program.rows.lower[r]))
        excess.append(e)
    model.scip.setObjective(sum(excess[1:], 1.0 * excess[0]), "minimize")
    found = model.solve(limits)
    if found.values is None:
        return None
    off = program.rows.take(coupling).violation(found.values)
    size = units.rows_by_name()
    shown = [(program.rows.names[r], float(v)) for r, v in zip(coupling, off, strict=True)]
    violated = [(name, v * size.get(name, 1.0)) for name, v in shown if v > 1e-6]
    system, values = program.system, units.given(found.values)
    if not violated and bool(system.columns.integer[system.lower_columns].any()):
        # The conditions do not tell the best of whole numbers: this point is no best response.
        text = (
            "no best response satisfies the leader's constraints: wherever a response does, the "
            "follower prefers another one"
        )
        return Why(text, proved=False)
    at = _point(names, values, system.upper_columns)
    response = _point(names, values, system.lower_columns)
    parts = ", ".join(f"`{n}` by {v:.4g}" for n, v in violated[:3])
    text = (
        "no best response satisfies the leader's constraints; the least violation of all "
        f"x is {parts or 'tiny'}, at {at} with the best response {response}; did you mean "
        "to put it into the follower?"
    )
    details = {
        "violated": dict(violated),
        "x": {names[j]: float(values[j]) for j in system.upper_columns},
        "best_response": {names[j]: float(values[j]) for j in system.lower_columns},
    }
    return Why(text, details, bool(violated) and found.status == "optimal")


def _point(names: tuple[str, ...], v: Array, columns: Array) -> str:
    shown = [f"{names[j]} = {v[j]:.5g}" for j in columns[:4]]
    return ", ".join(shown) + (", ..." if columns.size > 4 else "")
