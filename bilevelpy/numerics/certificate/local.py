"""The certificate of a local claim about a problem with constraints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.certificate.constrained import (
    FEASIBLE,
    LOWER_GAP,
    Findings,
    check_follower,
    check_upper,
)
from bilevelpy.numerics.programs.follower import follower_program, objective_scale, row_scales
from bilevelpy.numerics.wording import wording
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.numerics.certificate.local_probe import Probe
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Of its part of the time, that in which a follower is begun anew; what was begun is ended after it.
SHARE = 0.5
# F may rise by so much (of its terms) when a follower is solved again.
AGREE = 1e-5


def certify_local(
    system: System,
    v: Array,
    seen: Probe,
    *,
    convex: bool,
    known: Mapping[int, float] | None = None,
    seed: int = 0,
    deadline: float = math.inf,
) -> Certificate:
    """The certificate of a local claim: feasibility and responses as always, and what ``seen``
    beside the point says. ``known`` are the followers' least objectives, solved jointly. Where
    ``deadline`` (of ``time.perf_counter``) is near, followers are solved from fewer starts.
    """
    found = Findings()
    check_upper(system, v, found)
    rng = np.random.default_rng(seed)
    count = len(system.followers)
    for k in range(count if known is None else 0):
        # Each has its share of the time: a check of only some of them would be none.
        now = time.perf_counter()
        share = now + SHARE * (deadline - now) / (count - k)
        again = check_follower(system, k, v, found, rng, None, share, convex=convex)
        if convex and again is not None and not found.failures:
            _agrees(system, k, v, again, found)
    if known is not None:
        _jointly(system, v, found, known)
    found.details.pop("not_proved", None)
    says = wording(system.sign)
    if seen.fall > 0.0:
        found.failures.append(
            f"not locally optimal: F along the responses {says.falls} by {seen.fall:.2e} beside x"
        )
    if not seen.tried and system.upper_columns.size:
        why = "no time was left to compare points" if seen.late else "no point could be compared"
        found.failures.append(f"{why} beside x: local optimality is not shown")
    found.details["probed"] = seen.tried
    found.details["probe_decrease"] = seen.fall
    if not found.failures:
        found.notes.insert(
            0,
            f"followers, solved again, confirm the response, and F is not {says.better} at "
            f"{seen.tried} points beside x with responses of their own",
        )
        if not convex:
            found.notes.append("the lower level is not known to be convex: better responses may be")
    return Certificate(
        "none" if found.failures else "local",
        found.gap,
        found.relative,
        math.nan,
        found.lower_feasibility,
        found.upper_feasibility,
        math.nan,
        None,
        (*found.failures, *found.notes),
        found.details,
    )


def _agrees(system: System, k: int, v: Array, again: Array, found: Findings) -> None:
    """F at the response that follower k has when it is solved again from its part of ``v``: a gap
    of f within its tolerance moves y, and F, by the square root of it.
    """
    program = follower_program(system, k, v).reduced()
    if program.degree < 3 or program.value(again) >= program.value(v):
        return
    here, there = (float(system.objective.value(w)[0]) for w in (v, again))
    everything = np.arange(v.size)
    size = max(objective_scale(system.objective, 0, v, everything), abs(here), abs(there))
    if there - here > AGREE * size:
        sign = system.sign
        found.failures.append(
            f"F changes from {sign * here:.6g} to {sign * there:.6g} when "
            f"`{system.followers[k].name}` is solved again"
        )


def _jointly(system: System, v: Array, found: Findings, known: Mapping[int, float]) -> None:
    """Many followers at once: rows, bounds, and their objectives against the least ones."""
    rows, columns = system.lower_rows, system.columns
    violation, scale = rows.violation(v), row_scales(rows, v)
    own = system.lower_columns
    outside = np.maximum(columns.lower[own] - v[own], v[own] - columns.upper[own])
    found.lower_feasibility = max(
        float(violation.max(initial=0.0)), float(outside.max(initial=0.0)), 0.0
    )
    for r in np.flatnonzero(violation > FEASIBLE * scale)[:2]:
        found.failures.append(
            f"lower constraint `{rows.names[r]}` is violated by {violation[r]:.1e}"
        )
    here = system.lower_objectives.value(v)
    least = np.array([known[k] for k in range(here.size)])
    size = np.maximum(np.maximum(np.abs(least), np.abs(here)), 1e-3)
    found.gap = max(found.gap, float((here - least).max(initial=0.0)))
    found.relative = max(found.relative, float(((here - least) / size).max(initial=0.0)))
    for k in np.flatnonzero(here - least > LOWER_GAP * size)[:2]:
        found.failures.append(
            f"the objective of `{system.followers[k].name}` still "
            f"{wording(system.followers[k].sign).falls} by {here[k] - least[k]:.2e} when it is "
            "solved again"
        )
