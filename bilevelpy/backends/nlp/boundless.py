"""Whether F falls without end along a ray of x, with responses of their own on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.numerics.programs.follower import row_scales

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Ends of the ray, in sizes of the start: F that still falls there has no bound.
FAR = 1e12
# Every tenfold distance has to multiply the fall by this: slower growth is not told from an end.
GROWTH = 2.0
# F whose square is no number any more.
ENDLESS = -1e150
# Columns that move by less than this part of the longest move stay where they are.
STILL = 1e-3
# How far rows of the leader may be off, relative to their terms.
FEASIBLE = 1e-6


def unbounded_ray(
    system: System, v: Array, respond: Callable[[Array], Array | None], late: Callable[[], bool]
) -> tuple[float, float] | None:
    """How far from the start F was followed along the ray from there through ``v``, and F there;
    None where it does not fall all the way, or rows and bounds of the leader end it.

    ``respond`` gives values of all columns at best responses. The fall from the start has to grow
    at every tenfold distance until :data:`FAR`, or until F is beyond :data:`ENDLESS`.
    """
    columns, chosen = system.columns, system.upper_columns
    start = columns.start[chosen]
    move = v[chosen] - start
    longest = float(np.abs(move).max(initial=0.0))
    if not 0.0 < longest < math.inf:
        return None
    here = float(system.objective.value(v)[0])
    if here < ENDLESS:
        return longest, here
    move = np.where(np.abs(move) > STILL * longest, move, 0.0)
    ahead = np.where(move > 0, columns.upper[chosen], columns.lower[chosen])
    if bool(np.isfinite(ahead[move != 0.0]).any()):
        return None
    size = max(1.0, float(np.abs(start).max(initial=0.0)))
    if longest > FAR * size:
        # Solvers diverge to distances at which no lower program is solved any more.
        move, longest = move * (size / longest), size
    decades = max(2, math.ceil(math.log10(FAR * size / longest)))
    first = v.copy()
    first[chosen] = start
    origin = respond(first)
    known = here if origin is None else float(system.objective.value(origin)[0])
    fall, distance, F = 0.0, longest, math.nan
    for k in range(decades + 1):
        if late():
            return None
        trial = v.copy()
        trial[chosen] = np.where(move != 0.0, start + 10.0**k * move, v[chosen])
        found = respond(trial)
        if found is None:
            return None
        F = float(system.objective.value(found)[0])
        rows = system.upper_rows
        broken = rows.violation(found) > FEASIBLE * row_scales(rows, found)
        if not math.isfinite(F) or bool(broken.any()) or not known - F > GROWTH * fall:
            return None
        fall, distance = known - F, 10.0**k * longest
        if F < ENDLESS:
            break
    return distance, F
