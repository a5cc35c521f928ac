"""The leader's objective made convex by the followers' optimality conditions.

At every point that satisfies a follower's conditions, stationarity rows times their variables and
constraints times their multipliers are zero (``linear_objective``). Any combination of
these products may be added to F. Weights that make its Hessian positive semidefinite are a
semidefinite program::

    max t   s.t.   H + sum_k w_k Q_k - t I  >= 0,   t <= 1

With ``t >= 0`` branch and bound has complementarity to decide and nothing else. A leader who sells
``Q`` beside followers in Cournot competition, ``Q^2 + Q sum q_i - a Q``, is one: the sum of
``q_i (Q + q_i + sum q_j - a) = 0`` makes that convex. The idea is that of quadratic convex
reformulation (Billionnet, Elloumi, Lambert 2012).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.linearization.linear_objective import identities, objective_products
from bilevelpy.reductions.monomials import Terms, functions_of
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

Array = np.ndarray[Any, np.dtype[Any]]

# Columns and identities beyond which the semidefinite program takes longer than it is worth.
COLUMNS, IDENTITIES = 60, 400
# A Hessian counts as positive semidefinite up to this, relative to its largest entry.
ROUNDING = 1e-10
# What is left of a coefficient that is zero but for rounding, relative to the largest one.
GONE = 1e-11
# Weights are kept small where they do not matter.
REGULAR = 1e-6


def convex_objective(program: KKT) -> KKT:
    """The same program with a convex objective that agrees with the given one at every point that
    satisfies rows and pairs; the program itself where there is none, or where it is convex.
    """
    if program.objective.degree != 2:
        return program
    terms = objective_products(program)
    found = list(identities(program, {j for key in terms if len(key) == 2 for j in key}))
    everything = [terms, *found]
    columns = sorted({j for part in everything for key in part if len(key) == 2 for j in key})
    if not found or len(columns) > COLUMNS or len(found) > IDENTITIES:
        return program
    place = {j: n for n, j in enumerate(columns)}
    matrices = [_hessian(part, place) for part in everything]
    if _is_convex(matrices[0]):
        return program
    weights = _weights(matrices)
    if weights is None:
        return program
    total = dict(terms)
    for j, c in linear_terms(program.objective, 0):
        total[(j,)] = total.get((j,), 0.0) + c
    for weight, identity in zip(weights, found, strict=True):
        for key, c in identity.items():
            total[key] = total.get(key, 0.0) + weight * c
    size = max((abs(c) for c in total.values()), default=0.0)
    total = {key: c for key, c in total.items() if abs(c) > GONE * size}
    if not _is_convex(_hessian(total, place)):
        return program
    functions = functions_of([total], program.columns.count)
    return replace(program, objective=replace(functions, constant=program.objective.constant))


def _hessian(terms: Terms, place: dict[int, int]) -> Array:
    made = np.zeros((len(place), len(place)))
    for key, c in terms.items():
        if len(key) == 2:
            i, j = place[key[0]], place[key[1]]
            made[i, j] += c
            made[j, i] += c
    return made


def _is_convex(matrix: Array) -> bool:
    size = float(np.abs(matrix).max(initial=0.0))
    return not size or float(np.linalg.eigvalsh(matrix)[0]) >= -ROUNDING * size


def _weights(matrices: list[Array]) -> Array | None:
    """Weights of all matrices but the first whose sum with that is positive semidefinite."""
    scale = float(np.abs(matrices[0]).max())
    stack = np.array([m / scale for m in matrices])
    # A column without a square anywhere must not occur in a product; there is no interior else.
    inside = np.ones(stack.shape[1], dtype=bool)
    while True:
        squares = np.abs(stack[:, inside][:, :, inside]).diagonal(axis1=1, axis2=2)
        bare = ~(squares > 0.0).any(axis=0)
        if not bare.any():
            break
        inside[np.flatnonzero(inside)[bare]] = False
    outside = ~inside
    i, j = np.triu_indices(stack.shape[1])
    gone = outside[i] | outside[j]
    entries = stack[:, i, j][:, gone].T
    entries = entries[np.abs(entries).any(axis=1)]
    inner = stack[:, inside][:, :, inside]
    size, count = int(inside.sum()), len(matrices) - 1
    # Columns of the upper triangle, one after another, as Clarabel takes them.
    j, i = np.tril_indices(size)
    weight = np.where(i == j, 1.0, np.sqrt(2.0))
    triangles = (inner[:, i, j] * weight).T
    eye = np.where(i == j, 1.0, 0.0)[:, None]
    a = [np.hstack([entries[:, 1:], np.zeros((entries.shape[0], 1))])]
    a += [np.hstack([-triangles[:, 1:], eye]), np.eye(count + 1)[-1:]]
    b = np.concatenate([-entries[:, 0], triangles[:, 0], [1.0]])
    cones = [
        clarabel.ZeroConeT(entries.shape[0]),
        clarabel.PSDTriangleConeT(size),
        clarabel.NonnegativeConeT(1),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    quadratic = sp.csc_matrix(sp.diags(np.append(np.full(count, REGULAR), 0.0)))
    cost = np.append(np.zeros(count), -1.0)
    matrix = sp.csc_matrix(np.vstack(a))
    found = clarabel.DefaultSolver(quadratic, cost, matrix, b, cones, settings).solve()
    if str(found.status) not in ("Solved", "AlmostSolved"):
        return None
    solution = np.array(found.x)
    if solution[-1] < -1e-7:
        return None
    # The equations hold to a tolerance of the solver: the nearest weights for which they do.
    w = np.where(np.abs(solution[:-1]) > GONE * np.abs(solution[:-1]).max(), solution[:-1], 0.0)
    if entries.shape[0]:
        left = -entries[:, 0] - entries[:, 1:] @ w
        w = w + np.linalg.lstsq(entries[:, 1:], left, rcond=None)[0]
    return np.asarray(w)
