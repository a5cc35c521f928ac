"""Runs above a lower level with several minima, and what is left of one whose response is refuted.

A run follows one minimum of f(x, .). F may fall along it to where another one is lower, so that
what it has come to is no response, and on to where the valley ends. Such a run goes on from the
better response, at the same x, with a higher F. What it keeps is the last point before: the
lowest F at which no response that is known is better. Between valleys that lead to each other for
ever that is the best point there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.result import Status

if TYPE_CHECKING:
    from bilevelpy.numerics.lower.response import Point
    from bilevelpy.numerics.upper.state import UpperState

Vec = torch.Tensor

# So many points of a valley are kept, evenly spaced beyond.
KEPT = 64
# A run ends once so many better responses in turn have led to no better point.
FRUITLESS = 12
# So often the step beyond the last point that stands is halved, for a later one.
HALVED = 8
# Relative distance of points that are the same but for rounding.
SAME = 1e-12
CHANGED = (
    "F rose where the run went on from a better response: the one that it had followed was no "
    "solution of the lower level"
)


def keep(state: UpperState) -> None:
    """Note a point of the valley."""
    trail = state.trail
    if not state.response.curved or (trail and trail[-1] is state.point):
        return
    if not trail and state.point is not state.start:
        trail.append(state.start)  # where nothing was known yet of other valleys
    trail.append(state.point)
    if len(trail) > KEPT:
        del trail[1:-1:2]


def change(state: UpperState, here: Point, better: Point) -> None:
    """Go on from a better response than that at ``here``; nothing that was learned of F along the
    one before holds for it.
    """
    before = state.refuge
    if here is not state.point:
        state.trail.append(here)
    _retreat(state, better.y)
    gained = state.refuge is not None and (before is None or state.refuge.value < before.value)
    state.fruitless = 0 if gained else state.fruitless + 1
    state.point = better
    state.extent = max(state.extent, norm(better.x - state.start.x))
    state.forget()
    state.trail[:] = [better]
    state.values.clear()
    state.recent.clear()
    if CHANGED not in state.warnings:
        state.warnings = (*state.warnings, CHANGED)
    if state.fruitless >= FRUITLESS and state.refuge is not None:
        _refine(state)
        state.point = state.refuge
        state.finish = Finish(
            Status.STALLED,
            f"F falls along responses to where others are better: {FRUITLESS} of these in turn led "
            "to no better point than the one before, which is kept",
        )


def inherit(state: UpperState, earlier: UpperState) -> bool:
    """Take over what an earlier run keeps; whether this one goes on from a better response to
    where that ended.
    """
    state.trail, state.refuge, state.edge = list(earlier.trail), earlier.refuge, earlier.edge
    here, there = earlier.point, state.start
    same = norm(here.x - there.x) <= SAME * norm(there.x)
    if not (same and state.response.is_below(there.lower, here)):
        return False
    _retreat(state, there.y)
    _refine(state)
    state.trail[:] = [there]
    return True


def _retreat(state: UpperState, y: Vec) -> None:
    """The last point of the valley at which the minimum reached from y is not lower, if F is lower
    there than at the point kept; that one must stand against y as well.
    """
    response, trail = state.response, state.trail
    if state.refuge is not None and response.lower_from(state.refuge, y) is not None:
        state.refuge = state.edge = None
    low, high = -1, len(trail)
    while high - low > 1:
        middle = (low + high) // 2
        if response.lower_from(trail[middle], y) is None:
            low = middle
        else:
            high = middle
    if low >= 0 and (state.refuge is None or trail[low].value < state.refuge.value):
        state.refuge = response.polish(trail[low])
        state.edge = (trail[high], y) if high < len(trail) else None


def _refine(state: UpperState) -> None:
    """The point kept, farther on the step that led from it to one that is refuted: its response is
    followed as far as it stands.
    """
    response, first = state.response, state.refuge
    if first is None or state.edge is None:
        return
    (bad, y), state.edge = state.edge, None
    last, low, high = first, 0.0, 1.0
    for _ in range(HALVED):
        t = 0.5 * (low + high)
        x = response.oracle.domain_x.project(first.x + t * (bad.x - first.x))
        trial = response.evaluate(x, last, last.y)
        stands = response.finite(trial) and response.lower_from(trial, y) is None
        if stands and trial.value < last.value:
            last, low = trial, t
        else:
            high = t
    if last is not first:
        state.refuge = response.polish(response.differentiate(last, first))
