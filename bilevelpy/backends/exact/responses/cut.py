"""A cut from a follower's response.

For a response ``z`` of the follower every bilevel feasible point satisfies::

    f(x, y) <= f(x, z)    or    z breaks a row of the follower at x

``z`` may move with x, as long as it is affine: rows that are tight along it leave no way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.reductions.polynomial import Sparse

Array = np.ndarray[Any, np.dtype[Any]]

# Responses as good as that of a cut meet it with this to spare: SCIP loses points that meet a row
# by nothing, or by less than twice its tolerance, and a tie is where the leader's choice lies. As
# for cuts of a vertex (:mod:`intersection`), whole numbers divide it to no value at that tolerance.
ROOM = 2.03e-8


@dataclass(frozen=True, slots=True)
class Cut:
    """A response of follower k, and by how much the objective at another one may be above that at
    this one. The own columns are at ``response + slopes @ v`` (those of others do not matter), and
    the follower's rows ``tight`` (counted among its own) hold there at every x.
    """

    follower: int
    response: Array
    room: float = ROOM
    slopes: Sparse | None = None
    tight: frozenset[int] = frozenset()

    def is_same(self, other: Cut, own: Array, within: float) -> bool:
        """Whether both are the same response everywhere."""
        if self.follower != other.follower:
            return False
        if not np.allclose(self.response[own], other.response[own], rtol=0.0, atol=within):
            return False
        parts = [c.slopes for c in (self, other) if c.slopes is not None]
        if len(parts) == 2:
            return bool(abs(parts[0] - parts[1]).max() <= within)
        return not parts or bool(abs(parts[0]).max() <= within)
