"""Rows in x that the rows of the lower level imply, found where no y meets them.

For rows ``c(x, y) = a(x) + A y`` and an x at which no y of its domain meets them, the least
violation has multipliers l >= 0 (of any sign at equations) with::

    min_t,y  t   s.t.  c(x, y) <= t s,  y in its domain        p(x) = min_y l'c(x, y) > 0

All x that leave the followers a feasible point have ``p(x) <= 0``: on such rows optima lie that
stop at the edge of what followers can meet (J. F. Benders, Numerische Mathematik 4, 1962). With A
constant the least y is the same for every x, and p as smooth as a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import linprog

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Violations below this fraction of a row's terms are rounding; multipliers leave so much of the
# columns of free variables, relative to their largest entry.
MET, LEFT = 1e-9, 1e-8
# The accuracy of the linear program.
FINE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """``p(x) = l'c(x, y)``, whose y is the best for every x."""

    weights: Vec
    y: Vec

    def value(self, oracle: Any, x: Vec) -> float:
        """p; above 0 no y meets the rows."""
        return float(self.weights @ oracle.g.values(x, self.y))

    def slope(self, oracle: Any, x: Vec) -> Vec:
        """dp/dx."""
        found: Vec = oracle.g.vjp(x, self.y)(self.weights)[0]
        return found


def cut_at(oracle: Any, x: Vec) -> Cut | None:
    """The row that x breaks; None where some y meets the rows, or A moves with x."""
    g, domain = oracle.g, oracle.domain_y
    if not g.size or not domain.is_nearly_box:
        return None
    still = torch.zeros(oracle.m, dtype=torch.float64)
    matrix, moves = g.jacobian_y(x, still)
    if moves:
        return None
    A, a, equal = matrix.numpy(), g.values(x, still).numpy(), g.equality.numpy()
    size = np.maximum(np.abs(A).max(axis=1, initial=0.0), 1e-300)
    A, a = A / size[:, None], a / size
    both = np.concatenate([A, -A[equal]])
    sums = domain.sums()
    low, high = domain.lower.numpy(), domain.upper.numpy()
    found = linprog(
        np.concatenate([np.zeros(oracle.m), [1.0]]),
        A_ub=sp.csr_array(np.hstack([both, np.full((len(both), 1), -1.0)])),
        b_ub=np.concatenate([-a, a[equal]]),
        A_eq=sp.csr_array(np.hstack([sums, np.zeros((len(sums), 1))])) if len(sums) else None,
        b_eq=np.ones(len(sums)) if len(sums) else None,
        bounds=[*zip(low, high, strict=True), (0.0, None)],
        method="highs",
        options={"primal_feasibility_tolerance": FINE, "dual_feasibility_tolerance": FINE},
    )
    if found.status != 0 or found.fun <= MET * (1.0 + float(np.abs(a).max())):
        return None
    push = -np.asarray(found.ineqlin.marginals)
    weights = push[: len(A)].copy()
    weights[equal] -= push[len(A) :]
    y = _least(A.T @ weights, domain, LEFT * float(np.abs(weights).max(initial=0.0)))
    if y is None:
        return None
    cut = Cut(torch.from_numpy(weights / size), torch.from_numpy(y))
    return cut if cut.value(oracle, x) > 0.0 else None


def _least(slope: Array, domain: Any, rounding: float) -> Array | None:
    """The y of the domain with the least ``slope'y``; None where there is none."""
    low, high = domain.lower.numpy(), domain.upper.numpy()
    slope = np.where(np.abs(slope) <= rounding, 0.0, slope)
    y = np.where(slope > 0, low, np.where(slope < 0, high, np.clip(0.0, low, high)))
    for block in domain.simplices:
        for k in range(block.count):
            first = block.start + k * block.size
            part = slice(first, first + block.size)
            y[part] = 0.0
            y[first + int(slope[part].argmin())] = 1.0
    return y if np.isfinite(y).all() else None
