"""Cuts that are one linear row in binaries, for responses that may fall back.

At a point where a response ``z`` holds, let ``d_j(x)`` be the binaries that are not as they are
there (``x_j`` or ``1 - x_j``). A row of the follower that holds at ``z`` with slack ``s`` is broken
only where what works against it is more than s::

    1 <= sum over these j of min(1, |a_j| / s) d_j(x)

With what falling back costs in front of the sum, the cut needs no binaries of its own::

    f(x, y) <= f(x, z) + sum over rows r of c_r (sum over j of ...)

Where the leader loses what the follower gains, a response that is worth no less to her than the
best point, whatever x is, has to be broken where she does better: the first row, for all rows
together (covers of the follower, which the leader has to hit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.cuts.ways_out import NEVER, ranges
from bilevelpy.backends.exact.engine.expressions import engine
from bilevelpy.reductions.rewriting.fixing import placed
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.backends.exact.cuts.pool import Pool
    from bilevelpy.backends.exact.cuts.ways_out import Way
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.backends.exact.responses.cut import Cut

Array = np.ndarray[Any, np.dtype[Any]]
# A binary, and whether it goes up.
Move = tuple[int, bool]

# What F at two points is the same within (relative).
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class LinearCut:
    """``fall <= room +`` what is ``paid`` for binaries that move; ``fall`` is ``most`` at most."""

    fall: Functions
    paid: dict[Move, float]
    room: float
    most: float

    def off(self, v: Array) -> float:
        """By how much a point is off."""
        paid = sum(c * (v[j] if up else 1.0 - v[j]) for (j, up), c in self.paid.items())
        return float(self.fall.at(0, v) - paid - self.room)

    def write(self, model: Model) -> None:
        """Add it."""
        terms: list[Any] = [model.expression(self.fall, 0, 1.0)]
        for (j, up), c in self.paid.items():
            x = model.variables[j]
            terms.append(-c * x if up else c * x - c)
        model.row(engine().quicksum(terms), -math.inf, self.room)


def linear_cut(pool: Pool, cut: Cut, at: Array) -> LinearCut | None:
    """The row of a cut whose response holds at the binaries of ``at``, and that is tight there;
    None where it is lost altogether with a row that it breaks.
    """
    columns = pool.run.system.columns
    fall, ways = pool.formula(cut)
    most = max(float(ranges(fall, columns.lower, columns.upper)[1][0]), 0.0)
    # Rows that send the same variables back are paid for once.
    groups: dict[tuple[int, ...], tuple[float, dict[Move, float]]] = {}
    for way in ways:
        if way.cost is None:
            return None
        _, parts = groups.setdefault(way.moved, (way.cost, {}))
        for move, part in _moves(way, at).items():
            parts[move] = max(parts.get(move, 0.0), part)
    paid: dict[Move, float] = {}
    for cost, parts in groups.values():
        for move, part in parts.items():
            paid[move] = paid.get(move, 0.0) + cost * part
    # f is worth no more.
    return LinearCut(fall, {m: min(c, most) for m, c in paid.items() if c}, cut.room, most)


def hitting_cut(pool: Pool, cut: Cut, at: Array, best: float) -> LinearCut | None:
    """What breaks a response that holds at the binaries of ``at``, for all points with F below
    ``best`` where the leader loses what one follower gains; None where she may lose less by it.
    """
    system = pool.run.system
    columns = system.columns
    there = placed(system.objective, columns.owner == cut.follower + 1, cut.response)
    least = float(ranges(there, columns.lower, columns.upper)[0][0])
    if len(system.followers) > 1 or least < best - ROUNDING * max(1.0, abs(best)):
        return None
    paid: dict[Move, float] = {}
    for way in pool.formula(cut)[1]:
        for move, part in _moves(way, at).items():
            paid[move] = max(paid.get(move, 0.0), part)
    one = Functions(np.ones(1), sp.csr_array((1, columns.count)))
    return LinearCut(one, paid, 0.0, 1.0)


def _moves(way: Way, at: Array) -> dict[Move, float]:
    """``min(1, |a_j| / s)`` of the binaries that work against a row from where they are."""
    sign = 1.0 if way.above else -1.0
    slack = sign * (way.end - way.functions.at(way.row, at))
    # A row of whole numbers is broken at its next value.
    room = max(slack, 0.0) + (2.0 * way.by if way.whole else 0.0)
    found = {}
    for j, a in linear_terms(way.functions, way.row):
        up = bool(at[j] < 0.5)
        if sign * a * (1.0 if up else -1.0) > 0.0:
            found[j, up] = 1.0 if abs(a) >= room or room <= NEVER * way.scale else abs(a) / room
    return found
