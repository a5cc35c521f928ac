"""Starts for ``kkt`` by continuation in an added curvature of the lower level.

Responses of nearly linear lower levels stay at a vertex and jump to the next one: F(x, y(x)) is a
landscape of steps, on which a descent ends beside its start. With ``c/2 |y - y0|^2`` added to f
they move all the time. Minima for falling c lead to a start for the true f, which alone decides
(homotopies of mathematical programs with equilibrium constraints: S. Scholtes, SIAM J. Optim. 11,
2001). The centre y0 is the response that the leader would choose herself, or the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import torch

from bilevelpy.backends.constrained.descents import Descents, Place, apart
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.rows.curved import CurvedOracle
from bilevelpy.numerics.rows.leader_response import leader_response
from bilevelpy.numerics.rows.response import constrained_lower

Vec = torch.Tensor

# What c falls by, down to this part of the curvature that f has; steps at each.
FALL, LEAST, STEPS = 0.3, 0.1, 15
# Towards the leader's own choice c begins so much higher: there it is the response, and x keeps it
# near.
STRONGER = 10.0
# Steps on the true problem after them.
LAST = 60
# Choices of the leader farther away than this many distances between responses are directions only.
REACH = 10.0


def strengths(oracle: Any, points: Sequence[Place]) -> list[float]:
    """Falling curvatures, from one that outweighs the slope of f over the distance between the
    responses; none where f has as much of its own.
    """
    spread = apart(list(points))
    slope = median(norm(oracle.value_grad_f(p.x, p.y)[1]) for p in points)
    own = float(oracle.hessian(points[0].x, points[0].y).diagonal().mean())
    if not (spread > 0.0 and slope > 0.0 and own >= 0.0):
        return []
    strength, found = slope / spread, list[float]()
    least = max(LEAST * own, 1e-6 * strength)
    if strength <= own:
        return []
    while strength > least:
        found.append(strength)
        strength *= FALL
    return found


def continuations(descents: Descents, points: Sequence[Place], end: Place) -> Iterator[Place]:
    """The ends of continuations from the first of ``points``, responses to different x, from the
    best, and from the ``end`` of a run.
    """
    oracle = descents.oracle
    falling = strengths(oracle, points)
    if not falling:
        return
    middle = torch.stack([p.y for p in points]).mean(dim=0)
    reach = REACH * apart(list(points))
    best = min(points, key=lambda p: p.F)
    for at, leads, follows in (
        (points[0], True, False),
        (best, False, True),
        (end, True, True),
    ):
        if descents.is_over:
            return
        rows = constrained_lower(oracle, 1e-10).rows(at.x)
        centre = leader_response(oracle, rows, at.x, at.y, reach) if leads else middle
        descents.spent += rows.tally.systems
        if centre is None:
            continue
        first = [STRONGER * falling[0], STRONGER * FALL * falling[0]] if leads else []
        found = _followed(descents, at, centre, [*first, *falling], follows=follows)
        if found is not None:
            yield found


def _followed(
    descents: Descents, at: Place, centre: Vec, falling: Sequence[float], *, follows: bool
) -> Place | None:
    """The end of one continuation; with ``follows`` the centre is the last response."""
    oracle = descents.oracle
    for strength in falling:
        if descents.is_over:
            break
        found = descents.down(CurvedOracle(oracle, strength, centre), at.x, at.y, STEPS)
        if found is None:
            break
        at = found
        if follows:
            centre = at.y
    return descents.down(oracle, at.x, at.y, LAST)
