"""What the LP and MPS writers share: the mixed-integer program, and what they cannot hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.reductions.linearization.mixed import Mixed, big_m, indicators, sos1
from bilevelpy.reductions.linearization.strong_duality import strong_duality
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.lift import lift, with_ranges
from bilevelpy.reductions.rows import system

if TYPE_CHECKING:
    from bilevelpy.exporters.base import Options
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.rows import Rows

TITLES = {
    "sos1": "optimality conditions of the followers, complementarity as SOS1 sets",
    "indicators": "optimality conditions of the followers, complementarity as indicators",
    "big-m": "optimality conditions of the followers, complementarity with big-M constants",
    "strong-duality": "optimality conditions of the followers, strong duality for complementarity",
}


def mixed_program(
    bound: BoundProgram, options: Options, target: str, *, quadratic_rows: bool
) -> Mixed:
    """The single-level program for a matrix format.

    Raises
    ------
    Refused
        Where a function is no polynomial of degree two, or a quadratic row is not allowed.
    """
    form = options.form(target, *TITLES)
    conditions = kkt(lift(system(bound), leader=True), target, options.force)
    program = bound.program
    if conditions.objective.trees:
        raise refuse(
            program,
            "BLV0701",
            program.upper.objective.span,
            "neither linear nor quadratic",
            target=target,
            hint="nl, gams-emp, pyomo, ampl and casadi take nonlinear functions",
            what="this objective",
        )
    if form == "sos1":
        mixed = sos1(conditions)
    elif form == "indicators":
        mixed = indicators(conditions)
    elif form == "big-m":
        columns = with_ranges(conditions.columns, conditions.rows)
        mixed = big_m(replace(conditions, columns=columns), options.dual_bound, target)
    else:
        mixed = strong_duality(conditions, options.dual_bound, target)
    _fits(mixed, target, quadratic_rows)
    return mixed


def with_ends(rows: Rows) -> Rows:
    """The rows that say something. Others would be objectives to readers of MPS files."""
    return rows.take(np.flatnonzero(np.isfinite(rows.lower) | np.isfinite(rows.upper)))


def _fits(mixed: Mixed, target: str, quadratic_rows: bool) -> None:
    """Every row is linear, or quadratic where the format has such rows."""
    rows, program = mixed.rows, mixed.kkt.system.bound.program
    for r in (*rows.functions.trees, *rows.functions.quadratic):
        tree = r in rows.functions.trees
        if not tree and quadratic_rows:
            continue
        curved = "nonlinear" if tree else "quadratic"
        span = rows.spans[r]
        if span is None:
            owner = int(rows.follower[r])
            followers = mixed.kkt.system.followers
            level = followers[owner - 1].level if owner else program.upper.name
            span = program.level(level).objective.span
        hint = "nl, gams-emp, pyomo, ampl and casadi take nonlinear functions"
        if rows.names[r].startswith("duality."):
            hint = "lp takes quadratic rows; whole upper variables make the row linear"
        raise refuse(
            program, "BLV0701", span, f"`{rows.names[r]}` is {curved}",
            target=target, hint=hint, what=f"a {curved} row",
        )  # fmt: skip
