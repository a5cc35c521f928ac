"""One-level programs with complementarity: what ``kkt`` makes of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.columns import Columns
from bilevelpy.reductions.rows import Functions, Rows, System

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Pair:
    """``0 <= columns[multiplier]`` and ``0 <= slack``, one of them zero.

    The slack is ``upper - value`` or ``value - lower`` (``side``) of ``KKT.rows[row]`` or, where
    ``row`` is None, of the variable ``column``. ``name`` is that of the row or variable.
    """

    name: str
    multiplier: int
    side: str
    row: int | None = None
    column: int | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class KKT:
    """The program ``min objective`` under ``rows``, bounds of ``columns``, and ``pairs``.

    ``columns`` are those of ``system`` followed by the multipliers. ``rows`` holds, in this order
    and marked in ``kinds``: "upper" rows (with lower rows that were moved), "lower" rows,
    "stationarity" (equations, ``stationary[k]`` is the column of the k-th), "price" (equations that
    tie shadow prices to multipliers). ``equations`` are the pairs' counterpart for equations and
    fixed variables: a free multiplier and no slack. ``warnings`` say what was let through by force.
    """

    system: System
    columns: Columns
    objective: Functions
    rows: Rows
    kinds: tuple[str, ...]
    pairs: tuple[Pair, ...]
    stationary: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    equations: tuple[Pair, ...] = ()

    @property
    def degree(self) -> int:
        """1 where everything but the pairs is linear, 2 quadratic, 3 other."""
        return max(self.objective.degree, self.rows.functions.degree)

    @property
    def multipliers(self) -> range:
        """The columns that are multipliers."""
        return range(self.system.columns.count, self.columns.count)

    def slack(self, pair: Pair, v: Array) -> float:
        """The slack of a pair at a point."""
        if pair.row is None:
            assert pair.column is not None
            value, low, high = v[pair.column], self.columns.lower, self.columns.upper
            place = pair.column
        else:
            value = self.rows.functions.at(pair.row, v)
            low, high, place = self.rows.lower, self.rows.upper, pair.row
        return float(high[place] - value if pair.side == "upper" else value - low[place])
