"""Shadow prices of an answer, and whether the bounds that the model declares for them are true."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelpy.backends.exact_relax import Relaxed
from bilevelpy.backends.exact_scip import Limits
from bilevelpy.reductions.kkt import KKT, kkt

Array = np.ndarray[Any, np.dtype[Any]]

# Relative distance at which a price counts as lying at its bound, or beyond it.
AT = 1e-6
# Seconds for the greatest valid price.
SECONDS = 5.0


def check_prices(program: KKT, v: Array, limits: Limits) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Notes on prices that end at a declared bound, and doubts where larger ones are valid there.

    A bound that cuts off valid prices changes the problem: the leader might have chosen them.
    """
    system = program.system
    columns = system.columns
    notes: list[str] = []
    doubts: list[str] = []
    for j in np.flatnonzero(columns.owner == -1):
        for sign, end in ((1.0, columns.upper[j]), (-1.0, columns.lower[j])):
            if not math.isfinite(end) or abs(v[j] - end) > AT * max(1.0, abs(end)):
                continue
            beyond = _greatest(program, int(j), sign, v, limits)
            if beyond is None or sign * (beyond - end) <= 1e-4 * max(1.0, abs(end)):
                notes.append(f"`{columns.names[j]}` is at its declared bound {end:g}")
            else:
                doubts.append(
                    f"`{columns.names[j]}` is at its declared bound {end:g}, but prices up to "
                    f"{beyond:g} are valid at this x: the bound is too tight"
                )
    return tuple(notes[:3]), tuple(doubts[:3])


def _greatest(program: KKT, price: int, sign: float, v: Array, limits: Limits) -> float | None:
    """The greatest (least, for ``sign`` -1) valid price at x without declared bounds."""
    system = program.system
    prices = system.columns.owner == -1
    columns = replace(
        system.columns,
        lower=np.where(prices, -np.inf, system.columns.lower),
        upper=np.where(prices, np.inf, system.columns.upper),
    )
    free = kkt(replace(system, columns=columns), "the backend `exact`")
    fixed = {int(j): float(v[j]) for j in system.upper_columns}
    model = Relaxed(free, fixed).model(None, skip="upper")
    model.scip.setObjective(-sign * model.variables[price], "minimize")
    found = model.solve(replace(limits, seconds=min(limits.seconds, SECONDS)))
    if found.status in ("unbounded", "unclear"):
        return sign * math.inf
    return None if found.values is None else float(found.values[price])


def shadow_prices(program: KKT, v: Array) -> dict[str, Array]:
    """``level.constraint`` -> the multipliers in the sense of the language (price of the right-hand
    side), of the shape of the constraint.
    """
    found: dict[str, Array] = {}
    bound = program.system.bound
    for level in bound.program.lowers:
        for constraint in level.constraints:
            shape = tuple(bound.data.sizes[a] for a in constraint.axes)
            found[f"{level.name}.{constraint.name}"] = np.zeros(shape)
    multiplier_of: dict[tuple[int, str], int] = {}
    for pair in program.pairs:
        if pair.row is not None:
            multiplier_of[pair.row, pair.side] = pair.multiplier
    names = {name: j for j, name in enumerate(program.columns.names)}
    sign_of = {f.level: f.sign for f in program.system.followers}
    for r, kind in enumerate(program.kinds):
        origin = program.rows.origin[r]
        if kind != "lower" or origin is None:
            continue
        level_name, name, entry = origin
        if program.rows.lower[r] == program.rows.upper[r]:
            weight = v[names[f"nu.{program.rows.names[r]}"]]
        else:
            up, down = multiplier_of.get((r, "upper")), multiplier_of.get((r, "lower"))
            weight = (v[up] if up is not None else 0.0) - (v[down] if down is not None else 0.0)
        found[f"{level_name}.{name}"].reshape(-1)[entry] += -sign_of[level_name] * weight
    return found
