"""Many small followers of a system as dense batches: responses and adjoints in a few calls.

Rows and finite bounds of a follower are the rows of its program; followers with fewer variables or
rows than the largest are padded with idle ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.numerics.qp.batched import Programs, saddle, solve

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Sparse = Any

# Fewer followers than this gain nothing by being a batch; wider ones are for sparse methods.
FEW, WIDE = 8, 100
# Entries of the largest array.
MOST = 40_000_000
# The least eigenvalue of a follower's Hessian, relative to its largest.
DEFINITE = 1e-9


@dataclass(slots=True)
class Batch:
    """B followers of at most q variables.

    ``member`` and ``place`` give follower and position of every lower column, ``H`` (B, q, q) the
    Hessians; ``row_member``, ``row_place`` and ``equal`` the same of all rows, bounds behind them:
    an equation is row ``row_place`` of A, anything else of G; -1 where there is no end.
    """

    member: Array
    place: Array
    H: Array
    row_member: Array
    row_place: Array
    equal: Array
    shape: tuple[int, int, int, int]
    last: Array | None = None
    _made: tuple[Sparse, Array, Array] | None = field(default=None)

    @classmethod
    def of(cls, system: System, block: Sparse) -> Batch | None:
        """The batch of a system with the Hessian ``block`` of its lower columns; None where the
        followers are few, wide, or not strictly convex.
        """
        owner = system.columns.owner[system.lower_columns] - 1
        count, own = len(system.followers), owner.size
        if count < FEW:
            return None
        sizes = np.bincount(owner, minlength=count)
        rows, columns = system.lower_rows, system.columns
        low = np.concatenate([rows.lower, columns.lower[system.lower_columns]])
        high = np.concatenate([rows.upper, columns.upper[system.lower_columns]])
        member = np.concatenate([rows.follower - 1, owner])
        equal = low == high
        idle = ~np.isfinite(low) & ~np.isfinite(high)
        q = int(sizes.max())
        place = np.full(member.size, -1)
        widths = []
        for chosen in (equal, ~equal & ~idle):
            where = np.flatnonzero(chosen)
            place[where] = _ranks(member[where])
            widths.append(int(place[where].max(initial=-1)) + 1)
        p, m = widths
        if q > WIDE or count * max(q * q, (q + p) ** 2, q * m) > MOST:
            return None
        position = _ranks(owner)
        H = np.zeros((count, q, q))
        entries = block.tocoo()
        H[owner[entries.row], position[entries.row], position[entries.col]] = entries.data
        values = np.linalg.eigvalsh(H + _padding(sizes, q))
        if bool((values[:, 0] <= DEFINITE * values[:, -1]).any()):
            return None
        H += _padding(sizes, q)
        assert own == position.size
        return cls(owner, position, H, member, place, equal, (count, q, p, m))

    def solve(
        self, cost: Array, whole: Sparse, low: Array, high: Array
    ) -> tuple[Array, Array] | None:
        """Responses (of all lower columns) and multipliers of all rows; None where some follower
        has none.

        ``whole`` holds the rows over the lower columns, bounds behind them, with ends ``low`` and
        ``high``.
        """
        count, q, p, m = self.shape
        A, G = self._dense(whole)
        c = np.zeros((count, q))
        c[self.member, self.place] = cost
        b = np.zeros((count, p))
        eq, tied = np.flatnonzero(self.equal), np.flatnonzero(~self.equal & (self.row_place >= 0))
        b[self.row_member[eq], self.row_place[eq]] = low[eq]
        at = self.row_member[tied], self.row_place[tied]
        below, above = np.full((count, m), -np.inf), np.full((count, m), np.inf)
        below[at], above[at] = low[tied], high[tied]
        try:
            found = solve(Programs(self.H, c, A, b, G, below, above), self.last)
        except np.linalg.LinAlgError:
            return None
        if not found.solved.all():
            return None
        self.last = np.sign(found.rows).astype(int)
        multipliers = np.zeros(low.size)
        multipliers[eq] = found.equations[self.row_member[eq], self.row_place[eq]]
        multipliers[tied] = found.rows[at]
        return found.y[self.member, self.place], multipliers

    def adjoint(self, whole: Sparse, held: Array, right: Array) -> tuple[Array, Array]:
        """``[H A'; A 0] [u; w] = [right; 0]`` with the rows marked in ``held``: u of all lower
        columns and w of all rows, a column each per column of ``right``.
        """
        count, q, _, _ = self.shape
        rows = np.flatnonzero(held)
        member, rank = self.row_member[rows], _ranks(self.row_member[rows])
        most = int(rank.max(initial=-1)) + 1
        C = np.zeros((count, most, q))
        entries = sp.csr_array(whole[rows]).tocoo()
        C[member[entries.row], rank[entries.row], self.place[entries.col]] = entries.data
        rhs = np.zeros((count, q + most, right.shape[1]))
        rhs[self.member, self.place] = right
        solved = saddle(self.H, C, rhs)
        w = np.zeros((held.size, right.shape[1]))
        w[rows] = solved[member, q + rank]
        return solved[self.member, self.place], w

    def _dense(self, whole: Sparse) -> tuple[Array, Array]:
        """A and G; made once for the same matrix."""
        if self._made is not None and self._made[0] is whole:
            return self._made[1], self._made[2]
        count, q, p, m = self.shape
        A, G = np.zeros((count, p, q)), np.zeros((count, m, q))
        entries = whole.tocoo()
        rows, columns, data = entries.row, entries.col, entries.data
        for target, chosen in ((A, self.equal[rows]), (G, ~self.equal[rows])):
            some = np.flatnonzero(chosen & (self.row_place[rows] >= 0))
            r = rows[some]
            target[self.row_member[r], self.row_place[r], self.place[columns[some]]] = data[some]
        self._made = (whole, A, G)
        return A, G


def _ranks(member: Array) -> Array:
    """The place of every entry among those of the same member, in order."""
    order = np.argsort(member, kind="stable")
    counts = np.bincount(member) if member.size else np.zeros(0, dtype=int)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.zeros(member.size, dtype=int)
    ranks[order] = np.arange(member.size) - first
    return ranks


def _padding(sizes: Array, q: int) -> Array:
    """Ones on the diagonal where a follower has fewer than q variables."""
    out = np.zeros((sizes.size, q, q))
    out[:, np.arange(q), np.arange(q)] = np.arange(q)[None, :] >= sizes[:, None]
    return out
