"""Shadow prices of an answer, and whether the bounds that the model declares for them are true."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.relaxations.duality import write_duality
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.reductions.linearization.linear_objective import linear_objective
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt

if TYPE_CHECKING:
    from bilevelpy.reductions.rewriting.normalize import Units

Array = np.ndarray[Any, np.dtype[Any]]

# Relative distance at which a price counts as lying at its bound, or beyond it.
AT = 1e-6
# Seconds for the greatest valid price.
SECONDS = 5.0
# Seconds in which to find a better point with a price beyond its bound, or to show that none is.
BEYOND_SECONDS = 10.0


def check_prices(
    program: KKT, v: Array, limits: Limits, units: Units
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Notes on prices that end at a declared bound, and doubts where larger ones are valid there
    (``program`` is in ``units``).

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
            shown = end * units.columns[j]
            if beyond is None or sign * (beyond - end) <= 1e-4 * max(1.0, abs(end)):
                notes.append(f"`{columns.names[j]}` is at its declared bound {shown:g}")
            else:
                doubts.append(
                    f"`{columns.names[j]}` is at its declared bound {shown:g}, but prices up to "
                    f"{beyond * units.columns[j]:g} are valid at this x: the bound is too tight"
                )
    if not doubts and _declared(program).size:
        better, settled = _better_beyond(program, v, limits, units)
        if better:
            doubts.append(better)
        elif not settled:
            notes.append(
                "it was not settled in time whether a price beyond its declared bound helps"
            )
    return tuple(notes[:3]), tuple(doubts[:3])


def beyond_bounds(program: KKT, limits: Limits, units: Units) -> str:
    """Where a program without a point has one once no price is bounded: a sentence that names the
    bound; else an empty string.
    """
    if not _declared(program).size:
        return ""
    free = _unbounded(program)
    found = (
        Relaxed(free)
        .model(None)
        .solve(replace(limits, seconds=min(limits.seconds, BEYOND_SECONDS)))
    )
    return "" if found.values is None else _offence(program, found.values, units)


def open_prices(program: KKT) -> str:
    """What may leave the leader's objective without a bound: a price without declared bounds, and
    what to write; empty where the leader reads none.
    """
    columns = program.system.columns
    for block in columns.blocks:
        place = slice(block.offset, block.offset + block.size)
        if block.is_dual and not np.isfinite([columns.lower[place], columns.upper[place]]).all():
            return (
                f"the price `dual({block.level}.{block.name})` may have none where rows of "
                f"`{block.level}` depend on each other; bound it there: "
                f"`assume dual({block.name}) in [lo, hi];`"
            )
    return ""


def _declared(program: KKT) -> Array:
    """The prices that have a declared bound."""
    columns = program.system.columns
    finite = np.isfinite(columns.lower) | np.isfinite(columns.upper)
    return np.flatnonzero((columns.owner == -1) & finite)


def _better_beyond(program: KKT, v: Array, limits: Limits, units: Units) -> tuple[str, bool]:
    """A clearly better point with prices beyond their bounds, in words, and whether it is settled
    that there is none.

    A bound that is too small removes x at which the price lies beyond it, so looking at the
    returned x is not enough.
    """
    free = linear_objective(_unbounded(program))
    model = Relaxed(free, extra=lambda m: write_duality(free, m)).model(None)
    F = float(free.objective.value(v)[0])
    step = max(10.0 * limits.gap * max(1.0, abs(F)), 1e-5)
    model.row(model.expression(free.objective, 0), -math.inf, F - step)
    found = model.solve(replace(limits, seconds=min(limits.seconds, BEYOND_SECONDS)))
    if found.values is None:
        return "", found.status == "infeasible"
    return _offence(program, found.values, units), True


def _offence(program: KKT, v: Array, units: Units) -> str:
    """The price that is farthest beyond its bound at a point, in words."""
    columns = program.system.columns
    declared = _declared(program)
    off = np.maximum(columns.lower[declared] - v[declared], v[declared] - columns.upper[declared])
    worst = int(declared[off.argmax()])
    if off.max() <= AT * max(1.0, abs(float(v[worst]))):
        return ""
    F = program.system.sign * float(program.system.objective.value(v[: columns.count])[0])
    given = units.given(v)
    at = ", ".join(f"{columns.names[j]} = {given[j]:.5g}" for j in program.system.upper_columns[:4])
    end = columns.upper[worst] if v[worst] > columns.upper[worst] else columns.lower[worst]
    end *= units.columns[worst]
    return (
        f"the declared bound {end:g} of `{columns.names[worst]}` is too tight: at {at} the price "
        f"is {given[worst]:.5g}, and F = {units.upper * F:.6g}"
    )


def _unbounded(program: KKT) -> KKT:
    """The conditions without declared bounds of prices."""
    system = program.system
    prices = system.columns.owner == -1
    columns = replace(
        system.columns,
        lower=np.where(prices, -np.inf, system.columns.lower),
        upper=np.where(prices, np.inf, system.columns.upper),
    )
    return kkt(replace(system, columns=columns), "the backend `exact`", optimistic=True, norms=True)


def _greatest(program: KKT, price: int, sign: float, v: Array, limits: Limits) -> float | None:
    """The greatest (least, for ``sign`` -1) valid price at x without declared bounds."""
    free = _unbounded(program)
    fixed = {int(j): float(v[j]) for j in program.system.upper_columns}
    model = Relaxed(free, fixed).model(None, skip="upper")
    model.scip.setObjective(-sign * model.variables[price], "minimize")
    found = model.solve(replace(limits, seconds=min(limits.seconds, SECONDS)))
    if found.status in ("unbounded", "unclear"):
        return sign * math.inf
    return None if found.values is None else float(found.values[price])
