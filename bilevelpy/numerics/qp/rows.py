"""Convex quadratic programs with rows, by exchanges of what holds the solution.

    min_y  c'y + y'Hy / 2,   low <= A y <= high,   floor <= y <= roof

With the variables that bounds hold at their ends B and the rows that hold as equations, the free
ones F and the multipliers of rows solve one system::

    [ H_FF  A_hF' ] [y_F]   [ -c_F - H_FB y_B ]
    [ A_hF    0   ] [ m ] = [ end - A_hB y_B  ]

Members whose multipliers pull are let go, rows and bounds that the point violates are taken in,
until nothing changes (where H is singular, what holds must leave nothing open): a primal-dual
active set method (M. Hintermueller, K. Ito and K. Kunisch,
SIAM J. Optim. 13, 2002). From the set of a program nearby one or two systems suffice; where the
exchanges do not end, an interior point says which set to begin with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.qp.saddle import largest, saddle
from bilevelpy.numerics.qp.two_sided import solve_two_sided

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Rows and bounds count as respected up to this fraction of their terms: rounding.
EXACT = 1e-11
# Exchanges from a set at most, and those of all wrong members without fewer of them.
EXCHANGES, PATIENCE = 40, 3
# Members of an interior point's set that are left out, one after the other.
LESS = 8
# Members that push less than this fraction of the largest multiplier hold without pushing.
WEAK = 1e-8
# Accuracy of the interior point; multipliers and slacks are told apart by their sizes.
INTERIOR = 1e-9
# What it takes, in systems of exchanges.
STEPS_INSIDE = 10


class Nothing(StrEnum):
    """Why a program has no solution: no point meets its rows, its objective falls for ever on
    them, or nothing was found in time.
    """

    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    UNKNOWN = "limit"


# What Clarabel says.
ENDS = {
    "PrimalInfeasible": Nothing.INFEASIBLE,
    "AlmostPrimalInfeasible": Nothing.INFEASIBLE,
    "DualInfeasible": Nothing.UNBOUNDED,
    "AlmostDualInfeasible": Nothing.UNBOUNDED,
}


@dataclass(slots=True)
class Tally:
    """What programs have taken, as the number of systems: a measure of work that repeats."""

    systems: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """``low <= A y <= high`` with dense A (r, m), and bounds of y; equal ends are equations. Solves
    count what they take in ``tally``.
    """

    A: Array
    low: Array
    high: Array
    floor: Array
    roof: Array
    tally: Tally = field(default_factory=Tally)

    @property
    def equal(self) -> Mask:
        """Which rows are equations."""
        return np.asarray(self.low == self.high)


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What holds a solution: -1 at a lower end, 1 at an upper one, 0 nothing; equations always
    hold.
    """

    rows: Array
    bounds: Array


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A solution with its multipliers (positive at upper ends) and what holds it."""

    y: Array
    rows: Array
    bounds: Array
    sides: Sides

    @property
    def weak(self) -> int:
        """How many members hold without pushing: the response has a kink there."""
        least = WEAK * max(largest(self.rows), largest(self.bounds))
        rows = (self.sides.rows != 0) & (np.abs(self.rows) <= least)
        bounds = (self.sides.bounds != 0) & (np.abs(self.bounds) <= least)
        return int(rows.sum() + bounds.sum())


def solve(
    H: Array, c: Array, rows: Rows, guess: Sides | None, seconds: float = math.inf
) -> Held | Nothing:
    """A minimiser, or why there is none; an interior point ends after so many ``seconds``."""
    found = None if guess is None else _exchanged(H, c, rows, guess)
    if found is not None:
        return found
    inside = _interior(H, c, rows, seconds)
    if isinstance(inside, Nothing):
        return inside
    # Beside a kink it sees more members than there is room for: the weakest ones first.
    sides = inside.sides
    for _ in range(LESS):
        found = _exchanged(H, c, rows, sides)
        if found is not None:
            return found
        sides = _without_weakest(sides, inside)
    return inside


def _without_weakest(sides: Sides, inside: Held) -> Sides:
    """The sides without the member that pushes least."""
    push = np.abs(np.concatenate([inside.rows, inside.bounds]))
    push[np.concatenate([sides.rows, sides.bounds]) == 0] = np.inf
    member = int(push.argmin())
    free = Sides(np.zeros(len(sides.rows)), np.zeros(len(sides.bounds)))
    return _one(sides, free, member)


def _exchanged(H: Array, c: Array, rows: Rows, sides: Sides) -> Held | None:
    """All wrong members at once as long as their number falls, else one at a time, the last of them
    (J. J. Judice and F. M. Pires, Computers & Operations Research 21, 1994): all at once may go
    round in circles.
    """
    fewest, idle = len(c) + len(rows.low) + 1, 0
    for _ in range(EXCHANGES):
        sides = _with_room(rows, sides)
        found = on_sides(H, c, rows, sides)
        if found is None:
            return None
        better = _corrected(found, rows, sides)
        wrong = np.concatenate([better.rows != sides.rows, better.bounds != sides.bounds])
        count = int(np.count_nonzero(wrong))
        if not count:
            return found
        idle = 0 if count < fewest else idle + 1
        fewest = min(fewest, count)
        sides = better if idle <= PATIENCE else _one(sides, better, int(wrong.nonzero()[0][-1]))
    return None


def _with_room(rows: Rows, sides: Sides) -> Sides:
    """The sides with a free variable in every row that holds, one that its bound holds on the side
    that the row needs it to leave.

    At ``y = (1, 0, 0)`` of ``sum(y) <= 1``, ``0 <= y <= 1`` the row and a bound say the same. With
    both of them the row has no multiplier, and is let go for nothing: of the two the row stays.
    """
    held = np.flatnonzero((sides.rows != 0) | rows.equal)
    free = sides.bounds == 0
    full = held[~(rows.A[held][:, free] != 0.0).any(axis=1)]
    if not full.size:
        return sides
    bounds = np.where(rows.floor == rows.roof, 0.0, sides.bounds)
    y = np.where(sides.bounds > 0, rows.roof, np.where(free, 0.0, rows.floor))
    for r in full:
        a = rows.A[r]
        if (a[free] != 0.0).any():  # a row before it has left it room
            continue
        beyond = a @ y - (rows.low if sides.rows[r] < 0 else rows.high)[r]
        way = np.sign(beyond) if abs(beyond) > EXACT * (np.abs(a) @ np.abs(y)) else sides.rows[r]
        down, up = a * bounds > 0.0, a * bounds < 0.0
        # An equation that its bounds meet already: the fewest of them may be at an end for it.
        either = min((w for w in (down, up) if w.any()), key=np.count_nonzero, default=up)
        chosen = either if not way else down if way > 0 else up
        if chosen.any():
            free[np.where(chosen, np.abs(a), 0.0).argmax()] = True
    return Sides(sides.rows, np.where(free, 0.0, sides.bounds))


def _corrected(found: Held, rows: Rows, sides: Sides) -> Sides:
    """What holds, without members that pull and with those that are violated."""
    value = rows.A @ found.y
    size = EXACT * (1e-3 + np.abs(rows.A) @ np.abs(found.y))
    side = np.where(found.rows * sides.rows > 0, sides.rows, 0.0)
    side = np.where(value - rows.high > size, 1.0, side)
    side = np.where(rows.low - value > size, -1.0, side)
    side[rows.equal] = 0.0
    size = EXACT * (1e-3 + np.abs(found.y))
    bound = np.where(found.bounds * sides.bounds > 0, sides.bounds, 0.0)
    bound = np.where(found.y - rows.roof > size, 1.0, bound)
    bound = np.where(rows.floor - found.y > size, -1.0, bound)
    return Sides(side, np.where(rows.floor == rows.roof, -1.0, bound))


def _one(sides: Sides, better: Sides, member: int) -> Sides:
    """The sides with one member as in ``better``; bounds stand behind rows."""
    rows, bounds = sides.rows.copy(), sides.bounds.copy()
    if member < len(rows):
        rows[member] = better.rows[member]
    else:
        bounds[member - len(rows)] = better.bounds[member - len(rows)]
    return Sides(rows, bounds)


def on_sides(H: Array, c: Array, rows: Rows, sides: Sides) -> Held | None:
    """The minimiser over what the sides hold; None where they leave it open."""
    rows.tally.systems += 1
    free = np.flatnonzero(sides.bounds == 0)
    held = np.flatnonzero((sides.rows != 0) | rows.equal)
    y = np.where(sides.bounds > 0, rows.roof, rows.floor)
    y[free] = 0.0
    ends = np.where(sides.rows > 0, rows.high, rows.low)[held]
    right = -(c + H @ y)[free]
    solved = saddle(H, rows.A, free, held, right, ends - rows.A[held] @ y)
    if solved is None:
        return None
    y[free], m = solved
    multipliers = np.zeros(len(rows.low))
    multipliers[held] = m
    bounds = -(H @ y + c + rows.A[held].T @ m)
    bounds[free] = 0.0
    return Held(y, multipliers, bounds, sides)


def _interior(H: Array, c: Array, rows: Rows, seconds: float) -> Held | Nothing:
    """The end of an interior point method, and what holds the solution as it sees it."""
    rows.tally.systems += STEPS_INSIDE
    bounded = np.flatnonzero(np.isfinite(rows.floor) | np.isfinite(rows.roof))
    eye = sp.eye_array(len(c), format="csr")[bounded]
    matrix = sp.vstack([sp.csr_array(rows.A), eye])
    low = np.concatenate([rows.low, rows.floor[bounded]])
    high = np.concatenate([rows.high, rows.roof[bounded]])
    upper = sp.csc_matrix(sp.triu(sp.csc_array(H)))
    found = solve_two_sided(upper, c, matrix, low, high, INTERIOR, seconds)
    if not found.is_solved:
        return ENDS.get(found.status, Nothing.UNKNOWN)
    value = matrix @ found.values
    size = 1.0 + abs(matrix) @ np.abs(found.values)
    slack = np.minimum(np.abs(value - low), np.abs(high - value)) / size
    z = found.multipliers
    weight = np.abs(z) / max(float(np.abs(z).max(initial=0.0)), 1e-12)
    side = np.where(weight > slack, np.sign(z), 0.0)
    side[low == high] = 0.0
    count, bounds, prices = len(rows.low), np.zeros(len(c)), np.zeros(len(c))
    bounds[bounded], prices[bounded] = side[count:], z[count:]
    bounds[rows.floor == rows.roof] = -1.0
    y = np.clip(found.values, rows.floor, rows.roof)
    return Held(y, z[:count], prices, Sides(side[:count], bounds))
