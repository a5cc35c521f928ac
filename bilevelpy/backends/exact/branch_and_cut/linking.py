"""What followers read of the leader, and whether one tree takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.cuts.links import Links

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]


def linking(system: System) -> Array:
    """The columns of the leader that followers read in their rows."""
    rows = system.lower_rows
    reads = {j for r in range(rows.count) for j in rows.functions.reads(r)}
    return np.array(sorted(j for j in reads if system.columns.owner[j] == 0), dtype=np.int64)


def has_tree(system: System) -> bool:
    """Whether followers are linear, decide whole numbers, those in finite ranges, and read of
    others whole numbers of the leader in finite ranges only, in rows.
    """
    columns, rows, objectives = system.columns, system.lower_rows, system.lower_objectives
    if any(f.nash for f in system.followers) or bool((columns.owner == -1).any()):
        return False
    if rows.functions.degree > 1 or objectives.degree > 1:
        return False
    own, read = system.lower_columns, linking(system)
    if not read.size or not columns.integer[read].all() or not columns.integer[own].any():
        return False
    whole = np.concatenate([read, own[columns.integer[own]]])
    if not np.isfinite([columns.lower[whole], columns.upper[whole]]).all():
        return False
    return all(
        columns.owner[j] in (0, rows.follower[r])
        for r in range(rows.count)
        for j in rows.functions.reads(r)
    )


def is_linked(system: System) -> bool:
    """Whether the leader decides binaries that take variables of the followers away one by one."""
    read = linking(system)
    low, high = system.columns.lower[read], system.columns.upper[read]
    return bool((low >= 0.0).all() and (high <= 1.0).all()) and Links.of(system) is not None
