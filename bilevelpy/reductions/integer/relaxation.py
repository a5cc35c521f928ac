"""Whole followers whose best responses in real numbers are whole: flows, paths, assignments.

At whole x the rows ``A y <= b - B x`` of a follower have whole ends where ``B`` and ``b`` are, and
with a totally unimodular ``A`` all vertices of his best responses are whole (Hoffman and Kruskal
1956). A leader whose F is linear in ``y``, and whose rows do not read ``y``, is as well off among
his real best responses as among the whole ones: those are vertices, and F has its least (and its
greatest) value at one of them. A follower in real numbers has conditions, and no cuts are needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir.walk import duals
from bilevelpy.reductions.integer.multiples import (
    ROUNDING,
    is_unimodular,
    picks,
    read_by_others,
    unit_rows,
)

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]


def in_real_numbers(system: System) -> System:
    """The program with real numbers for the whole ones of every follower of this kind; the given
    one where there is none.
    """
    columns = system.columns
    whole = columns.integer & (columns.owner > 0)
    reports = [r.value for r in system.bound.program.reports.values()]
    # Whole followers have no prices: whoever asks for some is refused elsewhere.
    if not whole.any() or bool((columns.owner == -1).any()) or duals(reports):
        return system
    foreign, integer = read_by_others(system), columns.integer.copy()
    for k in range(len(system.followers)):
        own = np.flatnonzero(columns.owner == k + 1)
        if whole[own].any() and not foreign[own].any() and _is_whole(system, k, own):
            integer[own] = False
    if (integer == columns.integer).all():
        return system
    return replace(system, columns=replace(columns, integer=integer))


def _is_whole(system: System, k: int, own: Array) -> bool:
    """Whether vertices of the responses are whole at every whole x, and F picks one of them."""
    columns, rows, objectives = system.columns, system.lower_rows, system.lower_objectives
    curved = objectives.quadratic.get(k)
    if system.followers[k].nash or k in objectives.trees or not picks(system, own):
        return False
    if curved is not None and curved[own][:, own].nnz:
        return False
    mine = np.flatnonzero(rows.follower == k + 1)
    f = rows.functions
    if any(r in f.quadratic or r in f.trees for r in mine.tolist()):
        return False
    everything = sp.csr_array(f.linear[mine])
    scaled = unit_rows(sp.csr_array(everything[:, own]))
    if scaled is None:
        return False
    matrix, size = scaled
    others = sp.csr_array(sp.diags_array(1.0 / size) @ everything).tocoo()
    read = ~np.isin(others.col, own) & (others.data != 0.0)
    if not columns.integer[others.col[read]].all():
        return False
    ends = [(end[mine] - f.constant[mine]) / size for end in (rows.lower, rows.upper)]
    bounds = [columns.lower[own], columns.upper[own]]
    numbers = np.concatenate([*ends, *bounds, others.data[read]])
    numbers = numbers[np.isfinite(numbers)]
    off = np.abs(numbers - np.round(numbers)) > ROUNDING * np.maximum(1.0, np.abs(numbers))
    return not bool(off.any()) and is_unimodular(matrix)
