"""Rows of a pessimistic leader that read responses: all best responses have to meet them.

At a given x that is one more question of each row, ``max { G_r(x, y) : y a best response } <= 0``,
as it is with F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions, Rows

Array = np.ndarray[Any, np.dtype[Any]]

# Rows hold at a response that is off by this (relative to their ends).
MET = 1e-6


@dataclass(frozen=True, slots=True)
class Demand:
    """``function <= end`` for all best responses, ``row`` of the leader, to within ``room``."""

    row: int
    function: Functions
    end: float
    room: float


def demands_of(rows: Rows, upper: Array, own: Array) -> list[Demand]:
    """Of the leader's rows (those that are ``upper``) that read more than her ``own`` columns."""
    mine, made = set(own.tolist()), []
    for r in np.flatnonzero(upper).tolist():
        if rows.functions.reads(r) <= mine:
            continue
        function = rows.functions.take([r])
        for sign, end in ((1.0, float(rows.upper[r])), (-1.0, -float(rows.lower[r]))):
            if math.isfinite(end):
                room = MET * max(1.0, abs(end))
                made.append(Demand(r, function.scaled(sign), end, room))
    return made


def without(rows: Rows, demands: list[Demand]) -> Rows:
    """The rows without the ends that are asked of all best responses."""
    lower, upper = rows.lower.copy(), rows.upper.copy()
    chosen = [d.row for d in demands]
    lower[chosen], upper[chosen] = -math.inf, math.inf
    return replace(rows, lower=lower, upper=upper)
