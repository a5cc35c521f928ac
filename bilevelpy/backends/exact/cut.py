"""A cut from a follower's response.

For a response ``z`` of the follower every bilevel feasible point satisfies::

    f(x, y) <= f(x, z)    or    z breaks a row of the follower at x

``z`` may move with x, as long as it is affine: rows that are tight along it leave no way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.fixing import fix, mapped
from bilevelpy.reductions.rows import Functions

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


def placed(
    functions: Functions, own: Array, response: Array, slopes: Sparse | None = None
) -> Functions:
    """The functions with a follower's own columns at ``response + slopes @ v``; only the others
    still move.
    """
    width = own.size
    move = sp.diags_array(np.where(own, 0.0, 1.0)).tocsr()
    base = np.where(own, response, 0.0)
    if slopes is not None:
        move = sp.csr_array(move + slopes)
        functions = _moved(functions, response, slopes)
    fixed = fix(functions, np.flatnonzero(~own), response)
    constant = fixed.constant + fixed.linear @ base
    linear = sp.csr_array(fixed.linear @ move).tolil()
    quadratic = {}
    for r, q in fixed.quadratic.items():
        constant[r] += 0.5 * float(base @ (q @ base))
        linear[[r], :] = linear[[r], :].toarray() + (move.T @ (q @ base)).reshape(1, width)
        kept = sp.csr_array(move.T @ q @ move)
        kept.eliminate_zeros()
        if kept.nnz:
            quadratic[r] = kept
    rows = linear.tocsr()
    rows.eliminate_zeros()
    return Functions(constant, rows, quadratic, fixed.trees)


def _moved(functions: Functions, response: Array, slopes: Sparse) -> Functions:
    """Trees with the response, as it moves, in place of the columns that move."""
    moves: dict[int, sc.Scalar] = {}
    for j in np.flatnonzero(np.diff(slopes.indptr)):
        span = slice(slopes.indptr[j], slopes.indptr[j + 1])
        terms = zip(slopes.indices[span], slopes.data[span], strict=True)
        parts = [sc.mul(sc.Num(float(c)), sc.Col(int(i))) for i, c in terms]
        moves[int(j)] = sc.add(*parts, sc.Num(float(response[j])))
    trees = {
        r: mapped(tree, lambda c: moves.get(c.index, c)) for r, tree in functions.trees.items()
    }
    return Functions(functions.constant, functions.linear, functions.quadratic, trees)
