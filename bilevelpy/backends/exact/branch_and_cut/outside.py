"""Nodes of a tree outside of sets that have no bilevel feasible point.

A vertex of the relaxation that lies within such a set (:mod:`intersection`) is cut off, or its node
is split into the parts outside: one for each row that the response of the set breaks, where it
breaks no row before, and one for f (Wang and Xu 2017: branching on responses, not on variables)::

    A_1 x + B_1 z > b_1   or   ( ... <= b_1  and  A_2 x + B_2 z > b_2 )   or   ...
    or   f(x, y) <= f(x, z)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.cuts.intersection import INSIDE, Cone
from bilevelpy.backends.exact.engine.expressions import engine

if TYPE_CHECKING:
    from bilevelpy.backends.exact.cuts.directions import Directions
    from bilevelpy.backends.exact.cuts.intersection import FreeSet
    from bilevelpy.backends.exact.engine.scip import Model

Array = np.ndarray[Any, np.dtype[Any]]

# Rounds of cuts at the root and at other nodes, cuts in each, and by how much a vertex is off.
ROOT, ELSEWHERE, AT_ONCE, EFFECT = 200, 10, 3, 1e-4
# Sets that are tried at a vertex: those that it is deepest inside of.
DEEPEST = 8
# Norms of slopes below this are none.
TINY = 1e-9


@dataclass(slots=True)
class Outside:
    """The sets in hand, and what leaves them out; the first ``width`` variables of the model are
    the columns.
    """

    model: Model
    width: int
    # Those of directions, which are known from the beginning.
    directions: Sequence[Directions] = ()
    sets: list[FreeSet] = field(default_factory=list)
    # Slopes and ends of all of them, divided by the norms.
    _slopes: list[Array] = field(default_factory=list)
    _ends: list[Array] = field(default_factory=list)
    # Columns by the pointers of their variables, once SCIP has transformed these.
    _places: dict[int, int] = field(default_factory=dict)
    # The node that cuts were made at last, and how often.
    _node: tuple[int, int] = (-1, 0)

    def add(self, one: FreeSet) -> None:
        """One more set."""
        self.sets.append(one)
        norms = np.maximum(np.linalg.norm(one.slopes, axis=1), TINY)
        self._slopes.append(one.slopes / norms[:, None])
        self._ends.append(one.ends / norms)

    def around(self, v: Array, depth: float = INSIDE) -> list[FreeSet]:
        """The sets that a point is deepest inside of."""
        if not self.sets:
            return []
        starts = np.cumsum([0, *(len(e) for e in self._ends[:-1])])
        room = np.concatenate(self._ends) - np.concatenate(self._slopes) @ v
        depths = np.minimum.reduceat(room, starts)
        order = np.argsort(-depths, kind="stable")[:DEEPEST]
        return [self.sets[n] for n in order if depths[n] > depth]

    def _along(self, v: Array, depth: float = INSIDE) -> list[FreeSet]:
        return [one for d in self.directions for one in d.around(v, depth)]

    def cut(self, v: Array) -> str:
        """Intersection cuts at the vertex of the linear program: "separated", "cutoff" where a set
        holds the whole cone, else "none", also where the node has had its rounds.
        """
        inside = self.around(v) + self._along(v)
        if not inside or not self._is_early():
            return "none"
        scip = self.model.scip
        if not self._places:
            columns = self.model.variables[: self.width]
            self._places = {scip.getTransformedVar(x).ptr(): j for j, x in enumerate(columns)}
        cone = Cone.of(scip, self._places)
        if cone is None:
            return "none"
        made = [row for row in (cone.cut(one, v) for one in inside) if row is not None]
        if any(not row.variables for row in made):
            return "cutoff"
        made = sorted((row for row in made if row.depth > EFFECT), key=lambda row: -row.depth)
        for row in made[:AT_ONCE]:
            row.write(scip)
        return "separated" if made else "none"

    def _is_early(self) -> bool:
        """Whether the point of this node may still be cut off: so often, then it is split."""
        number = int(self.model.scip.getCurrentNode().getNumber())
        count = self._node[1] + 1 if number == self._node[0] else 1
        self._node = number, count
        return count <= (ROOT if number == 1 else ELSEWHERE)

    def split(self, v: Array, depth: float = INSIDE) -> str:
        """Children outside of the set that the point is deepest inside of, one of a direction where
        there is one: "branched", or "none" where there is no such set.
        """
        around = self._along(v, depth) or self.around(v, depth)
        if not around:
            return "none"
        inside, scip, columns = around[0], self.model.scip, self.model.variables
        sums = [
            engine().quicksum(float(row[j]) * columns[j] for j in np.flatnonzero(row))
            for row in inside.slopes
        ]
        order = [*range(1, len(sums)), 0]
        estimate = scip.getLocalEstimate()
        for n, p in enumerate(order):
            node = scip.createChild(0.0, estimate)
            scip.addConsNode(node, sums[p] >= float(inside.ends[p]))
            for q in order[:n]:
                scip.addConsNode(node, sums[q] <= float(inside.ends[q] - inside.steps[q]))
        return "branched"
