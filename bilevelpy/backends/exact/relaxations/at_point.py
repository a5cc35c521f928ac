"""What the followers' optimality conditions add to a point: prices, and equilibria of games."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.relaxations.conditions import conditions
from bilevelpy.backends.exact.relaxations.relax import Relaxed

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.outcome import Limits
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]


def by_conditions(
    system: System, v: Array, limits: Limits, *, responds: bool, pessimistic: bool
) -> tuple[KKT, Array] | None:
    """The conditions, and values of all their columns at the leader's values in ``v``: with its
    responses, or with those that the leader's stance picks where it ``responds``. Of several
    shadow prices the stance picks, too. None where the conditions have no solution there.

    Raises
    ------
    Refused
        Where followers have no such conditions.
    """
    program, settled = conditions(system)
    assert settled  # of games and of prices alone is this asked
    owner = system.columns.owner
    fixed = np.flatnonzero(owner == 0 if responds else owner >= 0)
    found = Relaxed(program, {int(j): float(v[j]) for j in fixed}).solve(
        limits, sign=-1.0 if pessimistic else 1.0
    )
    return None if found.values is None else (program, found.values)
