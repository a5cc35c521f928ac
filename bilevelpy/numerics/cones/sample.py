"""F and the rows of the upper level along the responses of a semidefinite follower."""

from __future__ import annotations

import math
from typing import Any

import torch

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.response import along_response, solve_conic
from bilevelpy.numerics.cones.sequential import Kinds, Sample
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Multipliers below this fraction of the largest are weakly active.
WEAK = 1e-6


def sample(oracle: Any, x: Vec, y: Vec) -> Sample | None:
    """Everything at the response to x; ``y`` is where derivatives are taken first. None where there
    is no response.
    """
    found = solve_conic(oracle, x, y)
    if found is None or not found.lower.usable:
        return None
    y = found.lower.y
    F, F_x, F_y = oracle.value_grad_F(x, y)
    rows, C_x, C_y = derivatives(oracle.G, x, y)
    total = along_response(oracle, x, found, torch.cat([F_y[None], C_y]))
    if not (math.isfinite(F) and bool(torch.isfinite(total).all())):
        return None
    prices = found.multipliers[found.active & ~oracle.g.equality]
    top = max(float(found.multipliers.abs().max()) if found.multipliers.numel() else 0.0, 1e-12)
    weak = found.lower.face.weak > 0 or bool((prices <= WEAK * top).any())
    parts = norm(F_x) + norm(total[0])
    own, heights = (torch.linalg.vector_norm(C, dim=1) for C in (C_x, C_y))
    return Sample(
        x, y, F, F_x + total[0], rows, C_x + total[1:], own, norm(y) * heights, parts,
        found.lower.residual, weak,
    )  # fmt: skip


def kinds(oracle: Any) -> Kinds:
    """The kinds of the upper rows: equations, and those that are affine in x alone."""
    _, _, C_y = derivatives(oracle.G, oracle.x0, oracle.y0)
    plain = oracle.G.affine & ~C_y.numpy().any(axis=1)
    return Kinds(oracle.G.equality.numpy(), plain)


def names(oracle: Any) -> list[str]:
    """The name of every upper row."""
    return [p.constraint.name for p in oracle.G.rows for _ in range(p.stop - p.start)]
