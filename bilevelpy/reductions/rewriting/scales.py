"""Units of columns and rows in which coefficients are of the size 1, whatever the model's units.

A coefficient ``a`` of the monomial ``v_i v_j`` in row r becomes ``a s_i s_j / R_r``. The logarithms
``c_j = log10 s_j`` and ``rho_r = log10 R_r`` are the least squares solution of ::

    log10 |a| + c_i + c_j - rho_r = 0    for every coefficient,
    log10 |b| - rho_r = 0                for every end of a row,
    log10 |u| - c_j = 0                  for every bound of a column (but for endless ones)

(Curtis and Reid 1972). It is the same in all units: a model in EUR and one in kEUR become one.
Powers of 10 near 1 are left out, so that what is written in ordinary units stays as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from bilevelpy.reductions.trees import quadratic_terms
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# Coefficients, ends and bounds between these are ordinary: nothing is scaled.
SMALLEST, LARGEST = 5e-4, 5e3
# Logarithms up to this count as 0, and the weight with which those of columns want to be 0.
ORDINARY, PULL = 1.5, 1e-3
# Entries of one variable or constraint that differ by no more than this (log10) get one unit.
SPREAD = 2.0
# Bounds from this on say that there is none, and nothing about the unit of a variable.
ENDLESS = 1e7
# Coefficients below this fraction of the largest of their function are rounding, not units.
NOISE = 1e-12


def is_ordinary(system: System) -> bool:
    """Whether all coefficients, ends and bounds are of an ordinary size. The leader's objective
    says nothing here: no multiplier has its units, and its large terms would make others flat.
    """
    columns, rows = system.columns, (system.upper_rows, system.lower_rows)
    free = ~columns.integer & (columns.owner >= 0)
    bounds = (columns.lower[free], columns.upper[free])
    parts = [b[np.abs(b) < ENDLESS] for b in bounds]
    parts += [end for part in rows for end in (part.lower, part.upper)]
    for functions in (system.lower_objectives, *(r.functions for r in rows)):
        parts += [_told(functions.linear.data)]
        parts += [_told(q.data) for q in functions.quadratic.values()]
    sizes = np.abs(np.concatenate(parts))
    known = sizes[np.isfinite(sizes) & (sizes > 0.0)]
    return not known.size or bool(known.min() >= SMALLEST and known.max() <= LARGEST)


def column_scales(system: System) -> Array:
    """Powers of 10, one a column; 1 for whole numbers and shadow prices."""
    columns = system.columns
    parts = _entries(system)
    fixed = columns.integer | (columns.owner < 0)
    count = 1 + max((r for r, _, _ in parts), default=-1)
    logs = _least_squares(system, parts, fixed, count)
    blocks = [np.arange(b.offset, b.offset + b.size) for b in columns.blocks if not b.is_dual]
    return np.where(fixed, 1.0, 10.0 ** _rounded(_together(logs, blocks)))


def row_scales_of(rows: Rows) -> Array:
    """Powers of 10, one a row: the middle of the sizes of its coefficients and ends."""
    found = np.zeros(rows.count)
    for r in range(rows.count):
        if r in rows.functions.trees:
            continue
        sizes = [a for _, a in _coefficients(rows.functions, r)]
        sizes += [abs(float(e)) for e in {rows.lower[r], rows.upper[r]} if math.isfinite(e)]
        logs = [math.log10(a) for a in sizes if a > 0.0]
        found[r] = sum(logs) / len(logs) if logs else 0.0
    of: dict[tuple[str, str], list[int]] = {}
    for r, origin in enumerate(rows.origin):
        if origin is not None:
            of.setdefault(origin[:2], []).append(r)
    return np.asarray(10.0 ** _rounded(_together(found, [np.array(g) for g in of.values()])))


def _together(logs: Array, groups: list[Array]) -> Array:
    """One number for what is declared together and about alike: matrices of -1, 0 and 1 stay so."""
    found = logs.copy()
    for group in groups:
        if group.size and float(np.ptp(logs[group])) <= SPREAD:
            found[group] = logs[group].mean()
    return found


def _rounded(logs: Array) -> Array:
    return np.where(np.abs(logs) <= ORDINARY, 0.0, np.round(logs))


def _coefficients(functions: Functions, row: int) -> list[tuple[tuple[int, ...], float]]:
    """(columns, size) of the monomials of a function. Products say nothing about units beside the
    squares of both variables, where these are no smaller: entries of a kernel fall to nothing.
    """
    check()
    linear = functions.linear
    span = slice(linear.indptr[row], linear.indptr[row + 1])
    pairs = zip(linear.indices[span].tolist(), linear.data[span].tolist(), strict=True)
    found: list[tuple[tuple[int, ...], float]] = [((j,), abs(c)) for j, c in pairs if c]
    products = quadratic_terms(functions, row)
    square = {i: abs(c) for i, j, c in products if i == j}
    for i, j, c in products:
        told = i != j and c * c <= 4.0 * square.get(i, 0.0) * square.get(j, 0.0)
        if c and not told:
            found.append(((i, j), abs(c)))
    least = NOISE * max((a for _, a in found), default=0.0)
    return [(key, a) for key, a in found if a > least]


def _told(coefficients: Array) -> Array:
    """Those that are more than rounding beside the others."""
    sizes = np.abs(coefficients)
    return np.asarray(sizes[sizes > NOISE * sizes.max(initial=0.0)])


def _entries(system: System) -> list[tuple[int, tuple[int, ...], float]]:
    """(row, columns, size) of every coefficient and every end; rows are numbered through."""
    made: list[tuple[int, tuple[int, ...], float]] = []
    objectives = system.lower_objectives
    for r in range(objectives.count):
        made += [(r, key, a) for key, a in _coefficients(objectives, r)]
    first = objectives.count
    for rows in (system.upper_rows, system.lower_rows):
        for r in range(rows.count):
            made += [(first + r, key, a) for key, a in _coefficients(rows.functions, r)]
            if r not in rows.functions.trees:
                ends = {abs(float(rows.lower[r])), abs(float(rows.upper[r]))}
                made += [(first + r, (), e) for e in ends if e and math.isfinite(e)]
        first += rows.count
    return made


def _least_squares(
    system: System, parts: list[tuple[int, tuple[int, ...], float]], fixed: Array, count: int
) -> Array:
    """The logarithms of the columns' units."""
    columns = system.columns
    width = columns.count
    places: list[tuple[int, int, float]] = []
    right: list[float] = []
    prices = columns.owner < 0

    def equation(c: tuple[int, ...], rho: int | None, value: float) -> None:
        n = len(right)
        places.extend((n, j, 1.0) for j in c if not fixed[j])
        if rho is not None:
            places.append((n, width + rho, -1.0))
        right.append(value)

    for row, key, a in parts:
        check()
        if not any(prices[j] for j in key):
            equation(key, row, -math.log10(a))
    for ends in (columns.lower, columns.upper):
        for j in np.flatnonzero((np.abs(ends) < ENDLESS) & (ends != 0.0) & ~fixed):
            equation((int(j),), None, math.log10(abs(float(ends[j]))))
    entries = ([p[2] for p in places], ([p[0] for p in places], [p[1] for p in places]))
    m = sp.csr_array(entries, shape=(len(right), width + count))
    pull = np.concatenate([np.full(width, PULL), np.full(count, 1e-6 * PULL)])
    normal = m.T @ m + sp.diags_array(pull)
    return np.asarray(splu(sp.csc_matrix(normal)).solve(m.T @ np.array(right)))[:width]
