"""The quadratic program of one sequential step, over a product of cones.

With F and rows c along the responses at x, their derivatives g and C, and a matrix B::

    min_d,s   max_i g_i'd + mu 1's + d'B d / 2     s.t.  c + C_i d <= s,  x + d in the domain

for the derivatives i at one point or at several ones around a kink (F. E. Curtis, M. L. Overton,
SIAM J. Optim. 22, 2012). Rows ``plain`` are affine in x alone and hold without s; equations are two
inequalities. All is in units of ``extent`` for x, of ``parts`` for g, and of the rows' own slopes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.numerics.cones.semidefinite import cone_rows
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Of the conic solver; the finest one that it reaches is taken.
TOLERANCES = (1e-11, 1e-9, 1e-7)
# Slopes of rows along the responses below this fraction of their terms are none.
STILL = 1e-3


@dataclass(frozen=True, slots=True)
class Sample:
    """F, rows and their derivatives at x along the response y, whose own ``residual`` is left;
    ``weak``: it has a kink there. ``own`` are the lengths of the rows' derivatives in x alone,
    ``heights`` those in y times that of y.
    """

    x: Vec
    y: Vec
    F: float
    slope: Vec
    rows: Vec
    slopes: Vec
    own: Vec
    heights: Vec
    parts: float
    residual: float
    weak: bool


@dataclass(frozen=True, slots=True)
class Units:
    """The scales of a problem: a length of x, the size of F's derivative, and those of the rows."""

    extent: float
    parts: float
    rows: Array

    @property
    def value(self) -> float:
        """A change of F that counts."""
        return self.extent * self.parts


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which rows are equations, and which are affine in x alone."""

    equality: Array
    plain: Array


@dataclass(frozen=True, slots=True)
class Step:
    """The solution: d, the multipliers of the rows, the predicted change of F, what rows are left
    violated by (sum and each), in the units of the program.
    """

    d: Array
    multipliers: Array
    fall: float
    left: Array

    @property
    def length(self) -> float:
        """Of d, in units of the extent."""
        return float(np.linalg.norm(self.d))


def violations(rows: Array, equality: Array) -> Array:
    """How far each row is from holding."""
    return np.where(equality, np.abs(rows), np.maximum(rows, 0.0))


def units_of(sample: Sample, domain: ProductSet, x0: Vec) -> Units:
    """Scales at the start: a tenth of bounded domains, else the size of x or of its start."""
    width = domain.upper - domain.lower
    finite = width[torch.isfinite(width)]
    extent = max(norm(sample.x), norm(x0), 0.1 * norm(finite)) or 1.0
    lengths = torch.linalg.vector_norm(sample.slopes, dim=1)
    size = torch.maximum(sample.own, sample.heights / extent).clamp(min=1e-300)
    # A row that does not move here may move elsewhere.
    rows = torch.where(lengths > STILL * size, lengths, size).numpy()
    return Units(extent, sample.parts or 1.0, rows)


def step_program(
    samples: Sequence[Sample],
    domain: ProductSet,
    kinds: Kinds,
    units: Units,
    B: Array,
    mu: float,
    rows: Array | None = None,
) -> Step | None:
    """Solve the program at ``samples[0]``; ``rows`` stand in for its values (second-order
    corrections). None where the solver fails.
    """
    here, n, t = samples[0], samples[0].x.numel(), units.extent
    a, b, cones = cone_rows(domain)
    domain_rows = (-(a @ here.x.numpy()) + b) / t
    values = (here.rows.numpy() if rows is None else rows) / (units.rows * t)
    p, elastic = values.size, np.flatnonzero(~kinds.plain)
    # Columns: d, the greatest of g_i'd, s.
    width = n + 1 + elastic.size
    parts: list[Any] = [_wide(a, width)]
    ends: list[Array] = [domain_rows]
    plain_equal = np.flatnonzero(kinds.plain & kinds.equality)
    C = here.slopes.numpy() / units.rows[:, None]
    parts.append(_wide(sp.csr_array(C[plain_equal]), width))
    ends.append(-values[plain_equal])
    up, down = elastic, np.flatnonzero(~kinds.plain & kinds.equality)
    place = np.full(p, -1)
    place[elastic] = n + 1 + np.arange(elastic.size)
    blocks: list[tuple[Array, float, int]] = [
        (np.flatnonzero(kinds.plain & ~kinds.equality), 1.0, 0)
    ]
    for i in range(len(samples)):
        blocks += [(up, 1.0, i), (down, -1.0, i)]
    owners: list[tuple[Array, float]] = []
    for index, sign, i in blocks:
        slopes = samples[i].slopes.numpy()[index] / units.rows[index][:, None]
        block = np.zeros((index.size, width))
        block[:, :n] = sign * slopes
        soft = place[index] >= 0
        block[np.flatnonzero(soft), place[index][soft]] = -1.0
        parts.append(sp.csr_array(block))
        ends.append(-sign * values[index])
        owners.append((index, sign))
    slopes_F = np.stack([s.slope.numpy() for s in samples]) / units.parts
    parts.append(sp.csr_array(np.hstack([slopes_F, _column(len(samples), width - n)])))
    ends.append(np.zeros(len(samples)))
    parts.append(_negative(n + 1, elastic.size, width))
    ends.append(np.zeros(elastic.size))
    total = sum(part.shape[0] for part in parts[2:])
    cones = [*cones, clarabel.ZeroConeT(plain_equal.size), clarabel.NonnegativeConeT(total)]
    P = np.zeros((width, width))
    P[:n, :n] = B
    cost = np.concatenate([np.zeros(n), [1.0], np.full(elastic.size, mu)])
    found = _solved(P, cost, sp.csc_matrix(sp.vstack(parts)), np.concatenate(ends), cones)
    if found is None:
        return None
    w, z = found
    multipliers = np.zeros(p)
    at = domain_rows.size
    multipliers[plain_equal] = z[at : at + plain_equal.size]
    at += plain_equal.size
    for index, sign in owners:
        multipliers[index] += sign * z[at : at + index.size]
        at += index.size
    left = np.zeros(p)
    left[elastic] = np.maximum(w[n + 1 :], 0.0)
    return Step(w[:n], multipliers, float(w[n]), left)


def _solved(
    P: Array, cost: Array, rows: Any, ends: Array, cones: list[Any]
) -> tuple[Array, Array] | None:
    """Solution and multipliers, to the finest tolerance that the solver reaches."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for tol in TOLERANCES:
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
        top = sp.csc_matrix(np.triu(P))
        found = clarabel.DefaultSolver(top, cost, rows, ends, cones, settings).solve()
        if str(found.status) in ("Solved", "AlmostSolved"):
            w, z = np.array(found.x), np.array(found.z)
            return (w, z) if np.isfinite(w).all() and np.isfinite(z).all() else None
    return None


def nearest(x: Vec, domain: ProductSet, kinds: Kinds, values: Array, slopes: Array) -> Vec | None:
    """The point of the domain nearest to x at which the plain rows hold, ``values + slopes d <= 0``
    at x + d; None where a conic solver shows that there is none.
    """
    plain = np.flatnonzero(kinds.plain)
    size = np.maximum(np.linalg.norm(slopes[plain], axis=1), 1e-300)
    a, b, cones = cone_rows(domain)
    equal = kinds.equality[plain]
    C, c = sp.csr_array(slopes[plain] / size[:, None]), values[plain] / size
    matrix = sp.csc_matrix(sp.vstack([a, C[np.flatnonzero(equal)], C[np.flatnonzero(~equal)]]))
    ends = np.concatenate([b - a @ x.numpy(), -c[equal], -c[~equal]])
    cones = [
        *cones,
        clarabel.ZeroConeT(int(equal.sum())),
        clarabel.NonnegativeConeT(int((~equal).sum())),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    found = clarabel.DefaultSolver(
        sp.eye_array(x.numel(), format="csc"), np.zeros(x.numel()), matrix, ends, cones, settings
    ).solve()
    if str(found.status) in ("PrimalInfeasible", "AlmostPrimalInfeasible"):
        return None
    return domain.project(x + torch.from_numpy(np.array(found.x)))


def merit(F: float, rows: Array, kinds: Kinds, units: Units, mu: float) -> float:
    """``F / (parts extent) + mu sum of violations``, the rows in units of their slopes."""
    off = violations(rows, kinds.equality) / (units.rows * units.extent)
    total = F / units.value + mu * float(off.sum())
    return total if math.isfinite(total) else math.inf


def _wide(matrix: Any, width: int) -> Any:
    """A matrix with columns of zeros behind its own."""
    zeros = sp.csr_array((matrix.shape[0], width - matrix.shape[1]))
    return sp.csr_array(sp.hstack([sp.csr_array(matrix), zeros]))


def _column(count: int, width: int) -> Array:
    block = np.zeros((count, width))
    block[:, 0] = -1.0
    return block


def _negative(first: int, count: int, width: int) -> Any:
    at = (np.arange(count), first + np.arange(count))
    return sp.csr_array((-np.ones(count), at), shape=(count, width))
