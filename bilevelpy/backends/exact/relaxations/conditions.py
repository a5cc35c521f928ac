"""The single-level program that a run of ``exact`` solves: which conditions, which objective."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.backends.exact.relaxations.necessary import necessary, rows_are_affine
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.ir.walk import duals
from bilevelpy.numerics.programs.response_bounds import response_bounds
from bilevelpy.reductions.linearization.convex_objective import convex_objective
from bilevelpy.reductions.linearization.linear_objective import linear_objective
from bilevelpy.reductions.linearization.linear_parts import linear_parts
from bilevelpy.reductions.optimality.choice_rows import with_choice_rows
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.optimality.shared_multipliers import with_shared_multipliers
from bilevelpy.reductions.refusal import Refused

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System


def conditions(model: System) -> tuple[KKT, bool]:
    """The program to solve, and whether it is the bilevel problem itself (else: a relaxation)."""
    games = any(f.nash for f in model.followers)
    reports = [r.value for r in model.bound.program.reports.values()]
    # Cuts know of no multipliers. Where a follower has none, there is no price to read.
    prices = bool((model.columns.owner == -1).any()) or bool(duals(reports))
    try:
        made = kkt(model, "the backend `exact`", optimistic=True, norms=True)
        program = with_choice_rows(_bounded(made))
        if games or prices or rows_are_affine(model):
            return program, True
    except Refused:
        if games or prices:
            raise
    return _bounded(necessary(model)), False


def _bounded(program: KKT) -> KKT:
    """The program with ends for the lower columns that have none, where responses keep some."""
    low, high = response_bounds(program.system)
    columns, count = program.columns, program.system.columns.count
    return replace(
        program,
        columns=replace(
            columns,
            lower=np.concatenate([low, columns.lower[count:]]),
            upper=np.concatenate([high, columns.upper[count:]]),
        ),
    )


def sharper(program: KKT) -> KKT:
    """The program with a linear objective, where there is one and its relaxation has a bound, or
    with a convex one; of an objective of higher degree with parts of it linear.
    """
    program = linear_parts(with_shared_multipliers(program))
    linear = linear_objective(program)
    if linear is not program and Relaxed(linear).is_bounded(1.0):
        return linear
    return convex_objective(program)
