"""Kinks of Phi: the shortest vector in the hull of nearby gradients tells descent from Clarke
stationarity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from scipy.optimize import nnls

from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.response import Point, Response

Vec = torch.Tensor

# Gradients within this fraction of the extent of the run count as taken at the same kink.
RADIUS = 1e-8
# A hull that comes this close to 0, relative to its longest gradient, is stationary.
STATIONARY = 1e-3
BUNDLE = 40
# A step descends where F falls by this part of what the bundle promises; a slope by less than that
# part of it adds to the bundle.
FALL, LEVEL = 0.1, 0.5
# The radius, in parts of the first one, and up to which of them a point counts as stationary.
WIDER, CLOSE = (1.0, 1e2, 1e4), 1e2
# A bundle whose shortest vector shortens by less has learnt nothing.
LEARNT = 1e-9
# Halvings end at this fraction of the radius.
FINEST = 1e-2


@dataclass(frozen=True, slots=True)
class Outcome:
    """A lower point beyond the kink, or None; ``stationary`` where 0 lies in the hull of the
    gradients.
    """

    point: Point | None
    stationary: bool


def shortest_in_hull(rows: Vec) -> Vec:
    """Min-norm point of the convex hull of the rows G: the weights that solve

        min_{w >= 0}  |G'w|^2 + t^2 (sum(w) - 1)^2,     t the length of the longest row,

    divided by their sum. For weights ``s v`` with ``sum(v) = 1`` the best s leaves a value that
    grows with ``|G'v|``.
    """
    G = rows.numpy()
    top = math.sqrt(float(np.square(G).sum(1).max()))
    if not 0.0 < top < math.inf:
        return rows[0]
    known = G.T / top
    if len(known) > 2 * len(G):
        known = scipy.linalg.qr(known, mode="r")[0][: len(G)]
    goal = np.zeros(len(known) + 1)
    goal[-1] = 1.0
    w, _ = nnls(np.vstack([known, np.ones((1, len(G)))]), goal)
    return torch.from_numpy(w / w.sum()) @ rows


def leave_kink(
    response: Response, point: Point, recent: Sequence[tuple[Vec, Vec]], extent: float
) -> Outcome:
    """Search descent from a point where smooth steps fail.

    Bundle method: the direction is minus the shortest convex combination of gradients seen within
    a small radius; a trial that does not descend contributes its gradient to the bundle (Wolfe's
    conjugate subgradients). Where lower solves do not resolve what lies within that radius, wider
    ones are tried (gradient sampling: J. Burke, A. Lewis, M. Overton, SIAM J. Optim. 15, 2005).
    """
    for wider in WIDER:
        radius = wider * max(RADIUS * (extent or 1.0), 1e-13 * norm(point.x))
        outcome = _within(response, point, recent, radius)
        if outcome is None:
            break
        if outcome.point is not None or (outcome.stationary and wider <= CLOSE):
            return outcome
    return Outcome(None, False)


def _within(
    response: Response, point: Point, recent: Sequence[tuple[Vec, Vec]], radius: float
) -> Outcome | None:
    """The same with gradients that are taken within ``radius``; None where F is not finite."""
    domain = response.oracle.domain_x
    face = domain.face(point.x, point.g)
    near = [g for x, g in recent if norm(x - point.x) <= radius]
    bundle = [face.project(g) for g in (point.g, *near[-BUNDLE:])]
    last = math.inf
    for _ in range(min(2 * point.x.numel(), BUNDLE) + 5):
        h = shortest_in_hull(torch.stack(bundle))
        size = norm(h)
        if size <= STATIONARY * max(norm(g) for g in bundle):
            return Outcome(None, True)
        if size >= (1.0 - LEARNT) * last:
            break
        last = size
        d = -h / size
        below = _descend(response, point, d, size, radius)
        if below is not None:
            return Outcome(below, False)
        beyond = _beyond(response, point, d, size, radius)
        if beyond is None:
            return None
        bundle.append(face.project(beyond.g))
        if len(bundle) > BUNDLE:
            del bundle[1]
    return Outcome(None, False)


def _beyond(response: Response, point: Point, d: Vec, size: float, radius: float) -> Point | None:
    """A point along d, on which F does not fall as promised, with a slope that says so; None where
    F is not finite.

    Without one the bundle learns nothing. By the mean value theorem there is one before the end of
    a step that does not descend: halving finds it (R. Mifflin, Math. Oper. Res. 2, 1977).
    """
    domain = response.oracle.domain_x
    low, high, t = 0.0, radius, 0.3 * radius
    while True:
        trial = response.evaluate(domain.project(point.x + t * d), point, point.y)
        if not response.finite(trial):
            return None
        trial = response.differentiate(trial, point)
        if dot(trial.g, d) >= -LEVEL * size or high - low <= FINEST * radius:
            return trial
        if trial.value <= point.value - FALL * t * size:
            low = t
        else:
            high = t
        t = 0.5 * (low + high)


def _descend(response: Response, point: Point, d: Vec, size: float, radius: float) -> Point | None:
    """The best point on a doubling sequence along d, if the first one descends by a tenth of what
    d promises.
    """
    domain = response.oracle.domain_x
    t = radius
    best: Point | None = None
    while True:
        x = domain.project(point.x + t * d)
        move = x - point.x
        trial = response.evaluate(x, point, point.y)
        goal = point.value - FALL * size * norm(move) if best is None else best.value
        if not response.finite(trial) or not trial.value < goal or dot(move, d) <= 0.0:
            break
        best = trial
        t *= 4.0
    return None if best is None else response.differentiate(best, point)
