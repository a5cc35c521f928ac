"""Responses over semidefinite matrices with affine rows, where f is smooth and convex.

At a feasible z with a finite f the quadratic model of f is minimised within rows and cones by
Clarabel (:func:`~bilevelpy.numerics.cones.semidefinite.conic_pair`); a search goes from z towards
its solution w. Where the gradient of the model at w is that of f, w is the response: at once where
f is quadratic, by some steps of Newton's method where it is not. For ``-logdet(Y)``, which is
finite inside of the cone only, these converge from any inner point (Nesterov and Nemirovskii 1994).
"""

from __future__ import annotations

import math
from typing import Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.numerics.cones.semidefinite import ConicPair, conic_pair, constraints
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Newton steps, halvings of one, and the part of the predicted fall that it has to reach.
STEPS, HALVINGS, ARMIJO = 60, 40, 1e-4
# Where the model's gradient differs from that of f by this fraction of its parts, w is the
# response; up to the second one it counts where no step betters f.
EXACT, NEAR = 1e-11, 1e-7
# Rows may be off by this (relative to y) at a point that a search begins from.
FEASIBLE = 1e-9


def response_pair(oracle: Any, x: Vec, start: Vec | None) -> ConicPair | None:
    """The solution with the multipliers of the rows; None where there is none, or f is finite at no
    point inside of rows and cones that was found. Without ``start`` from such a point.
    """
    if start is not None and _is_finite(oracle, x, start):
        found = _from(oracle, x, start)
        if found is not None:
            return found
    deep = inside(oracle, x)
    return None if deep is None else _from(oracle, x, deep)


def _from(oracle: Any, x: Vec, z: Vec) -> ConicPair | None:
    held, last = _holds(oracle, x, z), math.inf
    for _ in range(STEPS):
        pair = conic_pair(oracle, x, z)
        if pair is None:
            return None
        w, f = pair.y, oracle.f(x, pair.y)
        off = _mismatch(oracle, x, z, w) if math.isfinite(f) else math.inf
        if off <= EXACT or (off <= NEAR and off >= last):
            return pair
        last = off
        if not held:
            # Rows have moved from under the start: the model's solution is where they are now.
            if not math.isfinite(off):
                return None
            z, held = w, True
            continue
        new = _search(oracle, x, z, w)
        if new is None:
            return pair if off <= NEAR else None
        z = new
    return None


def inside(oracle: Any, x: Vec) -> Vec | None:
    """A point that meets the rows, with the matrices as far inside of their cones as 1: where f is
    finite there; None else.
    """
    y0 = oracle.domain_y.project(oracle.y0)
    a, b, cones, _ = constraints(oracle, x, y0)
    depth = np.zeros(b.size)
    place = 0
    for cone in cones:
        side = int(cone.dim)
        if type(cone).__name__ == "PSDTriangleConeT":
            for k in range(side):
                depth[place + k * (k + 1) // 2 + k] = 1.0
            place += side * (side + 1) // 2
        else:
            place += side
    m = y0.numel()
    column = sp.csc_array(np.append(depth, 1.0)[:, None])
    wide = sp.vstack([sp.csc_array(a), sp.csc_array((1, m))])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    found = clarabel.DefaultSolver(
        sp.csc_matrix((m + 1, m + 1)), np.append(np.zeros(m), -1.0),
        sp.csc_matrix(sp.hstack([wide, column])), np.append(b, 1.0),
        [*cones, clarabel.NonnegativeConeT(1)], settings,
    ).solve()  # fmt: skip
    if str(found.status) not in ("Solved", "AlmostSolved"):
        return None
    y = torch.from_numpy(np.array(found.x)[:m])
    return y if _is_finite(oracle, x, y) else None


def _search(oracle: Any, x: Vec, z: Vec, w: Vec) -> Vec | None:
    """A point on the way from z to w with a smaller f; None where there is none."""
    f, g = oracle.value_grad_f(x, z)
    slope = float(g @ (w - z))
    length = 1.0
    for _ in range(HALVINGS):
        new = z + length * (w - z)
        value = oracle.f(x, new)
        if math.isfinite(value) and value < f and value <= f + ARMIJO * length * slope:
            return new
        length *= 0.5
    return None


def _mismatch(oracle: Any, x: Vec, z: Vec, w: Vec) -> float:
    """How far the gradient of f at w is from that of the model made at z, relative to its parts."""
    g, bent, there = oracle.grad_f(x, z), oracle.hvp(x, z)(w - z), oracle.grad_f(x, w)
    if not bool(torch.isfinite(there).all()):
        return math.inf
    parts = norm(g) + norm(oracle.hvp(x, z)(z)) + norm(there)
    return norm(there - g - bent) / max(parts, 1e-300)


def _is_finite(oracle: Any, x: Vec, y: Vec) -> bool:
    f, g = oracle.value_grad_f(x, y)
    return math.isfinite(f) and bool(torch.isfinite(g).all())


def _holds(oracle: Any, x: Vec, y: Vec) -> bool:
    off = float(oracle.g.violation(x, y).max()) if oracle.g.size else 0.0
    return bool(max(off, oracle.domain_y.violation(y)) <= FEASIBLE * max(norm(y), 1.0))
