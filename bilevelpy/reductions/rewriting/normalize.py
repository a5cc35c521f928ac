"""Variables, rows and objectives in units of their own: absolute tolerances of an engine mean the
same then, whatever units a model is written in.

SCIP lets every row be off by an absolute 1e-6. A follower whose objective is written with
coefficients of that size has stationarity rows that hold at any response, and a variable in watts
where others are in gigawatts makes multipliers of 1e9. Columns and rows are therefore divided by
powers of 10 (``scales``), a follower's objective by the size of its slopes, the leader's
by how much it varies; minimizers stay. With ``v = s v'``, ``g' = g / R`` and ``f' = f / w`` the
multipliers of the given rows are ``lam = lam' w / R``, and so are shadow prices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.fixing import multiplied
from bilevelpy.reductions.rewriting.scales import column_scales, is_ordinary, row_scales_of

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Functions, Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# Objectives whose size lies between these are left as they are.
SMALL, LARGE = 0.1, 1e3
# Points that a variation is measured at, and how far they go where a variable has no bound.
POINTS, REACH = 16, 10.0


@dataclass(frozen=True, slots=True)
class Units:
    """``system`` is what an engine sees: columns divided by ``columns``, rows by ``upper_rows`` and
    ``lower_rows``, the leader's objective by ``upper``, that of follower k by ``lower[k]`` (the
    same for all followers of a level).
    """

    system: System
    upper: float
    lower: Array
    columns: Array
    upper_rows: Array
    lower_rows: Array

    def given(self, v: Array) -> Array:
        """Values of the columns in the units of the model."""
        return np.asarray(v[: self.columns.size] * self.columns)

    def told(self) -> System:
        """The system with the leader's objective in the units of the model."""
        if self.upper == 1.0:
            return self.system
        return replace(self.system, objective=self.system.objective.scaled(self.upper))

    def rows_by_name(self) -> dict[str, float]:
        """What every row was divided by."""
        rows = (self.system.upper_rows, self.system.lower_rows)
        sizes = (self.upper_rows, self.lower_rows)
        return {
            name: float(size)
            for part, scale in zip(rows, sizes, strict=True)
            for name, size in zip(part.names, scale, strict=True)
        }


def normalize(system: System) -> Units:
    """Divide columns, rows and objectives by powers of 10 of about their size."""
    prices = np.flatnonzero(system.columns.owner == -1)
    s = np.ones(system.columns.count)
    up, low = np.ones(system.upper_rows.count), np.ones(system.lower_rows.count)
    if not is_ordinary(system):
        s = column_scales(system)
        system = _in_columns(system, s)
        up, low = row_scales_of(system.upper_rows), _alike(system, row_scales_of(system.lower_rows))
        system = replace(
            system,
            upper_rows=_rows_divided(system.upper_rows, up),
            lower_rows=_rows_divided(system.lower_rows, low),
        )
    changed = bool((s != 1.0).any() or (up != 1.0).any() or (low != 1.0).any())
    lower = np.ones(len(system.followers))
    # A price is in the units of an objective: what reads prices is left as it is where it can be.
    if changed or not prices.size:
        for level in {f.level for f in system.followers}:
            mine = [k for k, f in enumerate(system.followers) if f.level == level]
            # A tree varies most far from its minimum: where it is flat, dividing would lose it.
            curved = any(k in system.lower_objectives.trees for k in mine)
            lower[mine] = _unit(max(_slope(system, k) for k in mine), down=not curved)
    if bool((lower != 1.0).any()):
        objectives = _divided(system.lower_objectives, lower)
        system = replace(system, lower_objectives=objectives)
    if changed and prices.size:
        p = _price_scales(system, lower, low)
        system, s = _in_columns(system, p), s * p
    upper = 1.0
    if changed or not prices.size:
        upper = _unit(_variation(system.objective, 0, system.columns), down=False)
    if upper != 1.0:
        system = replace(system, objective=system.objective.scaled(1.0 / upper))
    return Units(system, upper, lower, s, up, low)


def _in_columns(system: System, s: Array) -> System:
    """The system with every column divided by its unit."""
    if bool((s == 1.0).all()):
        return system
    columns = system.columns
    scaled = replace(
        columns, lower=columns.lower / s, upper=columns.upper / s, start=columns.start / s
    )
    upper, lower = system.upper_rows, system.lower_rows
    return replace(
        system,
        columns=scaled,
        objective=_substituted(system.objective, s),
        upper_rows=replace(upper, functions=_substituted(upper.functions, s)),
        lower_objectives=_substituted(system.lower_objectives, s),
        lower_rows=replace(lower, functions=_substituted(lower.functions, s)),
    )


def _substituted(functions: Functions, s: Array) -> Functions:
    """The functions of ``v'`` with ``v = s v'``."""
    scale = sp.diags_array(s)
    chosen = {int(j) for j in np.flatnonzero(s != 1.0)}
    return replace(
        functions,
        linear=sp.csr_array(functions.linear @ scale),
        quadratic={r: sp.csr_array(scale @ q @ scale) for r, q in functions.quadratic.items()},
        trees={
            r: multiplied(tree, chosen, s) if sc.columns([tree]) & chosen else tree
            for r, tree in functions.trees.items()
        },
    )


def _rows_divided(rows: Rows, sizes: Array) -> Rows:
    if bool((sizes == 1.0).all()):
        return rows
    return replace(
        rows,
        functions=_divided(rows.functions, sizes),
        lower=rows.lower / sizes,
        upper=rows.upper / sizes,
    )


def _alike(system: System, sizes: Array) -> Array:
    """One unit for the rows of one constraint: they share a shadow price."""
    found = sizes.copy()
    of: dict[tuple[str, str, int], list[int]] = {}
    for r, origin in enumerate(system.lower_rows.origin):
        if origin is not None:
            of.setdefault(origin, []).append(r)
    for rows in of.values():
        found[rows] = sizes[rows].max()
    return found


def _price_scales(system: System, lower: Array, rows: Array) -> Array:
    """What shadow prices are divided by: the unit of the objective over that of the row."""
    found = np.ones(system.columns.count)
    unit = {f.level: float(w) for f, w in zip(system.followers, lower, strict=True)}
    size = {o: float(r) for o, r in zip(system.lower_rows.origin, rows, strict=True) if o}
    for block in system.columns.blocks:
        if block.is_dual:
            for k in range(block.size):
                found[block.offset + k] = unit[block.level] / size.get(
                    (block.level, block.name, k), 1.0
                )
    return found


def _divided(functions: Functions, units: Array) -> Functions:
    """Every function divided by its unit."""
    return replace(
        functions,
        constant=functions.constant / units,
        linear=sp.csr_array(sp.diags_array(1.0 / units) @ functions.linear),
        quadratic={r: sp.csr_array(q / units[r]) for r, q in functions.quadratic.items()},
        trees={
            r: t if units[r] == 1.0 else sc.mul(sc.Num(1.0 / float(units[r])), t)
            for r, t in functions.trees.items()
        },
    )


def _unit(size: float, down: bool) -> float:
    """A power of 10 near a size that is out of the ordinary, else 1."""
    if not math.isfinite(size) or size <= 0.0 or SMALL <= size <= (LARGE if down else math.inf):
        return 1.0
    return float(10.0 ** round(math.log10(size)))


def _slope(system: System, k: int) -> float:
    """The largest coefficient of the gradient of follower k in its own variables."""
    functions = system.lower_objectives
    if k in functions.trees:
        return _variation(functions, k, system.columns)
    own = np.flatnonzero(system.columns.owner == k + 1)
    size = float(abs(functions.linear[[k]][:, own]).max()) if own.size else 0.0
    if k in functions.quadratic and own.size:
        block = functions.quadratic[k][own]
        size = max(size, float(abs(block).max()) if block.nnz else 0.0)
    return size


def _variation(functions: Functions, row: int, columns: Columns) -> float:
    """How much a function changes over points between the bounds; NaN where it has no values."""
    one = functions.take([row])
    rng = np.random.default_rng(0)
    low = np.where(np.isfinite(columns.lower), columns.lower, columns.start - REACH)
    high = np.where(np.isfinite(columns.upper), columns.upper, columns.start + REACH)
    low, high = np.minimum(low, high), np.maximum(low, high)
    values = []
    for share in rng.random((POINTS, columns.count)):
        try:
            values.append(float(one.value(low + (high - low) * share)[0]))
        except (ValueError, ArithmeticError, TypeError):
            continue
    known = [x for x in values if math.isfinite(x)]
    return max(known) - min(known) if len(known) > 1 else math.nan
