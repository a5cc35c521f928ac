"""What the LP and MPS writers share: the mixed-integer program, and what they cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.reductions.kkt import kkt
from bilevelpy.reductions.mixed import Mixed, big_m, indicators, sos1
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import system

if TYPE_CHECKING:
    from bilevelpy.exporters.base import Options
    from bilevelpy.ir.program import BoundProgram

TITLES = {
    "sos1": "optimality conditions of the followers, complementarity as SOS1 sets",
    "indicators": "optimality conditions of the followers, complementarity as indicators",
    "big-m": "optimality conditions of the followers, complementarity with big-M constants",
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
    conditions = kkt(system(bound), target, options.force)
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
    rows = conditions.rows
    for r in range(rows.count):
        curved = "nonlinear" if r in rows.functions.trees else "quadratic"
        if r in rows.functions.trees or (r in rows.functions.quadratic and not quadratic_rows):
            span = rows.spans[r]
            if span is None:
                owner = int(rows.follower[r])
                level = (
                    conditions.system.followers[owner - 1].level if owner else program.upper.name
                )
                span = program.level(level).objective.span
            raise refuse(
                program,
                "BLV0701",
                span,
                f"`{rows.names[r]}` is {curved}",
                target=target,
                hint="nl, gams-emp, pyomo, ampl and casadi take nonlinear functions",
                what=f"a {curved} row",
            )
    if form == "sos1":
        return sos1(conditions)
    if form == "indicators":
        return indicators(conditions)
    return big_m(conditions, options.dual_bound, target)
