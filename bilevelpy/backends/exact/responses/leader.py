"""The leader's best among the best responses at a point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Outcome
from bilevelpy.backends.exact.engine.scip import LEAST, Model
from bilevelpy.backends.exact.responses.cut import ROOM
from bilevelpy.backends.exact.responses.followers import (
    BEST,
    EDGE,
    FEASIBLE,
    Followers,
    is_sharp,
)
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.exact.responses.resolve import resolved
from bilevelpy.numerics.programs.follower import objective_scale, row_scales

Array = np.ndarray[Any, np.dtype[Any]]
# The part of the time that is left for the leader's choice among best responses.
CHOICE = 0.1


def candidate(run: Followers, v: Array, solved: dict[int, float], state: Progress) -> float:
    """F at the leader's best among the best responses at x (``v`` holds some of them).

    It is kept in ``state`` where it is the best so far, and infinite where no response suits the
    leader's rows, or x avoids a better response of a follower by nothing. Where x lies on the edge
    of what these rows allow, they hold to ``EDGE``.
    """
    # A good point, no proof: it may take a part of the time that is left.
    left = run.limits()
    short = replace(left, seconds=max(CHOICE * left.seconds, min(LEAST, left.seconds)))
    quick = replace(run, limits=lambda: short)
    for edge, room in ((0.0, 0.0), (EDGE, 10.0 * FEASIBLE)):
        found = leaders_best(quick, v, solved, edge, room)
        state.nodes += found.nodes
        if found.values is not None:
            break
    if found.values is None:
        return math.inf
    if any(quick.beside(k, v, least) is not None for k, least in solved.items()):
        return math.inf
    # What the leader gains by the tolerance of a best response would keep bounds from meeting it.
    values, value = resolved(run.system, found.values[: v.size])
    state.keep(values, value, solved)
    return value


def leaders_best(
    run: Followers,
    v: Array,
    solved: Mapping[int, float],
    edge: float = 0.0,
    room: float = 0.0,
    sign: float = 1.0,
    fixed: Array | None = None,
    below: float = math.inf,
) -> Outcome:
    """The leader's best (for ``sign`` -1: worst) among the responses with values ``solved``, to
    within ``room``; of what she decides, the columns ``fixed`` (given: all) are those of ``v``.
    Only values ``below`` some count: without one it is "infeasible", which is soon found out.
    """
    system = run.system
    fixed = np.flatnonzero(system.columns.owner <= 0) if fixed is None else fixed
    upper = {int(j): float(v[j]) for j in fixed}
    model = Model(system.columns, upper)
    rows = system.upper_rows
    off = edge * row_scales(rows, v)
    model.rows(replace(rows, lower=rows.lower - off, upper=rows.upper + off))
    for k, least in solved.items():
        model.rows(run.loosened(k, v))
        own = np.flatnonzero(system.columns.owner == k + 1)
        size = max(objective_scale(system.lower_objectives, k, v, own), abs(least), 1e-3)
        value = model.expression(system.lower_objectives, k, 1.0)
        # Not less than what cuts leave, or a tie that a relaxation has found would be none.
        least += max(0.2 * BEST * size, ROOM if is_sharp(system, k, v) else 0.0)
        model.row(value, -math.inf, least + room)
    model.minimize(system.objective, sign)
    if math.isfinite(below):
        model.scip.setObjlimit(below)
    return model.solve(run.limits())
