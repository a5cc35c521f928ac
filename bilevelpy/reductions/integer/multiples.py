"""Followers with best responses that are whole multiples of a number: flows, assignments, paths.

The vertices of ``L <= A y <= U``, ``l <= y <= u`` are multiples of ``g`` where ``A`` is totally
unimodular and all ends are multiples of ``g`` (Hoffman and Kruskal 1956). A matrix with entries -1,
0 and 1 is, where

* every column (or every row) has two entries at most, and its rows (columns) fall into two classes
  such that two entries of equal sign lie in different classes, two of opposite signs in the same
  one: incidence matrices of networks, transport, assignment (Heller and Tompkins 1956), or
* the entries are 0 and 1, and the ones of every column (or row) follow each other: intervals.

Rows and columns with a single entry change nothing. A leader whose F is linear in ``y`` for fixed
other variables, and whose rows do not read ``y``, has a best choice among best responses that is a
vertex, unless F falls for ever along them (``reductions.integer.vertices``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.integer.vertices import at_vertices

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]

# Ends are multiples of a number up to this (relative), and not of one smaller than that part of
# the largest: a grid so fine describes nothing.
ROUNDING, FINEST = 1e-9, 1e-4


@dataclass(frozen=True, slots=True)
class Multiples:
    """Responses ``y`` (``columns``) are whole multiples of ``unit``, from ``low`` to ``high``."""

    columns: Array
    unit: float
    low: Array
    high: Array


def whole_responses(system: System, k: int, foreign: Array) -> Multiples | None:
    """Of what the best responses of follower k (from 0) that a leader picks are multiples; None
    where nothing is known. ``foreign`` is ``read_by_others``.
    """
    columns, rows = system.columns, system.lower_rows
    own = np.flatnonzero(columns.owner == k + 1)
    mine = np.flatnonzero(rows.follower == k + 1)
    if not own.size or bool(foreign[own].any()):
        return None
    if not _is_linear_follower(system, k, own) or not picks(system, own):
        return None
    functions = rows.functions
    if any(r in functions.quadratic or r in functions.trees for r in mine.tolist()):
        return None
    whole = sp.csr_array(functions.linear[mine])
    matrix = sp.csr_array(whole[:, own])
    if (whole != 0).sum() != (matrix != 0).sum():
        return None  # a row moves with the variables of others
    scaled = unit_rows(matrix)
    if scaled is None:
        return None
    matrix, size = scaled
    low, high = rows.lower[mine] / size, rows.upper[mine] / size
    low, high = np.where(size < 0, high, low), np.where(size < 0, low, high)
    lower, upper = columns.lower[own], columns.upper[own]
    ends = np.concatenate([low, high, lower, upper])
    unit = common_unit(ends[np.isfinite(ends)])
    if unit is None or not is_unimodular(matrix) or not at_vertices(system, k):
        return None
    most = _largest(matrix, low, high, lower, upper)
    return Multiples(own, unit, np.maximum(lower, -most), np.minimum(upper, most))


def _is_linear_follower(system: System, k: int, own: Array) -> bool:
    """Whether the objective is linear in the follower's variables, and these are continuous."""
    objectives, columns = system.lower_objectives, system.columns
    if k in objectives.trees or bool(columns.integer[own].any()) or system.followers[k].nash:
        return False
    q = objectives.quadratic.get(k)
    return q is None or not q[own][:, own].nnz


def read_by_others(system: System) -> Array:
    """Which columns a row or an objective reads that is not of the follower that chooses them (F
    does not count).
    """
    owner = system.columns.owner
    found = np.zeros(system.columns.count, dtype=bool)

    def read(functions: Functions, row: int, by: int) -> None:
        columns = np.fromiter(functions.reads(row), dtype=np.int64)
        found[columns[owner[columns] != by]] = True

    for k in range(len(system.followers)):
        read(system.lower_objectives, k, k + 1)
    for rows in (system.upper_rows, system.lower_rows):
        for r in range(rows.count):
            read(rows.functions, r, int(rows.follower[r]))
    return found


def picks(system: System, own: Array) -> bool:
    """Whether F is linear in ``own`` for fixed others."""
    if system.objective.trees:
        return False
    q = system.objective.quadratic.get(0)
    return q is None or not q[own][:, own].nnz


def unit_rows(matrix: Any) -> tuple[Any, Array] | None:
    """Rows divided by the size of their entries, and these sizes; None where a row has several."""
    count = matrix.shape[0]
    matrix = sp.csr_array(matrix)
    matrix.eliminate_zeros()
    size = np.ones(count)
    for r in range(count):
        data = np.abs(matrix.data[matrix.indptr[r] : matrix.indptr[r + 1]])
        if data.size:
            size[r] = data[0]
            if float(np.abs(data - data[0]).max()) > ROUNDING * data[0]:
                return None
    scaled = sp.csr_array(sp.diags_array(1.0 / size) @ matrix)
    scaled.data = np.round(scaled.data)
    return scaled, size


def common_unit(values: Array) -> float | None:
    """The greatest number of which all values are multiples; None where it is tiny or there are
    only zeros.
    """
    sizes = np.unique(np.abs(values[values != 0.0]))
    if not sizes.size:
        return None
    largest = float(sizes[-1])
    unit = float(sizes[0])
    for value in sizes[1:].tolist():
        rest = float(value)
        while rest > ROUNDING * largest:
            unit, rest = rest, unit % rest
            if rest > 0.0 and unit - rest <= ROUNDING * largest:
                rest = 0.0
        if unit < FINEST * largest:
            return None
    # Rounding adds up along the way: the largest value says what the unit is.
    unit = largest / round(largest / unit)
    off = np.abs(sizes / unit - np.round(sizes / unit))
    return unit if float(off.max()) <= 1e-6 else None


def is_unimodular(matrix: Any) -> bool:
    """Whether a matrix of -1, 0, 1 is known to be totally unimodular, by the tests above."""
    core = _without_singles(sp.csr_array(matrix))
    if not core.nnz:
        return True
    return any(_has_two_classes(m) or _has_intervals(m) for m in (core, sp.csr_array(core.T)))


def _without_singles(matrix: Any) -> Any:
    """Without rows and columns that have one entry, again and again."""
    while matrix.nnz:
        rows = np.flatnonzero(np.diff(matrix.indptr) > 1)
        matrix = sp.csr_array(matrix[rows])
        count = np.bincount(matrix.indices, minlength=matrix.shape[1])
        columns = np.flatnonzero(count > 1)
        if columns.size == matrix.shape[1] and bool((np.diff(matrix.indptr) > 1).all()):
            return matrix
        matrix = sp.csr_array(matrix[:, columns])
    return matrix


def _has_two_classes(matrix: Any) -> bool:
    """Columns of two entries, rows of two classes; the classes are a spanning forest's colours."""
    columns = sp.csc_array(matrix)
    if int(np.diff(columns.indptr).max(initial=0)) > 2:
        return False
    neighbours: list[list[tuple[int, bool]]] = [[] for _ in range(matrix.shape[0])]
    for j in range(columns.shape[1]):
        span = slice(columns.indptr[j], columns.indptr[j + 1])
        if span.stop - span.start == 2:
            (a, b), (c, d) = columns.indices[span].tolist(), columns.data[span].tolist()
            other = c * d > 0
            neighbours[a].append((b, other))
            neighbours[b].append((a, other))
    colour = np.full(matrix.shape[0], -1)
    for first in range(matrix.shape[0]):
        if colour[first] >= 0:
            continue
        colour[first], stack = 0, [first]
        while stack:
            a = stack.pop()
            for b, other in neighbours[a]:
                wanted = 1 - colour[a] if other else colour[a]
                if colour[b] < 0:
                    colour[b] = wanted
                    stack.append(b)
                elif colour[b] != wanted:
                    return False
    return True


def _has_intervals(matrix: Any) -> bool:
    """Whether the ones of every row stand side by side, in the given order of columns."""
    matrix = sp.csr_array(matrix)
    if bool((matrix.data < 0).any()):
        return False
    for r in range(matrix.shape[0]):
        places = matrix.indices[matrix.indptr[r] : matrix.indptr[r + 1]]
        if places.size and int(places.max() - places.min()) != places.size - 1:
            return False
    return True


def _largest(matrix: Any, low: Array, high: Array, lower: Array, upper: Array) -> float:
    """A bound of ``|y_j|`` at every vertex: entries of inverses of bases are -1, 0 or 1.

    Where flow is conserved (every column adds up to 0 over equations, other rows have one entry),
    a vertex is the sum of paths from what supplies to what takes: unit columns of their ends leave
    the matrix totally unimodular.
    """
    sides = np.maximum(
        np.where(np.isfinite(low), np.abs(low), 0.0), np.where(np.isfinite(high), np.abs(high), 0.0)
    )
    held = np.maximum(
        np.where(np.isfinite(lower), np.abs(lower), 0.0),
        np.where(np.isfinite(upper), np.abs(upper), 0.0),
    )
    equal = low == high
    flow = sp.csr_array(matrix[np.flatnonzero(equal)])
    balanced = flow.shape[0] > 0 and not bool(np.asarray(flow.sum(axis=0)).reshape(-1).any())
    total = float(sides.sum() + held.sum())
    single = bool((np.diff(sp.csr_array(matrix[np.flatnonzero(~equal)]).indptr) <= 1).all())
    if balanced and single and bool((np.diff(sp.csc_array(flow).indptr) == 2).all()):
        b = low[equal]
        supply = max(float(b[b > 0].sum()), float(-b[b < 0].sum()))
        total = supply + float(sides[~equal].sum() + held.sum())
    return total
