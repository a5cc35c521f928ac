"""Convex quadratic programs with two-sided rows: ``min v'Qv/2 + c'v``, ``low <= A v <= high``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class TwoSided:
    """The end of a run: Clarabel's own word for it, the point, and one multiplier a row, positive
    at its upper end and negative at its lower one.
    """

    status: str
    values: Array
    multipliers: Array

    @property
    def is_solved(self) -> bool:
        """Whether the point is a solution, or nearly one."""
        return self.status in ("Solved", "AlmostSolved")


def solve_two_sided(
    upper: Any, cost: Array, rows: Any, low: Array, high: Array, tol: float
) -> TwoSided:
    """Solve, to gaps and infeasibilities of ``tol``.

    ``upper`` (m, m) is the upper triangle of Q and ``rows`` (r, m) is A, both sparse; ends may be
    infinite, and rows with equal ends are equations.
    """
    equal = np.flatnonzero(low == high)
    up = np.flatnonzero(np.isfinite(high) & (low != high))
    down = np.flatnonzero(np.isfinite(low) & (low != high))
    rows = sp.csr_array(rows)
    a = sp.csc_matrix(sp.vstack([rows[equal], rows[up], -rows[down]]))
    b = np.concatenate([low[equal], high[up], -low[down]])
    cones = [clarabel.ZeroConeT(equal.size), clarabel.NonnegativeConeT(up.size + down.size)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
    found = clarabel.DefaultSolver(sp.csc_matrix(upper), cost, a, b, cones, settings).solve()
    z = np.array(found.z)
    multipliers = np.zeros(low.size)
    multipliers[equal] = z[: equal.size]
    multipliers[up] += z[equal.size : equal.size + up.size]
    multipliers[down] -= z[equal.size + up.size :]
    return TwoSided(str(found.status), np.array(found.x), multipliers)
