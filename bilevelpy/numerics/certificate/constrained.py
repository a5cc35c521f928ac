"""The certificate of a problem with constraints: every follower is solved again at the returned x.

Nothing of the engine's own numbers enters but its claim (a bound with its gap), which is believed
only where the point itself passes: followers re-solved from scratch by another solver, rows and
bounds recomputed from the model's coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.far import ROUNDING, falls_away
from bilevelpy.numerics.programs.follower import follower_program, objective_scale, row_scales
from bilevelpy.numerics.programs.linearised import confirmed_by_tangent
from bilevelpy.numerics.programs.smooth import Program
from bilevelpy.numerics.wording import wording
from bilevelpy.result import Certificate
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Relative to the terms of a row or an objective: the engine's own tolerance with some room.
FEASIBLE = 2e-6
LOWER_GAP = 2e-6
# Objectives in the units of an engine have slopes of 0.1 and more: so little is its rounding. Where
# followers are linear or decide whole numbers, it comes with the room that ties have in cuts.
ENGINE, TIED = 1e-8, 5e-8


@dataclass(frozen=True, slots=True)
class Claim:
    """What the engine says: ``proved`` that no point is better than ``bound`` (minimised), with
    ``gap`` relative. ``notes`` go into the reasons, ``doubts`` keep the certificate from being
    global.
    """

    proved: bool
    bound: float
    gap: float
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    beside: int = 0


@dataclass(frozen=True, slots=True)
class Ties:
    """The least and the greatest F (minimised) over all best responses at the returned x."""

    optimistic: float
    pessimistic: float


@dataclass(slots=True)
class Findings:
    """What has been found: ``failures`` refute the point, ``notes`` qualify it."""

    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    gap: float = 0.0
    relative: float = 0.0
    lower_feasibility: float = 0.0
    upper_feasibility: float = 0.0

    @property
    def stands(self) -> bool:
        """Whether nothing speaks against the point, and every follower's optimum is proved."""
        return not self.failures and not self.details.get("not_proved")


def examine_point(
    system: System,
    v: Array,
    *,
    ties: Ties | None = None,
    solved: Mapping[int, float] | None = None,
    seed: int = 0,
    pessimistic: bool = False,
    deadline: float = math.inf,
    units: Array | None = None,
    upper_unit: float = 1.0,
    convex: bool = False,
) -> Findings:
    """What is found at the point ``v`` (values of ``system.columns``) of a program in scalar rows,
    whatever is claimed of it.

    Parameters
    ----------
    ties
        F over all best responses, where it was computed.
    solved
        Follower -> its least objective at x, proved by a global solver: for followers that the
        solvers used here cannot settle.
    pessimistic
        The worst of the best responses is what the model is about.
    deadline
        Reading of ``time.perf_counter`` after which followers whose minimum is known from
        ``solved`` are not solved once more by a local method.
    units
        What every follower's objective was divided by; gaps are told in the units of the model.
    upper_unit
        What the engine divided the leader's objective by; ``system`` holds it undivided.
    convex
        Every follower is known to be convex: a local method solves it to its minimum.
    """
    found = Findings()
    check_upper(system, v, found)
    rng = np.random.default_rng(seed)
    for k in range(len(system.followers)):
        unit = 1.0 if units is None else float(units[k])
        known = (solved or {}).get(k)
        floor = 0.0 if units is None else ENGINE
        check_follower(system, k, v, found, rng, known, deadline, unit, convex=convex, floor=floor)
    if convex:
        found.details.pop("not_proved", None)
    if ties is not None:
        _ties(system, v, ties, found, pessimistic, upper_unit)
    elif pessimistic:
        found.failures.append("the worst of the best responses at x was not found in time")
    return found


def check_upper(system: System, v: Array, found: Findings) -> None:
    """Rows and domains of the leader."""
    rows, columns = system.upper_rows, system.columns
    violation, scale = rows.violation(v), row_scales(rows, v)
    found.upper_feasibility = float(violation.max(initial=0.0))
    for r in np.flatnonzero(violation > FEASIBLE * scale)[:3]:
        found.failures.append(
            f"upper constraint `{rows.names[r]}` is violated by {violation[r]:.1e}"
        )
    for j in system.upper_columns:
        off = max(columns.lower[j] - v[j], v[j] - columns.upper[j], 0.0)
        if columns.integer[j]:
            off = max(off, abs(v[j] - round(v[j])))
        found.upper_feasibility = max(found.upper_feasibility, float(off))
        if off > FEASIBLE * max(1.0, abs(v[j])):
            found.failures.append(f"`{columns.names[j]}` leaves its domain by {off:.1e}")


def check_follower(
    system: System,
    k: int,
    v: Array,
    found: Findings,
    rng: np.random.Generator,
    known: float | None,
    deadline: float,
    unit: float = 1.0,
    *,
    convex: bool = False,
    floor: float = 0.0,
) -> Array | None:
    """Rows and bounds of a follower, and its objective against that of an own solve, which also
    looks far away where the follower is not known to be ``convex``; differences below ``floor``
    (in ``unit``) are none. Returns all columns with the response of that solve, where there is one.
    """
    check()
    name = system.followers[k].name
    program = follower_program(system, k, v)
    violation = program.rows.violation(v)
    scale = row_scales(program.rows, v)
    own = v[program.free]
    outside = np.maximum(program.lower[program.free] - own, own - program.upper[program.free])
    worst = max(float(violation.max(initial=0.0)), float(outside.max(initial=0.0)), 0.0)
    found.lower_feasibility = max(found.lower_feasibility, worst)
    for r in np.flatnonzero(violation > FEASIBLE * scale)[:2]:
        found.failures.append(
            f"lower constraint `{program.rows.names[r]}` is violated by {violation[r]:.1e}"
        )
    for off, j in zip(outside, program.free, strict=True):
        if off > FEASIBLE * max(1.0, abs(v[j])):
            found.failures.append(f"`{system.columns.names[j]}` leaves its bounds by {off:.1e}")
    here = program.value(v)
    answer = confirmed_by_tangent(program, v, 0.1 * LOWER_GAP) if convex else None
    if answer is None:
        answer = program.solve(rng, deadline, far=not convex, convex=convex)
    values = [x for x in (answer.objective, known) if x is not None and not math.isnan(x)]
    best = min(values, default=math.nan)
    if answer.status == "unbounded":
        found.failures.append(f"`{name}` is unbounded at the returned x")
        return None
    if math.isnan(best) or not math.isfinite(best):
        if answer.status == "infeasible" and worst <= FEASIBLE * float(scale.max(initial=1.0)):
            best = here  # x lies on the edge of what the follower can meet: rounding decides
        else:
            found.failures.append(f"`{name}` could not be solved again at the returned x")
            return None
    # Floors are in the units of the model, objectives in ``unit`` of them.
    coarse = max(unit, 1.0)
    terms = objective_scale(system.lower_objectives, k, v, program.free)
    if answer.values is not None:
        other = objective_scale(system.lower_objectives, k, answer.values, program.free)
        terms = max(terms, other)
    size = max(terms, abs(best), 1e-6 / coarse)
    if k in system.lower_objectives.trees:
        # Where the leader multiplies the objective by next to nothing, 1 is no scale of it.
        size = max(size, min(1.0 / coarse, program.spread(v) or 1.0))
    floor = TIED if floor and program.is_sharp else floor
    gap, says = max(here - best, 0.0), wording(system.followers[k].sign)
    found.gap, found.relative = max(found.gap, unit * gap), max(found.relative, gap / size)
    off = program.violation(answer.values) if answer.values is not None else 0.0
    if gap > LOWER_GAP * size + floor + 10.0 * min(off, FEASIBLE) / coarse:
        found.failures.append(
            f"the objective of `{name}` still {says.falls} by {unit * gap:.2e} when it is solved "
            "again"
        )
    elif convex and k in system.lower_objectives.trees and _falls_away(program, v, terms):
        found.failures.append(
            f"the objective of `{name}` {says.falls} on and on beyond the response: its "
            f"{says.least} value is at infinity; a penalty on the lower variables makes it a point"
        )
    elif not answer.proved and known is None:
        found.details.setdefault("not_proved", []).append(name)
    return answer.values


def _falls_away(program: Program, v: Array, terms: float) -> bool:
    """Whether a follower gains farther along its response, within its bounds and rows."""

    def value(own: Array) -> float:
        there = v.copy()
        there[program.free] = own
        return program.value(there) if program.violation(there) <= FEASIBLE else math.inf

    return falls_away(value, v[program.free], ROUNDING * terms)


def _ties(
    system: System, v: Array, ties: Ties, found: Findings, pessimistic: bool, unit: float
) -> None:
    sign = system.sign
    here = float(system.objective.value(v)[0])
    found.details["F_optimistic"] = sign * ties.optimistic
    found.details["F_pessimistic"] = sign * ties.pessimistic
    # F may be 0 where its terms are not: their size is the scale, and its unit in the engine, whose
    # own tolerance is a tenth of what is allowed here.
    everything = np.arange(v.size)
    size = max(objective_scale(system.objective, 0, v, everything), abs(here), 0.1 * unit)
    if pessimistic and ties.pessimistic - here > 1e-5 * size:
        found.failures.append(
            f"the worst best response gives F = {sign * ties.pessimistic:.6g} instead of "
            f"{sign * here:.6g}: the value may be {wording(sign).limit} that is not "
            "attained"
        )
    if not pessimistic and here - ties.optimistic > 1e-5 * size:
        found.failures.append(
            f"another best response gives F = {sign * ties.optimistic:.6g} instead of "
            f"{sign * here:.6g}"
        )
    if ties.pessimistic - ties.optimistic > 1e-5 * size:
        found.notes.append(
            f"the best response is not unique: F lies between {sign * ties.optimistic:.6g} "
            f"(optimistic{'' if pessimistic else ', reported'}) and {sign * ties.pessimistic:.6g} "
            f"(pessimistic{', reported' if pessimistic else ''}) at this x"
        )


def verdict(system: System, claim: Claim, found: Findings) -> Certificate:
    """The certificate of a point with what was found there and what is claimed of it."""
    unproved = found.details.pop("not_proved", [])
    failures = [*found.failures, *claim.doubts]
    if unproved:
        failures.append(
            f"`{unproved[0]}` was solved again by a local method only: its optimality is not proved"
        )
    found.details["bound"] = system.sign * claim.bound
    found.details["gap"] = claim.gap
    if not claim.proved:
        size = (
            f"the gap to the bound is {claim.gap:.2e}" if math.isfinite(claim.gap) else "no bound"
        )
        open_ = f"optimality is not proved: {size}"
    kind = "none"
    if not failures and claim.proved:
        kind = "global"
        found.notes.insert(
            0,
            f"proved: no feasible point is better by more than {claim.gap:.1e} (relative); rows "
            f"hold to {FEASIBLE:g} and the followers, solved again from scratch, confirm the "
            f"response to {LOWER_GAP:g} (of their terms)",
        )
    elif not failures and claim.beside:
        kind = "local"
        found.details["probed"] = claim.beside
        found.notes.insert(
            0,
            "followers, solved again, confirm the response, and F is not "
            f"{wording(system.sign).better} at {claim.beside} points beside x with responses of "
            f"their own; global {open_}",
        )
    elif not claim.proved:
        failures.append(open_ if found.failures else f"bilevel feasible, but {open_}")
    return Certificate(
        kind,
        found.gap,
        found.relative,
        math.nan,
        found.lower_feasibility,
        found.upper_feasibility,
        math.nan,
        None,
        (*failures, *found.notes, *claim.notes),
        found.details,
    )


def without_point(message: str, details: Mapping[str, Any], proved: bool) -> Certificate:
    """The certificate of an answer without a point: that there is none, and why."""
    nan = math.nan
    kind = "global" if proved else "none"
    return Certificate(kind, nan, nan, nan, nan, nan, nan, None, (message,), dict(details))
