"""Followers that fall apart: one whose objective is a sum over groups of its variables, with no row
that joins two groups, is as many followers as there are groups.

A best response of the whole is a best response of every part, so nothing changes but the size of
what has to be solved, and of what cuts and certificates say.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rows import Follower, Functions, System, join_functions
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = np.ndarray[Any, np.dtype[Any]]


def separate(system: System) -> System:
    """The same program with every follower split into its parts; games stay as they are.

    Variables that occur in no row and no objective go with the first part, and so do rows and
    terms that read the variables of others only.
    """
    if any(f.nash for f in system.followers):
        return system
    owner, rows_owner = system.columns.owner.copy(), system.lower_rows.follower.copy()
    followers: list[Follower] = []
    objectives: list[Functions] = []
    for k, follower in enumerate(system.followers):
        own = np.flatnonzero(system.columns.owner == k + 1)
        rows = np.flatnonzero(system.lower_rows.follower == k + 1)
        group = _groups(system, k, own, rows)
        count = int(group.max(initial=0)) + 1
        place = dict(zip(own.tolist(), group.tolist(), strict=True))
        first = len(followers) + 1
        owner[own] = first + group
        for r in rows:
            read = [place[j] for j in system.lower_rows.functions.reads(int(r)) if j in place]
            rows_owner[r] = first + (read[0] if read else 0)
        followers += [follower] * count
        whole = system.lower_objectives.take([k])
        objectives += [whole] if count == 1 else [_part(whole, place, g) for g in range(count)]
    if len(followers) == len(system.followers):
        return system
    return replace(
        system,
        columns=replace(system.columns, owner=owner),
        followers=tuple(followers),
        lower_objectives=join_functions(objectives, system.columns.count),
        lower_rows=replace(system.lower_rows, follower=rows_owner),
    )


def _groups(system: System, k: int, own: Array, rows: Array) -> Array:
    """The part that every own variable belongs to, from 0."""
    local = {int(j): n for n, j in enumerate(own)}
    edges: list[tuple[int, int]] = []
    seen: set[int] = set()

    def join(columns: Iterable[int]) -> None:
        check()
        found = [local[j] for j in columns if j in local]
        seen.update(found)
        edges.extend(pairwise(found))

    objective = system.lower_objectives
    if k in objective.trees:
        for term in _terms(objective.trees[k]):
            join(sorted(sc.columns([term])))
    if k in objective.quadratic:
        coo = objective.quadratic[k].tocoo()
        for i, j in zip(coo.row, coo.col, strict=True):
            join((int(i), int(j)))
    join_linear = objective.linear[[k]].indices
    seen.update(local[int(j)] for j in join_linear if int(j) in local)
    for r in rows:
        join(sorted(system.lower_rows.functions.reads(int(r))))
    size = own.size
    if not edges:
        matrix = sp.coo_array((size, size))
    else:
        i, j = zip(*edges, strict=True)
        matrix = sp.coo_array((np.ones(len(edges)), (i, j)), shape=(size, size))
    _, label = connected_components(matrix, directed=False)
    idle = [n for n in range(size) if n not in seen]
    if idle and len(idle) < size:
        label[idle] = label[min(seen)]
    # Numbered by their first variable.
    _, order, group = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(order.size, dtype=np.int64)
    rank[np.argsort(order)] = np.arange(order.size)
    return np.asarray(rank[group])


def _terms(tree: sc.Scalar) -> tuple[sc.Scalar, ...]:
    return tree.arguments if isinstance(tree, sc.Call) and tree.function == "add" else (tree,)


def _part(whole: Functions, place: dict[int, int], group: int) -> Functions:
    """The terms of an objective that read variables of a group; the first takes the rest too."""
    width = whole.linear.shape[1]

    def chosen(columns: Iterable[int]) -> bool:
        found = [place[j] for j in columns if j in place]
        return found[0] == group if found else group == 0

    keep = np.array([chosen([j]) for j in range(width)], dtype=float)
    linear = sp.csr_array(whole.linear * keep)
    linear.eliminate_zeros()
    constant = whole.constant if group == 0 else np.zeros(1)
    quadratic, trees = {}, {}
    if 0 in whole.quadratic:
        coo = whole.quadratic[0].tocoo()
        mask = np.array(
            [chosen((int(i), int(j))) for i, j in zip(coo.row, coo.col, strict=True)], dtype=bool
        )
        if mask.any():
            entries = (coo.data[mask], (coo.row[mask], coo.col[mask]))
            quadratic[0] = sp.csr_array(entries, shape=coo.shape)
    if 0 in whole.trees:
        terms = [t for t in _terms(whole.trees[0]) if chosen(sorted(sc.columns([t])))]
        if terms:
            trees[0] = sc.add(*terms)
    return Functions(constant, linear, quadratic, trees)
