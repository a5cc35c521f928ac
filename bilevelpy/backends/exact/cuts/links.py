"""Cuts of interdiction at points where binaries are not whole.

Where every row of a follower that reads a leader's variable is one of a single own variable and a
single binary, ``a y_j + g x_i <= b``, one side of the binary takes ``y_j`` away, by a part ``h_j``
at a fractional x. The response that is worth most with what is left of its prices ::

    min_z  sum over j of p_j (1 - h_j) z_j     s.t.   the rows with the binaries on the other side

is that of the sharpest cut there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.backends.exact.responses.cut import Cut
    from bilevelpy.backends.exact.responses.followers import Followers
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Gap at which a response is worth most.
CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class Links:
    """Own columns with the binaries that take them away (and whether these go up), by follower; a
    point with all binaries on the other side.
    """

    taken: tuple[tuple[tuple[int, int, bool], ...], ...]
    harmless: Array
    # Followers with all that they have, whose prices change.
    _models: dict[int, Model] = field(default_factory=dict)

    @classmethod
    def of(cls, system: System) -> Links | None:
        """The links of all followers; None where a row is another one."""
        columns, rows = system.columns, system.lower_rows
        harmless = columns.start.copy()
        seen: dict[int, bool] = {}
        taken: list[list[tuple[int, int, bool]]] = [[] for _ in system.followers]
        for r in range(rows.count):
            k = int(rows.follower[r])
            terms = linear_terms(rows.functions, r)
            others = [(i, c) for i, c in terms if columns.owner[i] != k]
            if not others:
                continue
            if (
                len(others) > 1
                or len(terms) != 2
                or np.isfinite([rows.lower[r], rows.upper[r]]).all()
            ):
                return None
            (i, slope), (j, _) = others[0], next(t for t in terms if t[0] != others[0][0])
            up = (slope > 0.0) == bool(np.isfinite(rows.upper[r]))
            if seen.setdefault(i, up) != up:
                return None
            harmless[i] = 0.0 if up else 1.0
            taken[k - 1].append((j, i, up))
        return cls(tuple(tuple(t) for t in taken), harmless)

    def cuts(self, run: Followers, v: Array) -> list[Cut]:
        """The cut of every follower that is sharpest at a point, where it is solved."""
        found = []
        for k, taken in enumerate(self.taken):
            left = np.ones(v.size)
            for j, i, up in taken:
                left[j] *= min(max(1.0 - v[i] if up else v[i], 0.0), 1.0)
            objective = run.objective(k, self.harmless)
            if k not in self._models:
                self._models[k] = run.model(k, self.harmless)
            model = self._models[k]
            model.scip.freeTransform()
            linear = sp.csr_array(objective.linear @ sp.diags_array(left))
            model.minimize(replace(objective, linear=linear))
            answer = model.solve(replace(run.limits(), gap=CLOSE))
            if answer.values is not None:
                found.append(run.cut(k, answer.values[: v.size]))
        return found
