"""F and the rows of the upper level along the responses of a semidefinite follower."""

from __future__ import annotations

import math
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.analysis.feasible import nonaffine
from bilevelpy.analysis.form import Forms
from bilevelpy.analysis.scope import make_scope, names_of
from bilevelpy.numerics.conic import along_response, solve_conic
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.semidefinite import cone_rows
from bilevelpy.numerics.sequential import Kinds, Sample

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

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
    rows, C_x, C_y = derivatives(oracle, x, y)
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


def derivatives(oracle: Any, x: Vec, y: Vec) -> tuple[Vec, Vec, Vec]:
    """The upper rows at a point, and their derivatives in x and in y."""
    back = oracle.G.vjp(x, y)
    pairs = [back(e) for e in torch.eye(oracle.G.size, dtype=y.dtype)]
    return (
        oracle.G.values(x, y),
        torch.stack([p[0] for p in pairs]),
        torch.stack([p[1] for p in pairs]),
    )


def kinds(oracle: Any) -> tuple[Kinds, Array]:
    """The kinds of the upper rows, and which of them are affine in x and y together (proved from
    their text).
    """
    program = oracle.bound.program
    roots = [t for c in program.upper.constraints for t in c.terms]
    both = names_of((program.upper,)) | names_of(program.lowers)
    forms = Forms(make_scope(oracle.bound, roots, both, frozenset()))
    curved = {c.name for c in nonaffine(forms, (program.upper,))}
    affine = np.zeros(oracle.G.size, dtype=bool)
    for part in oracle.G.rows:
        affine[part.start : part.stop] = part.constraint.name not in curved
    _, _, C_y = derivatives(oracle, oracle.x0, oracle.y0)
    plain = affine & ~C_y.numpy().any(axis=1)
    return Kinds(oracle.G.equality.numpy(), plain), affine


def names(oracle: Any) -> list[str]:
    """The name of every upper row."""
    return [p.constraint.name for p in oracle.G.rows for _ in range(p.stop - p.start)]


def impossible(oracle: Any, affine: Array) -> bool:
    """Whether a conic solver shows that no x and y of their domains meet the affine upper rows,
    whatever the lower level wants.
    """
    x, y = oracle.domain_x.project(oracle.x0), oracle.domain_y.project(oracle.y0)
    values, C_x, C_y = derivatives(oracle, x, y)
    C = torch.cat([C_x, C_y], 1)
    ends = (C @ torch.cat([x, y]) - values).numpy()
    sets = [cone_rows(d) for d in (oracle.domain_x, oracle.domain_y)]
    equal = oracle.G.equality.numpy()
    picked = [np.flatnonzero(affine & equal), np.flatnonzero(affine & ~equal)]
    size = np.maximum(np.linalg.norm(C.numpy(), axis=1), 1e-300)
    rows = [sp.csr_array(C.numpy()[i] / size[i][:, None]) for i in picked]
    matrix = sp.csc_matrix(sp.vstack([sp.block_diag([sets[0][0], sets[1][0]]), *rows]))
    right = np.concatenate([sets[0][1], sets[1][1], *(ends[i] / size[i] for i in picked)])
    own = [clarabel.ZeroConeT(picked[0].size), clarabel.NonnegativeConeT(picked[1].size)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    width = C.shape[1]
    found = clarabel.DefaultSolver(
        sp.csc_matrix((width, width)), np.zeros(width), matrix, right,
        [*sets[0][2], *sets[1][2], *own], settings,
    ).solve()  # fmt: skip
    return str(found.status) == "PrimalInfeasible"
