"""Shadow prices of lower rows, read off a solution of the followers' conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.optimality.conditions import KKT

if TYPE_CHECKING:
    from bilevelpy.reductions.rewriting.normalize import Units

Array = np.ndarray[Any, np.dtype[Any]]


def shadow_prices(program: KKT, v: Array, units: Units) -> dict[str, Array]:
    """``level.constraint`` -> the multipliers in the sense of the language (price of the right-hand
    side), of the shape of the constraint. ``units`` are those that ``program`` is in.
    """
    row_of = units.rows_by_name()
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
        weight *= units.lower[int(program.rows.follower[r]) - 1]
        weight /= row_of.get(program.rows.names[r], 1.0)
        found[f"{level_name}.{name}"].reshape(-1)[entry] += -sign_of[level_name] * weight
    return found
