"""The worst of the best responses as a program of one level.

For followers that are linear or convex quadratic with rows affine in their variables, the best
responses at x are, with any one of them ``y``::

    S(x) = { z : rows of the followers at (x, z),  Q (z - y) = 0,  (c + C x)' (z - y) = 0 }

where ``f = z'Qz/2 + (c + Cx)'z``. The leader meets the worst of them, ``max F(x, z)`` over
``S(x)``, which for F concave in z has conditions of Karush, Kuhn and Tucker that need no
qualification.
With those of ``y`` they make one program: ``min F(x, z)`` under both (after Zeng 2020, who lets the
leader choose ``y``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.optimality.validity import least_eigenvalue
from bilevelpy.reductions.rows import Follower, Functions, Rows, System, join_rows
from bilevelpy.reductions.tables import free_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilevelpy.diagnostics import Span

Array = np.ndarray[Any, np.dtype[Any]]

NEITHER = "neither linear nor quadratic"


class Unfit(Exception):
    """A pessimistic leader that the reformulation does not cover, why, and the place of that."""

    def __init__(self, reason: str, span: Span | None = None) -> None:
        self.span = span
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Worst:
    """``program``: the single level. ``copies`` are the columns of the worst responses, in the
    order of ``System.lower_columns``.
    """

    program: KKT
    copies: Array

    def values(self, system: System, v: Array) -> Array:
        """Values of the given columns at a point of the program: the worst responses."""
        out = v[: system.columns.count].copy()
        out[system.lower_columns] = v[self.copies]
        return out


def worst_responses(system: System) -> Worst:
    """The program.

    Raises
    ------
    Unfit
        Where followers or leader are outside of what is covered; the reason is in words.
    Refused
        Where conditions would not be equivalent: a follower that is not convex, or F not concave in
        the responses.
    """
    _require_fit(system)
    first = kkt(system, "the pessimistic reading", optimistic=True)
    below = system.lower_columns
    base = first.columns.count
    width = base + below.size
    copies = base + np.arange(below.size)
    to = dict(zip(below.tolist(), copies.tolist(), strict=True))
    columns = first.columns.extended(
        [f"worst.{system.columns.names[j]}" for j in below],
        system.columns.lower[below],
        system.columns.upper[below],
        np.zeros(below.size, dtype=bool),
    )
    owner = np.zeros(width, dtype=np.int64)
    owner[copies] = 1
    columns = replace(columns, owner=owner)
    moved = _moved(system.objective.widened(width), to)
    lower = [r for r, kind in enumerate(first.kinds) if kind == "lower"]
    rows = first.rows.widened(width)
    copied = rows.take(lower)
    names = tuple(f"worst.{n}" for n in copied.names)
    copied = replace(copied, names=names, functions=_moved(copied.functions, to))
    own = join_rows([copied, _same_value(system, to, width)], width)
    own = replace(own, follower=np.ones(own.count, dtype=np.int64))
    leader = system.bound.program.upper
    follower = Follower(leader.name, "worst", 1.0, False, leader.span)
    upper = replace(rows, follower=np.zeros(rows.count, dtype=np.int64))
    second = kkt(
        System(
            system.bound, columns, system.sign, moved, upper, (follower,), moved.scaled(-1.0), own
        ),
        "the pessimistic reading",
        optimistic=True,
    )
    return Worst(replace(second, pairs=(*first.pairs, *second.pairs)), copies)


def _require_fit(system: System) -> None:
    columns, program = system.columns, system.bound.program
    for f in system.followers:
        if f.nash:
            raise Unfit("games have no worst equilibrium here", f.span)
    if bool((columns.owner == -1).any()):
        price = next((b.span for b in columns.blocks if b.is_dual), None)
        raise Unfit("shadow prices are the leader's choice", price)
    for j in np.flatnonzero(columns.integer & (columns.owner > 0)).tolist():
        block = columns.block_of(j)
        raise Unfit("a follower chooses whole numbers", block.span if block is not None else None)
    below = set(system.lower_columns.tolist())
    rows = system.upper_rows
    for r in range(rows.count):
        if rows.functions.reads(r) & below:
            reason = f"the leader's constraint `{rows.names[r]}` reads responses"
            raise Unfit(reason, rows.spans[r])
    q = system.objective.quadratic.get(0)
    if q is not None and least_eigenvalue(-q, system.lower_columns) < 0:
        raise Unfit("F is not concave in the responses", program.upper.objective.span)
    for k in system.lower_objectives.trees:
        follower = system.followers[k]
        span = program.level(follower.level).objective.span
        raise Unfit(f"`{follower.name}` has an objective that is {NEITHER}", span)
    if system.objective.trees:
        raise Unfit(f"F is {NEITHER}", program.upper.objective.span)
    curved = next(iter(_curved(system)), None)
    if curved is not None:
        rows = system.lower_rows
        reason = f"`{rows.names[curved]}` is not affine in the follower's variables"
        raise Unfit(reason, rows.spans[curved])


def _curved(system: System) -> list[int]:
    """The rows of followers that are not affine in their own variables, or no polynomials."""
    rows, owner = system.lower_rows, system.columns.owner
    found = list(rows.functions.trees)
    for r, q in rows.functions.quadratic.items():
        own = np.flatnonzero(owner == rows.follower[r])
        if q[own][:, own].nnz:
            found.append(r)
    return found


def _moved(functions: Functions, to: Mapping[int, int]) -> Functions:
    """The functions with other columns in place of some."""
    width = functions.linear.shape[1]
    place = np.arange(width)
    for j, k in to.items():
        place[j] = k
    shift = sp.csr_array((np.ones(width), (np.arange(width), place)), shape=(width, width))
    quadratic = {r: sp.csr_array(shift.T @ q @ shift) for r, q in functions.quadratic.items()}
    return Functions(functions.constant, sp.csr_array(functions.linear @ shift), quadratic)


def _same_value(system: System, to: Mapping[int, int], width: int) -> Rows:
    """``Q (z - y) = 0`` and ``(c + C x)' (z - y) = 0`` of every follower."""
    linear: list[tuple[int, int, float]] = []
    quadratic: dict[int, Any] = {}
    names: list[str] = []
    objectives = system.lower_objectives
    for k, follower in enumerate(system.followers):
        own = np.flatnonzero(system.columns.owner == k + 1)
        q = objectives.quadratic.get(k)
        if q is not None:
            for j in own:
                span = slice(q.indptr[j], q.indptr[j + 1])
                terms = [
                    (int(i), float(c))
                    for i, c in zip(q.indices[span], q.data[span], strict=True)
                    if i in to and system.columns.owner[i] == k + 1
                ]
                for i, c in terms:
                    linear += [(len(names), to[i], c), (len(names), i, -c)]
                if terms:
                    names.append(f"same.{system.columns.names[j]}")
        row = len(names)
        names.append(f"same.{follower.name}")
        costs = objectives.linear[[k]].toarray().reshape(-1)
        for j in own:
            if costs[j]:
                linear += [(row, to[int(j)], float(costs[j])), (row, int(j), -float(costs[j]))]
        if q is None:
            continue
        coo = q.tocoo()
        entries: list[tuple[int, int, float]] = []
        for i, j, c in zip(coo.row, coo.col, coo.data, strict=True):
            # x_i (z_j - y_j), symmetric
            if system.columns.owner[j] == k + 1 and system.columns.owner[i] != k + 1:
                for place, sign in ((to[int(j)], 1.0), (int(j), -1.0)):
                    entries += [(int(i), place, sign * c), (place, int(i), sign * c)]
        if entries:
            a, b, c_ = zip(*entries, strict=True)
            quadratic[row] = sp.csr_array((c_, (a, b)), shape=(width, width))
    count = len(names)
    data = ([t[2] for t in linear], ([t[0] for t in linear], [t[1] for t in linear]))
    functions = Functions(np.zeros(count), sp.csr_array(data, shape=(count, width)), quadratic)
    zero = np.zeros(count)
    return free_rows(names, functions, zero, zero, owner=1)
