"""Convex quadratic programs over cones, with a bound that does not read the solver's own numbers.

    min_v  v'H v / 2 + q'v   s.t.  s = b - A v in K

For multipliers z in the dual cone of K and any feasible w, convexity says with
``r = H v + q + A'z``::

    f(w) >= f(v) - z's + r'(w - v)

so the value at v is at most ``z's + |r| |w - v|`` too high. Clarabel finds v and z; that z lies in
its cone, r and ``z's`` are computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp

Array = np.ndarray[Any, np.dtype[Any]]

# Solutions between these sizes, in the units of the program, are as accurate as tolerances say;
# how often a program is posed in the units of its last solution.
ORDINARY, PASSES = (1e-2, 1e3), 4
SHARP = 1e-10


@dataclass(frozen=True, slots=True)
class ConeAnswer:
    """``status``: "solved", "infeasible", "unbounded", "time_limit" or "trouble". ``gap`` is what v
    may be too high by, ``outside`` how far z leaves its cone (relative to its length).
    """

    status: str
    v: Array
    multipliers: Array
    gap: float = math.inf
    outside: float = math.inf


@dataclass(frozen=True, slots=True)
class ConeProgram:
    """The data of the program; ``cones`` are those of Clarabel, in the order of the rows."""

    H: Any
    q: Array
    A: Any
    b: Array
    cones: list[Any]

    def value(self, v: Array) -> float:
        """The objective at a point."""
        return float(0.5 * v @ (self.H @ v) + self.q @ v)

    def solve(self, seconds: float) -> ConeAnswer:
        """The best point, in units in which its size is near 1."""
        status, found = self._posed(1.0, 1.0, seconds)
        bent = float(np.abs(self.H).max()) if self.H.nnz else 0.0
        steep, ends = (float(np.abs(part).max(initial=0.0)) for part in (self.q, self.b))
        best, size = found, 1.0
        for _ in range(PASSES - 1):
            length = float(np.linalg.norm(best[0])) if best is not None else ends
            if status in ("infeasible", "unbounded") or not 0.0 < length < math.inf:
                break
            if best is not None and ORDINARY[0] <= length / size <= ORDINARY[1]:
                break
            size, unit = length, max(bent * length, steep) / length or 1.0
            again, found = self._posed(size, unit, seconds)
            if found is None:
                break
            status, best = again, found
        if best is None:
            nothing = np.full(self.q.size, math.nan)
            return ConeAnswer(status, nothing, np.zeros(self.b.size))
        v, z = best
        return ConeAnswer(status, v, z, self._gap(v, z), outside(z, self.cones))

    def _posed(
        self, size: float, unit: float, seconds: float
    ) -> tuple[str, tuple[Array, Array] | None]:
        """The program in ``v / size`` and ``f / (unit size^2)``."""
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = SHARP
        settings.time_limit = max(seconds, 1e-2)
        found = clarabel.DefaultSolver(
            sp.triu(sp.csc_matrix(self.H / unit), format="csc"),
            self.q / (unit * size),
            sp.csc_matrix(self.A),
            self.b / size,
            self.cones,
            settings,
        ).solve()
        said = str(found.status)
        status = _STATUS.get(said, "trouble")
        v, z = np.array(found.x) * size, np.array(found.z) * (unit * size)
        fine = status in ("solved", "time_limit") and np.isfinite(v).all() and np.isfinite(z).all()
        return status, (v, z) if fine else None

    def _gap(self, v: Array, z: Array) -> float:
        slack = self.b - self.A @ v
        rest = self.H @ v + self.q + self.A.T @ z
        return abs(float(z @ slack)) + float(np.linalg.norm(rest) * (1.0 + np.linalg.norm(v)))


_STATUS = {
    "Solved": "solved",
    "AlmostSolved": "solved",
    "PrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "MaxTime": "time_limit",
}


def outside(z: Array, cones: list[Any]) -> float:
    """How far z leaves the dual of the product of cones, relative to its length."""
    worst, start = 0.0, 0
    for cone in cones:
        kind = type(cone).__name__
        if kind == "PSDTriangleConeT":
            side = int(cone.dim)
            count = side * (side + 1) // 2
            matrix = np.zeros((side, side))
            rows = [(i, j) for j in range(side) for i in range(j + 1)]
            for value, (i, j) in zip(z[start : start + count], rows, strict=True):
                matrix[i, j] = matrix[j, i] = value if i == j else value / math.sqrt(2.0)
            worst = max(worst, -float(np.linalg.eigvalsh(matrix)[0])) if side else worst
        else:
            count = int(cone.dim)
            part = z[start : start + count]
            if kind == "NonnegativeConeT":
                worst = max(worst, -float(part.min(initial=0.0)))
            elif kind == "SecondOrderConeT":
                worst = max(worst, float(np.linalg.norm(part[1:]) - part[0]))
        start += count
    return worst / max(float(np.linalg.norm(z)), 1e-300)
