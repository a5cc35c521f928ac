"""Kinks of Phi: the shortest vector in the hull of nearby gradients tells descent from Clarke
stationarity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.response import Point, Response

Vec = torch.Tensor

# Gradients within this fraction of the extent of the run count as taken at the same kink.
RADIUS = 1e-8
# A hull that comes this close to 0, relative to its longest gradient, is stationary.
STATIONARY = 1e-3
BUNDLE = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """A lower point beyond the kink, or None; ``stationary`` where 0 lies in the hull of the
    gradients.
    """

    point: Point | None
    stationary: bool


def shortest_in_hull(rows: Vec, iterations: int = 2000) -> Vec:
    """Min-norm point of the convex hull of the rows, by Frank-Wolfe steps that may also move away
    from a vertex.
    """
    gram = (rows @ rows.T).numpy()
    k = len(gram)
    w = np.full(k, 1.0 / k)
    top = float(gram.diagonal().max())
    slope = gram @ w
    for _ in range(iterations):
        toward = int(slope.argmin())
        away = int(np.where(w > 0, slope, -math.inf).argmax())
        gap = float(slope[away] - slope[toward])
        if gap <= 1e-14 * top:
            break
        # Pairwise step: weight moves from the worst vertex to the best one.
        bend = float(gram[toward, toward] + gram[away, away] - 2 * gram[toward, away])
        step = min(float(w[away]), gap / bend if bend > 0 else math.inf)
        w[toward] += step
        w[away] -= step
        slope += step * (gram[:, toward] - gram[:, away])
    return torch.from_numpy(w) @ rows


def leave_kink(
    response: Response, point: Point, recent: Sequence[tuple[Vec, Vec]], extent: float
) -> Outcome:
    """Search descent from a point where smooth steps fail.

    Bundle method: the direction is minus the shortest convex combination of gradients seen within
    a small radius; a trial that does not descend contributes its gradient to the bundle (Wolfe's
    conjugate subgradients).
    """
    domain = response.oracle.domain_x
    radius = max(RADIUS * (extent or 1.0), 1e-13 * norm(point.x))
    face = domain.face(point.x, point.g)
    near = [g for x, g in recent if norm(x - point.x) <= radius]
    bundle = [face.project(g) for g in (point.g, *near[-BUNDLE:])]
    for _ in range(min(2 * point.x.numel(), BUNDLE) + 5):
        h = shortest_in_hull(torch.stack(bundle))
        size = norm(h)
        if size <= STATIONARY * max(norm(g) for g in bundle):
            return Outcome(None, True)
        d = -h / size
        below = _descend(response, point, d, size, radius)
        if below is not None:
            return Outcome(below, False)
        trial = response.evaluate(domain.project(point.x + 0.3 * radius * d), point, point.y)
        if not response.finite(trial):
            return Outcome(None, False)
        bundle.append(face.project(response.differentiate(trial, point).g))
        if len(bundle) > BUNDLE:
            del bundle[1]
    return Outcome(None, False)


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
        goal = point.value - 0.1 * size * norm(move) if best is None else best.value
        if not response.finite(trial) or not trial.value < goal or dot(move, d) <= 0.0:
            break
        best = trial
        t *= 4.0
    return None if best is None else response.differentiate(best, point)
