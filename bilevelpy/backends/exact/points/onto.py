"""Points that all but lie on bounds of the leader, put there."""

from __future__ import annotations

import math

import numpy as np

from bilevelpy.backends.exact.points.local import confirm
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.progress import Progress

# Distances from a bound that may be the engine's, where rows hold to its tolerance with cuts.
BESIDE = 1e-6


def onto_bounds(run: Followers, state: Progress, gap: float) -> None:
    """The best point with x on bounds that it all but lies on, where that is worth as much: beside
    them an engine may have taken a way out of a cut that is none.
    """
    columns = run.system.columns
    if state.best is None:
        return
    at = state.best[: columns.count].copy()
    for ends in (columns.lower, columns.upper):
        near = np.abs(at - ends) <= BESIDE * np.maximum(1.0, np.abs(at))
        at = np.where(near & (columns.owner == 0), ends, at)
    if np.array_equal(at, state.best[: columns.count]):
        return
    there = Progress()
    confirm(run, at, there, math.inf)
    if there.best is None or there.objective > state.objective + 0.5 * gap * max(
        1.0, abs(state.objective)
    ):
        return
    state.best, state.objective, state.solved = there.best, there.objective, there.solved
