"""The program of one sequential step at a single point, by exchanges of what holds its solution.

    min_d,s   g'd + mu 1's + d'B d / 2     s.t.  c + C d <= s,  0 <= s,  x + d in the domain

That of :mod:`bilevelpy.numerics.cones.sequential` over boxes and simplices, with B of any size:
from the rows and bounds that held the last step one or two linear systems are enough, where an
interior point begins anew and factorises B in each of its steps. ``within`` are rows of d alone
that hold like those of the domain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.numerics.cones.sequential import Kinds, Sample, Step, Units
from bilevelpy.numerics.qp.rows import Held, Rows, Sides, solve

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Within:
    """Rows ``ahead + slopes d >= 0`` of a move d of x (in the units of x)."""

    ahead: Array
    slopes: Array


def step_by_exchanges(
    here: Sample,
    domain: ProductSet,
    kinds: Kinds,
    units: Units,
    B: Array,
    mu: float,
    guess: Sides | None = None,
    *,
    rows: Array | None = None,
    within: Within | None = None,
) -> tuple[Step, Sides, Array] | None:
    """The step, what holds it (the ``guess`` for the next one), and how hard it pushes at the rows
    ``within``. None where the domain has other sets than boxes and simplices, or no solution is
    found.
    """
    if not domain.is_nearly_box:
        return None
    n, t = here.x.numel(), units.extent
    values = (here.rows.numpy() if rows is None else rows) / (units.rows * t)
    C = here.slopes.numpy() / units.rows[:, None]
    soft = np.flatnonzero(~kinds.plain)
    both = np.flatnonzero(kinds.equality[soft])
    count, width = len(values), n + soft.size
    sums = domain.sums()
    # Rows of the model, equations that may be left from below, sums of simplices, ``within``.
    more = np.zeros((0, n)) if within is None else within.slopes * t
    A = np.zeros((count + both.size + len(sums) + len(more), width))
    A[:count, :n] = C
    A[soft, n + np.arange(soft.size)] = -1.0
    under = slice(count, count + both.size)
    A[under, :n] = C[soft[both]]
    A[under, n:][np.arange(both.size), both] = 1.0
    A[under.stop : under.stop + len(sums), :n] = sums
    A[under.stop + len(sums) :, :n] = more
    high = np.full(len(A), math.inf)
    low = np.full(len(A), -math.inf)
    high[:count] = -values
    hard = kinds.plain & kinds.equality
    low[:count][hard] = -values[hard]
    low[under] = -values[soft[both]]
    now = here.x.numpy()
    low[under.stop : under.stop + len(sums)] = high[under.stop : under.stop + len(sums)] = (
        1.0 - sums @ now
    ) / t
    if within is not None:
        low[under.stop + len(sums) :] = -np.maximum(within.ahead, 0.0)
    floor, roof = domain.lower.numpy().copy(), domain.upper.numpy().copy()
    for b in domain.simplices:
        roof[b.start : b.stop] = math.inf  # the sum bounds them
    bounds = (
        np.concatenate([(floor - now) / t, np.zeros(soft.size)]),
        np.concatenate([(roof - now) / t, np.full(soft.size, math.inf)]),
    )
    H = np.zeros((width, width))
    H[:n, :n] = B
    slope = here.slope.numpy() / units.parts
    cost = np.concatenate([slope, np.full(soft.size, mu)])
    if guess is not None and len(guess.bounds) == width:
        known = guess.rows[: len(A)]
        guess = Sides(np.concatenate([known, np.zeros(len(A) - len(known))]), guess.bounds)
    else:
        guess = None
    found = solve(H, cost, Rows(A, low, high, *bounds), guess)
    if not isinstance(found, Held) or not np.isfinite(found.y).all():
        return None
    d = found.y[:n]
    multipliers = found.rows[:count].copy()
    multipliers[soft[both]] += found.rows[under]
    left = np.zeros(count)
    left[soft] = np.maximum(found.y[n:], 0.0)
    own = len(A) - len(more)
    return Step(d, multipliers, float(slope @ d), left), found.sides, -found.rows[own:]
