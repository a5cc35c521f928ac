"""Where the rows of a level that are affine in x and y can hold, by a conic solver.

    min |x - x0|^2 / 2   s.t.  C (x, y) + c <= 0 (or = 0),   x and y in their domains

What followers want does not enter. Its solution is the nearest x that leaves them a feasible point,
and where there is none, no x does: rows that are not affine are left out, so the program has all
points that the model has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.numerics.cones.semidefinite import cone_rows

Vec = torch.Tensor


@dataclass(frozen=True, slots=True)
class NearestFeasible:
    """The nearest x at which the rows can hold, if it was found; ``impossible`` where it is shown
    that there is none.
    """

    x: Vec | None
    impossible: bool


def derivatives(rows: Any, x: Vec, y: Vec) -> tuple[Vec, Vec, Vec]:
    """Rows at a point, and their derivatives in x and in y."""
    if not rows.size:
        return y.new_zeros(0), y.new_zeros(0, x.numel()), y.new_zeros(0, y.numel())
    return rows.values(x, y), *rows.jacobian(x, y)


def nearest_feasible(oracle: Any, x: Vec, *levels: Any) -> NearestFeasible:
    """The x nearest to ``x`` at which the affine rows of ``levels`` (``oracle.g``, ``oracle.G``)
    can hold.
    """
    x, y = oracle.domain_x.project(x), oracle.domain_y.project(oracle.y0)
    n, width = x.numel(), x.numel() + y.numel()
    sets = [cone_rows(d) for d in (oracle.domain_x, oracle.domain_y)]
    matrices = [sp.csr_array(sp.block_diag([sets[0][0], sets[1][0]]))]
    ends, cones = [sets[0][1], sets[1][1]], [*sets[0][2], *sets[1][2]]
    for rows in levels:
        values, C_x, C_y = derivatives(rows, x, y)
        C = torch.cat([C_x, C_y], 1)
        right = (C @ torch.cat([x, y]) - values).numpy()
        size = np.maximum(np.linalg.norm(C.numpy(), axis=1), 1e-300)
        affine, equal = rows.affine, rows.equality.numpy()
        for kind, which in (
            (clarabel.ZeroConeT, affine & equal),
            (clarabel.NonnegativeConeT, affine & ~equal),
        ):
            matrices.append(sp.csr_array(C.numpy()[which] / size[which][:, None]))
            ends.append(right[which] / size[which])
            cones.append(kind(int(which.sum())))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    near = np.concatenate([np.ones(n), np.zeros(width - n)])
    found = clarabel.DefaultSolver(
        sp.csc_matrix(sp.diags_array(near)), np.concatenate([-x.numpy(), np.zeros(width - n)]),
        sp.csc_matrix(sp.vstack(matrices)), np.concatenate(ends), cones, settings,
    ).solve()  # fmt: skip
    if str(found.status) not in ("Solved", "AlmostSolved"):
        return NearestFeasible(None, str(found.status) == "PrimalInfeasible")
    return NearestFeasible(oracle.domain_x.project(torch.from_numpy(np.array(found.x)[:n])), False)
