"""The two functions of a program: F of the upper level, f of all followers together, both to be
minimised.
"""

from __future__ import annotations

from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Level, Program
from bilevelpy.ir.types import Sense


def level_total(program: Program, level: Level) -> Expr:
    """The objective of a level as one number: summed over its family, in its own sense."""
    builder = program.builder
    return builder.reduce("sum", level.objective, tuple(range(level.objective.rank)))


def upper_objective(program: Program) -> tuple[Expr, float]:
    """``(F, sign)``: F to be minimised, -1 where the model maximises."""
    sign = -1.0 if program.upper.sense is Sense.MAXIMIZE else 1.0
    return program.builder.scale(sign, level_total(program, program.upper)), sign


def lower_objective(program: Program) -> tuple[Expr, float]:
    """``(f, sign)``: the sum over followers to be minimised; the sign is -1 where every follower
    maximises.

    Independent followers are one lower problem: the product of their argmins is the argmin of the
    sum.
    """
    builder = program.builder
    terms = [
        builder.scale(-1.0 if level.sense is Sense.MAXIMIZE else 1.0, level_total(program, level))
        for level in program.lowers
    ]
    turned = bool(program.lowers) and all(level.sense is Sense.MAXIMIZE for level in program.lowers)
    return builder.add(terms) if terms else builder.const(0.0), -1.0 if turned else 1.0
