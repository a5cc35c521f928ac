"""Followers that choose among alternatives with a fixed ranking: the best one that there is.

Where a follower spreads an amount ``sum y = D`` (or ``<= D``) over alternatives with costs ``c``
that nothing moves, and alternative j is there, as a whole, or is not, as the leader decides
(``y_j <= D u_j(x)``, ``u_j`` 0 or 1), best responses have nothing worse than what is there::

    sum over k with c_k <= c_j of y_k >= D u_j(x)

("closest assignment": Wagner and Falkson 1975). With whole x these rows say that ``y`` is a best
response, without a product or a multiplier, and their relaxation is close. Customers with a ranking
of open facilities, towns that the nearest depot left serves, buyers in front of an assortment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.rows import join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import Rows, System

Array = np.ndarray[Any, np.dtype[Any]]

# Entries of all rows beyond which they cost a linear program more than they are worth.
ENTRIES = 300_000
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Choices:
    """The rows of all followers of this kind, and whether that is all of them: with whole x the
    rows are then the followers.
    """

    rows: Rows
    complete: bool


def choice_rows(system: System) -> Choices | None:
    """The rows over the columns of a system; None where there is none, or too much of them."""
    if "choices" not in system.derived:
        system.derived["choices"] = _made(system)
    found: Choices | None = system.derived["choices"]
    return found


def _made(system: System) -> Choices | None:
    rows: list[tuple[str, Terms, float, float]] = []
    of: dict[int, list[int]] = {}
    for r, follower in enumerate(system.lower_rows.follower.tolist()):
        of.setdefault(follower, []).append(r)
    entries, complete = 0, True
    for k in range(len(system.followers)):
        found = _rows_of(system, k, of.get(k + 1, []))
        complete &= bool(found)
        entries += sum(len(terms) for _, terms, _, _ in found)
        rows += found
        if entries > ENTRIES:
            return None
    if not rows:
        return None
    names, terms, low, high = (list(part) for part in zip(*rows, strict=True))
    made = terms_rows(tuple(names), terms, low, high, system.columns.count)
    return Choices(made, complete)


def with_choice_rows(program: KKT) -> KKT:
    """The program with these rows."""
    found = choice_rows(program.system)
    if found is None:
        return program
    width = program.columns.count
    rows = join_rows([program.rows, found.rows.widened(width)], width)
    kinds = (*program.kinds, *(("choice",) * found.rows.count))
    return replace(program, rows=rows, kinds=kinds)


def _rows_of(system: System, k: int, mine: list[int]) -> list[tuple[str, Terms, float, float]]:
    columns, rows, objectives = system.columns, system.lower_rows, system.lower_objectives
    own = np.flatnonzero(columns.owner == k + 1)
    curved = objectives.quadratic.get(k)
    if system.followers[k].nash or k in objectives.trees:
        return []
    if (curved is not None and curved[own].nnz) or bool((columns.lower[own] != 0.0).any()):
        return []
    f, mine_own = rows.functions, set(own.tolist())
    amount: tuple[float, bool] | None = None
    links: dict[int, tuple[dict[int, float], tuple[float, float]]] = {}
    for r in mine:
        if r in f.quadratic or r in f.trees:
            return []
        terms = dict(linear_terms(f, r))
        read = [j for j in terms if j in mine_own]
        ends = float(rows.lower[r] - f.constant[r]), float(rows.upper[r] - f.constant[r])
        if len(read) == own.size > 1 and len(terms) == own.size and amount is None:
            amount = _amount(np.array(list(terms.values())), ends)
            if amount is None:
                return []
        elif len(read) == 1 and read[0] not in links:
            links[read[0]] = (terms, ends)
        else:
            return []
    if amount is None:
        return []
    D, exactly = amount
    there: dict[int, Terms] = {}
    for j in own.tolist():
        found = _availability(system, j, links.get(j), D)
        if found is None:
            return []
        there[j] = found
    c = np.zeros(columns.count)
    for j, price in linear_terms(objectives, k):
        c[j] = price
    made: list[tuple[str, Terms, float, float]] = []
    for j in own.tolist():
        if not exactly and c[j] >= 0.0:
            continue  # nothing at all is as good
        level = c[j] + ROUNDING * abs(float(c[j]))
        row: Terms = {(i,): 1.0 for i in own[c[own] <= level].tolist()}
        for key, value in there[j].items():
            row[key] = row.get(key, 0.0) - D * value
        made.append((f"choice.{columns.names[j]}", row, 0.0, math.inf))
    worse: Terms = {(int(i),): -1.0 for i in own if c[i] > 0.0}
    if worse and not exactly:
        made.append((f"none.{system.followers[k].name}", worse, 0.0, math.inf))
    return made


def _amount(slopes: Array, ends: tuple[float, float]) -> tuple[float, bool] | None:
    """What is spread, and whether all of it, by a row with equal coefficients."""
    a = float(slopes[0])
    if a == 0.0 or float(np.abs(slopes - a).max()) > ROUNDING * abs(a):
        return None
    low, high = sorted((ends[0] / a, ends[1] / a))
    if not high > 0.0 or not math.isfinite(high):
        return None
    if low == high:
        return high, True
    return (high, False) if low <= 0.0 else None


def _availability(
    system: System, j: int, link: tuple[dict[int, float], tuple[float, float]] | None, D: float
) -> Terms | None:
    """Whether an alternative is there, 0 or 1, as an affine function of whole numbers; None where
    it is another one, or none.
    """
    columns, top = system.columns, float(system.columns.upper[j])
    if top == 0.0:
        return {}
    if top < D * (1.0 - ROUNDING):
        return None
    if link is None:
        return {(): 1.0}
    terms, ends = link
    a = terms[j]
    end, other = (ends[1], ends[0]) if a > 0.0 else (ends[0], ends[1])
    if not math.isfinite(end) or math.isfinite(other):
        return None
    others = [(i, -c / (a * D)) for i, c in terms.items() if i != j and c != 0.0]
    base = end / (a * D)
    ranges = [(float(columns.lower[i]), float(columns.upper[i])) for i, _ in others]
    if not all(columns.integer[i] and columns.owner[i] == 0 for i, _ in others):
        return None
    if len(others) == 1 and ranges[0] == (0.0, 1.0):
        # More than all is all.
        i, slope = others[0]
        off, on = min(base, 1.0), min(base + slope, 1.0)
        base, others = off, [(i, on - off)]
    low = base + sum(min(s * p, s * q) for (_, s), (p, q) in zip(others, ranges, strict=True))
    high = base + sum(max(s * p, s * q) for (_, s), (p, q) in zip(others, ranges, strict=True))
    numbers = np.array([base, *(s for _, s in others)])
    whole = float(np.abs(numbers - np.round(numbers)).max()) <= ROUNDING
    if not whole or low < -0.5 or high > 1.5:
        return None
    found: Terms = {(i,): float(round(s)) for i, s in others}
    found[()] = float(round(base))
    return found
