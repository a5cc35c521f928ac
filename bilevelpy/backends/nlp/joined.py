"""Games between followers and shadow prices in the upper level, by the followers' conditions.

Both need what a single re-solved follower does not give: an equilibrium of all players at once, or
the multipliers among which the leader chooses. Where every player's problem is convex in its own
variables, the joined conditions of Karush, Kuhn and Tucker describe exactly that (F. Facchinei and
C. Kanzow, 4OR 5, 2007), multipliers included; with x fixed, the least F over them is the optimistic
reading at x.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.follower import gain, row_scales
from bilevelpy.reductions.rewriting.normalize import Units

if TYPE_CHECKING:
    from bilevelpy.backends.nlp.reduced import Reduced
    from bilevelpy.backends.nlp.response import Responses
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System
    from bilevelpy.result import Certificate

Array = np.ndarray[Any, np.dtype[Any]]

# Residuals of the conditions, relative to the terms of a row; products of multiplier and slack.
RESIDUAL = 2e-6
# A follower that gains less than this (relative to its terms) is content.
CONTENT = 1e-6
# Relative distance at which a price counts as lying at its declared bound.
AT = 1e-6


def has_games(system: System) -> bool:
    """Whether followers play against each other."""
    return any(f.nash for f in system.followers)


def has_prices(system: System) -> bool:
    """Whether the upper level reads shadow prices."""
    return bool((system.columns.owner == -1).any())


def are_content(system: System, responses: Responses, v: Array) -> bool:
    """Whether no follower gains alone at a point."""
    answers = ((k, responses.solve(k, v)) for k in range(len(system.followers)))
    return all(a is not None and gain(system, k, v, a[1]) <= CONTENT for k, a in answers)


def own_units(system: System) -> Units:
    """The units of the model itself."""
    ones = [
        np.ones(count)
        for count in (
            len(system.followers),
            system.columns.count,
            system.upper_rows.count,
            system.lower_rows.count,
        )
    ]
    return Units(system, 1.0, *ones)


def examined(program: KKT, full: Array, given: Certificate) -> Certificate:
    """The certificate with what the conditions at ``full`` (values of all columns of ``program``)
    say of prices and equilibria.
    """
    system = program.system
    failures = [*_residuals(program, full)]
    notes: list[str] = []
    if has_prices(system):
        failures += _at_bounds(system, full)
        notes.append(
            "the shadow prices are multipliers of the followers' conditions at this point; where "
            "several are valid, F is least at these among those beside them"
        )
    if has_games(system):
        notes.append(
            "no player gains by deviating alone; the equilibrium at x is not known to be unique"
        )
    kind = "none" if failures else given.kind
    reasons = (*failures, *given.reasons, *(notes if kind != "none" else ()))
    return replace(given, kind=kind, reasons=reasons)


def _residuals(program: KKT, full: Array) -> list[str]:
    """What is wrong with the multipliers."""
    rows = program.rows
    violation, scale = rows.violation(full), row_scales(rows, full)
    bad = np.flatnonzero(violation > RESIDUAL * scale)
    found = [f"the condition `{rows.names[r]}` is violated by {violation[r]:.1e}" for r in bad[:2]]
    for pair in program.pairs:
        multiplier, slack = float(full[pair.multiplier]), program.slack(pair, full)
        size = max(1.0, abs(multiplier), abs(slack))
        if multiplier < -RESIDUAL * size or min(multiplier, slack) > RESIDUAL * size:
            found.append(
                f"`{pair.name}` has the multiplier {multiplier:.1e} and the slack {slack:.1e}"
            )
    return found[:3]


def _at_bounds(system: System, full: Array) -> list[str]:
    """Prices at a declared bound: whether valid ones lie beyond it is not settled here."""
    columns, found = system.columns, []
    for j in np.flatnonzero(columns.owner == -1):
        for end in (columns.lower[j], columns.upper[j]):
            if np.isfinite(end) and abs(full[j] - end) <= AT * max(1.0, abs(end)):
                found.append(
                    f"`{columns.names[j]}` is at its declared bound {end:g}: without it the leader "
                    "might do better"
                )
    return found[:3]


def with_choice(run: Reduced, v: Array, found: Certificate) -> Certificate:
    """The certificate of a point, if the leader's choice among best responses is known there."""
    if not run.choice.needed:
        return found
    why = ""
    response = run.joint.solve(v)
    if response is not None and run.choice.alone(response):
        return found
    if not run.choice.possible:
        why = "the responses may not be unique, and F is not convex in them: the one that is best "
        why += "for the leader is not known"
    else:
        system, better = run.system, run.beside(v)
        here = float(system.objective.value(v)[0])
        there = here if better is None else float(system.objective.value(better)[0])
        if here - there > 1e-5 * max(1.0, abs(here)):
            why = f"another best response gives F = {system.sign * there:.6g} instead of "
            why += f"{system.sign * here:.6g}"
    return replace(found, kind="none", reasons=(why, *found.reasons)) if why else found
