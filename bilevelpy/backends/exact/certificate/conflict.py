"""Which rows contradict each other: an irreducible subset without a feasible point, by deletion.

Chinneck and Dravnieks (1991): rows are left out one by one; one without which the rest is still
infeasible stays out. What is left contradicts itself, and no part of it does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.engine.scip import Model

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

# Rows that the filter looks at one by one, and seconds for all of them.
MOST, SECONDS = 200, 5.0


def conflict(program: KKT, rows: list[int], limits: Limits) -> list[int]:
    """An irreducible infeasible subset of ``rows`` (with the bounds of the columns); empty where
    the rows have a common point, or it was not found in time.
    """
    deadline = time.perf_counter() + min(limits.seconds, SECONDS)

    def empty(chosen: list[int]) -> bool:
        left = max(deadline - time.perf_counter(), 0.01)
        model = Model(program.columns)
        model.rows(program.rows, chosen)
        return model.solve(replace(limits, seconds=left)).status == "infeasible"

    if len(rows) > MOST or not empty(rows):
        return []
    left = list(rows)
    for r in rows:
        rest = [k for k in left if k != r]
        if empty(rest):
            left = rest
        if time.perf_counter() > deadline:
            return []
    return left


def contradiction(program: KKT, rows: list[int]) -> str:
    """The rows of a conflict in words."""
    names = [f"`{program.rows.names[r]}`" for r in rows]
    if len(names) == 1:
        return f"{names[0]} cannot hold within the bounds of its variables"
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]} contradict each other"
