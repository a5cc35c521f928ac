"""Objectives in units of their own: absolute tolerances of an engine mean the same then.

SCIP lets every row be off by an absolute 1e-6. A follower whose objective is written with
coefficients of that size has stationarity rows that hold at any response. A follower's objective is
therefore divided by the size of its slopes, the leader's by how much it varies; minimizers stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import Functions, System

Array = np.ndarray[Any, np.dtype[Any]]

# Objectives whose size lies between these are left as they are.
SMALL, LARGE = 0.1, 1e3
# Points that a variation is measured at, and how far they go where a variable has no bound.
POINTS, REACH = 16, 10.0


@dataclass(frozen=True, slots=True)
class Units:
    """``system`` has every objective divided by its unit: the leader's by ``upper``, that of
    follower k by ``lower[k]`` (the same for all followers of a level).
    """

    system: System
    upper: float
    lower: Array


def normalize(system: System) -> Units:
    """Divide objectives by powers of 10 of about their size.

    A model that reads shadow prices is left as it is: prices are in the units of an objective.
    """
    if bool((system.columns.owner == -1).any()):
        return Units(system, 1.0, np.ones(len(system.followers)))
    upper = _unit(_variation(system.objective, 0, system.columns), down=False)
    lower = np.ones(len(system.followers))
    for level in {f.level for f in system.followers}:
        mine = [k for k, f in enumerate(system.followers) if f.level == level]
        # A tree varies most far from its minimum: where it is flat, dividing would lose it.
        curved = any(k in system.lower_objectives.trees for k in mine)
        lower[mine] = _unit(max(_slope(system, k) for k in mine), down=not curved)
    objectives = system.lower_objectives
    if upper == 1.0 and bool((lower == 1.0).all()):
        return Units(system, upper, lower)
    made = replace(
        system,
        objective=system.objective if upper == 1.0 else system.objective.scaled(1.0 / upper),
        lower_objectives=_divided(objectives, lower),
    )
    return Units(made, upper, lower)


def _divided(functions: Functions, units: Array) -> Functions:
    """Every function divided by its unit."""
    from bilevelpy.reductions import scalar as sc

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
