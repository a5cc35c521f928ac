"""The least value of a quadratic lower objective over semidefinite matrices, by a conic solver.

For the certificate: Clarabel's interior-point method shares nothing with the Newton steps on faces
that backends take. With H and g the Hessian and gradient at any point z::

    min_y  (y - z)' H (y - z) / 2 + g' (y - z)
    s.t.   c(z) + J (y - z) <= 0 (or = 0),   y in the domain
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Solutions between these sizes, in the units of the program, are as accurate as the tolerances say.
ORDINARY = (1e-2, 1e3)
# The part of the size that data give a solution below which it counts as none.
NOTHING = 1e-6
# How often a program is posed in the units of its last solution.
PASSES = 4


@dataclass(frozen=True, slots=True)
class ConicPair:
    """The solver's own solution, not projected, and the multipliers of the rows.

    ``unit`` is what one of a row of length 1 costs for one of its slack in the units that the
    program was solved in: the larger of ``l`` and ``unit * slack`` says whether a row is tight.
    """

    y: Vec
    multipliers: Vec
    unit: float


def conic_response(oracle: Oracle, x: Vec, z: Vec) -> Vec | None:
    """The solution of the lower level, brought into its domain; None where the solver fails.

    f must be quadratic in y, rows affine. O(m^3): the Hessian is dense.
    """
    found = conic_pair(oracle, x, z)
    return None if found is None else oracle.domain_y.project(found.y)


def row_matrix(oracle: Any, x: Vec, y: Vec) -> tuple[Vec, Vec]:
    """The rows of the lower level and their Jacobian in y."""
    if not oracle.g.size:
        return y.new_zeros(0), y.new_zeros(0, y.numel())
    back = oracle.g.vjp(x, y)
    J = torch.stack([back(e)[1] for e in torch.eye(oracle.g.size, dtype=y.dtype)])
    return oracle.g.values(x, y), J


def conic_pair(oracle: Oracle, x: Vec, z: Vec) -> ConicPair | None:
    """What the solver ends with; None where it finds no solution.

    Its tolerances are absolute where numbers are below 1: a solution of another size is found once
    more in units of itself.
    """
    H = oracle.hessian(x, z).numpy()
    H = 0.5 * (H + H.T)
    cost = oracle.grad_f(x, z).numpy() - H @ z.numpy()
    a, b, cones, order = constraints(oracle, x, z)
    count = order.size
    steep, bent = (float(np.abs(v).max(initial=0.0)) for v in (cost, H))
    ends = float(np.abs(b).max(initial=0.0))
    natural = steep / bent if bent > 0.0 else ends
    size, unit = 1.0, 1.0
    best: tuple[Array, Array, float] | None = None
    for k in range(PASSES):
        found = _clarabel(H, cost, a, b, cones, size, unit)
        if found is not None:
            best = (*found, unit)
            # What is smaller than that by far is 0, and has no units.
            length = max(float(np.linalg.norm(found[0])), min(size, NOTHING * natural))
        elif k == 0:
            # Of another size than 1 by far, perhaps: the data say where to look.
            length = max(ends, natural)
        else:
            break
        if not 0.0 < length < math.inf or ORDINARY[0] <= length / size <= ORDINARY[1]:
            break
        size, unit = length, max(bent * length, steep) / length or 1.0
    if best is None:
        return None
    multipliers = torch.zeros(count, dtype=z.dtype)
    if count:
        multipliers[torch.from_numpy(order)] = torch.from_numpy(best[1][: order.size])
    return ConicPair(torch.from_numpy(best[0]), multipliers, best[2])


def constraints(oracle: Oracle, x: Vec, z: Vec) -> tuple[Any, Array, list[Any], Array]:
    """``b - A y`` in a product of cones says that y meets the rows (in this order, the last part;
    made affine at z) and its domain.
    """
    a, b, cones = cone_rows(oracle.domain_y)
    rows: Any = getattr(oracle, "g", None)
    if rows is None or not rows.size:
        return a, b, cones, np.zeros(0, dtype=np.int64)
    values, J = row_matrix(oracle, x, z)
    right = (J @ z - values).numpy()
    equal = np.flatnonzero(rows.equality.numpy())
    rest = np.flatnonzero(~rows.equality.numpy())
    order = np.concatenate([equal, rest])
    a = sp.csc_matrix(sp.vstack([sp.csc_matrix(J.numpy()[order]), a]))
    first = [clarabel.ZeroConeT(equal.size), clarabel.NonnegativeConeT(rest.size)]
    return a, np.concatenate([right[order], b]), [*first, *cones], order


def _clarabel(
    H: Array, cost: Array, a: Any, b: Array, cones: list[Any], size: float, unit: float
) -> tuple[Array, Array] | None:
    """y and the multipliers of all rows, where the program is posed in ``y / size`` and
    ``f / (unit size^2)``.
    """
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    upper = sp.triu(sp.csc_matrix(H / unit), format="csc")
    found = clarabel.DefaultSolver(
        upper, cost / (unit * size), a, b / size, cones, settings
    ).solve()
    y, multipliers = np.array(found.x) * size, np.array(found.z) * (unit * size)
    if str(found.status) not in ("Solved", "AlmostSolved") or not np.isfinite(y).all():
        return None
    return y, multipliers


def cone_rows(domain: ProductSet) -> tuple[Any, Array, list[Any]]:
    """``b - A y`` in a product of cones says that y lies in the domain."""
    m = domain.dim
    eye = sp.eye_array(m, format="csr")
    equations: list[tuple[Any, Array]] = []
    others: list[tuple[Any, Array, Any]] = []
    for block in domain.blocks:
        if block.kind == "simplex":
            ones = np.kron(np.eye(block.count), np.ones(block.size))
            rows = sp.csr_array(ones) @ eye[block.start : block.stop]
            equations.append((rows, np.ones(block.count)))
        elif block.kind == "psd" and block.side:
            for k in range(block.count):
                first = block.start + k * block.size
                same, triangle = _triangle(block.side, first, m)
                equations.append((same, np.zeros(same.shape[0])))
                cone = clarabel.PSDTriangleConeT(block.side)
                others.append((-triangle, np.zeros(triangle.shape[0]), cone))
        elif block.kind == "ball":
            others += _balls(block, eye)
    low, high = domain.lower.numpy().copy(), domain.upper.numpy().copy()
    for block in (*domain.matrices, *domain.balls):
        low[block.start : block.stop], high[block.start : block.stop] = -math.inf, math.inf
    for block in domain.simplices:
        high[block.start : block.stop] = math.inf
    up, down = np.flatnonzero(np.isfinite(high)), np.flatnonzero(np.isfinite(low))
    bounds = sp.vstack([eye[up], -eye[down]])
    others.insert(
        0,
        (
            bounds,
            np.concatenate([high[up], -low[down]]),
            clarabel.NonnegativeConeT(up.size + down.size),
        ),
    )
    total = sum(rows.shape[0] for rows, _ in equations)
    parts = [*(rows for rows, _ in equations), *(rows for rows, _, _ in others)]
    ends = [*(b for _, b in equations), *(b for _, b, _ in others)]
    cones = [clarabel.ZeroConeT(total), *(cone for _, _, cone in others)]
    return sp.csc_matrix(sp.vstack(parts)), np.concatenate(ends), cones


def _triangle(side: int, first: int, m: int) -> tuple[Any, Any]:
    """Rows that say ``Y_ij = Y_ji``, and those that take Clarabel's vector of a matrix: the upper
    triangle column by column, entries beside the diagonal times the root of 2.
    """
    at = first + np.arange(side * side).reshape(side, side)
    i, j = np.triu_indices(side, 1)
    k = np.arange(i.size)
    ones = np.ones(i.size)
    same = sp.csr_array(
        (np.r_[ones, -ones], (np.r_[k, k], np.r_[at[i, j], at[j, i]])), shape=(i.size, m)
    )
    columns = [(row, column) for column in range(side) for row in range(column + 1)]
    weight = [1.0 if row == column else math.sqrt(2.0) for row, column in columns]
    places = [int(at[row, column]) for row, column in columns]
    count = len(columns)
    triangle = sp.csr_array((weight, (np.arange(count), places)), shape=(count, m))
    return same, triangle


def _balls(block: Block, eye: Any) -> list[tuple[Any, Array, Any]]:
    """``(radius, y)`` in second-order cones."""
    assert block.radius is not None
    out = []
    for k, radius in enumerate(block.radius.tolist()):
        own = eye[block.start + k * block.size : block.start + (k + 1) * block.size]
        rows = sp.vstack([sp.csr_array((1, eye.shape[1])), -own])
        ends = np.zeros(block.size + 1)
        ends[0] = radius
        out.append((rows, ends, clarabel.SecondOrderConeT(block.size + 1)))
    return out
