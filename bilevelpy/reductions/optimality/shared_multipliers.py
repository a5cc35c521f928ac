"""Multipliers that are the same in many followers: attacks on samples, choices at common prices.

A variable in an interval of its own that no row of its follower reads has the stationarity row ::

    g(x) - mu_lo + mu_up = 0,     one of both is 0:     mu_lo = max(g, 0),  mu_up = max(-g, 0)

Where another such variable has the multiple ``c g(x)``, its multipliers are that of these. Rows
that say so leave one choice for all of them: branch and bound would take it for each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.rows import join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT

# Digits of a coefficient, relative to the first one of its row, that have to agree.
DIGITS = 12


def with_shared_multipliers(program: KKT) -> KKT:
    """The conditions with rows that tie multipliers of variables with proportional slopes."""
    columns, rows = program.columns, program.rows
    sides: dict[int, dict[str, int]] = {}
    for pair in program.pairs:
        if pair.column is not None and columns.lower[pair.column] < columns.upper[pair.column]:
            sides.setdefault(pair.column, {})[pair.side] = pair.multiplier
    multipliers = {p.multiplier for p in (*program.pairs, *program.equations)}
    first = program.kinds.index("stationarity") if program.stationary else 0
    known: dict[tuple[tuple[int, float], ...], tuple[float, dict[str, int]]] = {}
    made: list[tuple[str, Terms]] = []
    for place, j in enumerate(program.stationary):
        r, own = first + place, sides.get(j, {})
        if len(own) < 2 or r in rows.functions.quadratic or r in rows.functions.trees:
            continue
        terms = linear_terms(rows.functions, r)
        if {i for i, _ in terms} & multipliers != set(own.values()):
            continue
        slope = [(i, c) for i, c in terms if i not in multipliers]
        slope.append((-1, -float(rows.lower[r])))
        slope = [(i, c) for i, c in slope if c]
        if not slope or any(i >= 0 and columns.owner[i] > 0 for i, _ in slope):
            continue
        size = slope[0][1]
        key = tuple((i, round(c / size, DIGITS)) for i, c in slope)
        if key not in known:
            known[key] = (size, own)
            continue
        factor, other = size / known[key][0], known[key][1]
        swap = {"lower": "upper", "upper": "lower"} if factor < 0.0 else {}
        for side, multiplier in own.items():
            theirs = other[swap.get(side, side)]
            name = f"shared.{columns.names[multiplier]}"
            made.append((name, {(multiplier,): 1.0, (theirs,): -abs(factor)}))
    if not made:
        return program
    zero = [0.0] * len(made)
    names = tuple(name for name, _ in made)
    extra = terms_rows(names, [terms for _, terms in made], zero, zero, columns.count)
    return replace(
        program,
        rows=join_rows([rows, extra], columns.count),
        kinds=(*program.kinds, *(("shared",) * extra.count)),
    )
