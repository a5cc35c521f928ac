"""Linear followers by strong duality where all its products have a whole number in them.

With the primal and the dual rows of a follower, its complementarity pairs follow from one row::

    c'y + x'C y + sum_r p_r U_r - sum_r q_r L_r + (the same of bounds) = 0

(``strong_duality``). Where the best responses that a leader picks are whole multiples of
a number (``integer.multiples``), or ``x`` is whole, the products ``x_i y_j`` are linear
with binaries, and no multiplier needs a bound. For tolls on a network this is the program of Labbe,
Marcotte and Savard (1998): flows on tolled arcs are binary, payments are variables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.reductions.integer.multiples import Multiples, read_by_others, whole_responses
from bilevelpy.reductions.linearization.integer_products import Products
from bilevelpy.reductions.linearization.strong_duality import duality_gaps
from bilevelpy.reductions.monomials import Terms, functions_of, terms_rows
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.rows import join_rows
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns

Array = np.ndarray[Any, np.dtype[Any]]

# Levels of a response beyond which its binaries are no help, and products a pair that is saved.
LEVELS, PRODUCTS = 64.0, 4.0


@dataclass(frozen=True, slots=True)
class Whole:
    """``program`` without the pairs of some followers, its columns those of the given conditions
    and further ones.
    """

    program: KKT
    products: Products
    # column -> (column of its whole multiple, the unit)
    multiples: dict[int, tuple[int, float]]
    given: int

    def complete(self, v: Array) -> Array:
        """Values of all columns at values of the given ones."""
        full = np.zeros(self.products.first)
        full[: self.given] = v[: self.given]
        for j, (place, unit) in self.multiples.items():
            full[place] = round(float(v[j]) / unit)
            full[j] = unit * full[place]
        return self.products.complete(full)


def whole_duality(program: KKT) -> Whole | None:
    """The conditions with strong duality in place of the pairs of every follower that allows it;
    None where none does.
    """
    system = program.system
    if not _is_polynomial(program):
        return None
    gaps = [_without_fixed(terms, program.columns) for terms in duality_gaps(program)]
    moving = [k for k, terms in enumerate(gaps) if any(len(key) == 2 for key in terms)]
    if not moving:
        return None
    wanted = _without_fixed(_objective_products(program), program.columns)
    made: dict[int, tuple[int, float]] = {}
    columns = program.columns
    rows: list[tuple[str, Terms, float, float]] = []
    foreign = read_by_others(system)
    for k in moving:
        found = whole_responses(system, k, foreign)
        if found is not None:
            used = {j for key in (*gaps[k], *wanted) if len(key) == 2 for j in key}
            columns = _with_multiples(columns, found, used, made, rows)
    products = Products(columns)
    duality: list[tuple[str, Terms, float, float]] = []
    settled: set[int] = set()
    for k in moving:
        terms = _in_multiples(gaps[k], made)
        if any(len(key) == 2 and products.chosen(key) is None for key in terms):
            continue
        duality.append((f"duality.{system.followers[k].name}", products.linear(terms), 0.0, 0.0))
        settled.add(k + 1)
    gone = [p for p in program.pairs if _owner(program, p.row, p.column) in settled]
    if not settled or len(products.names) > PRODUCTS * max(len(gone), 1):
        return None
    # What the leader earns on products that have become columns is linear too.
    objective = _in_multiples(wanted, made)
    if all(len(key) < 2 or products.chosen(key) is not None for key in objective):
        objective = products.linear(objective)
    return _written(program, products, made, [*rows, *duality], gone, objective)


def _is_polynomial(program: KKT) -> bool:
    """Whether everything that strong duality reads is a polynomial of degree two, rows linear."""
    functions = program.rows.functions
    if program.objective.trees or program.system.lower_objectives.trees:
        return False
    mixed = set(functions.trees) | set(functions.quadratic)
    return not any(program.kinds[r] == "lower" for r in mixed)


def _objective_products(program: KKT) -> Terms:
    """The objective of the leader as terms; shadow prices are in terms of themselves."""
    terms: Terms = {(j,): c for j, c in linear_terms(program.objective, 0)}
    for i, j, c in quadratic_terms(program.objective, 0):
        terms[i, j] = terms.get((i, j), 0.0) + c
    return terms


def _without_fixed(terms: Terms, columns: Columns) -> Terms:
    """A fixed column in a product is a number."""
    found: Terms = {}
    for key, c in terms.items():
        if len(key) == 2:
            for j, other in (key, key[::-1]):
                if columns.lower[j] == columns.upper[j]:
                    key, c = (other,), c * float(columns.lower[j])
                    break
        found[key] = found.get(key, 0.0) + c
    return {key: c for key, c in found.items() if c}


def _with_multiples(
    columns: Columns,
    found: Multiples,
    used: set[int],
    made: dict[int, tuple[int, float]],
    rows: list[tuple[str, Terms, float, float]],
) -> Columns:
    """The columns with whole numbers for those of a follower that occur in products."""
    names: list[str] = []
    low: list[float] = []
    high: list[float] = []
    for j, a, b in zip(found.columns.tolist(), found.low, found.high, strict=True):
        first, last = float(np.ceil(a / found.unit - 1e-6)), float(np.floor(b / found.unit + 1e-6))
        if j not in used or last - first > LEVELS:
            continue
        place = columns.count + len(names)
        name = f"whole.{columns.names[j]}"
        names.append(name)
        low.append(first)
        high.append(last)
        made[j] = (place, found.unit)
        rows.append((name, {(j,): 1.0, (place,): -found.unit}, 0.0, 0.0))
    whole = np.ones(len(names), dtype=bool)
    return columns.extended(names, np.array(low), np.array(high), whole) if names else columns


def _in_multiples(terms: Terms, made: dict[int, tuple[int, float]]) -> Terms:
    """Products with the whole numbers in place of what they are multiples of."""
    found: Terms = {}
    for key, c in terms.items():
        if len(key) == 2:
            for j in key:
                if j in made:
                    place, unit = made[j]
                    other = key[1] if j == key[0] else key[0]
                    key, c = tuple(sorted((place, other))), c * unit
                    break
        found[key] = found.get(key, 0.0) + c
    return found


def _owner(program: KKT, row: int | None, column: int | None) -> int:
    """The follower (from 1) that a pair belongs to."""
    if row is not None:
        return int(program.rows.follower[row])
    assert column is not None
    return int(program.system.columns.owner[column])


def _written(
    program: KKT,
    products: Products,
    made: dict[int, tuple[int, float]],
    rows: list[tuple[str, Terms, float, float]],
    gone: list[Any],
    objective: Terms,
) -> Whole:
    """Everything as one program."""
    columns = products.extended()
    width = columns.count
    names, terms, low, high = (list(part) for part in zip(*rows, strict=True))
    extra = join_rows(
        [terms_rows(tuple(names), terms, low, high, width), products.made_rows(width)], width
    )
    goal = functions_of([objective], width)
    goal = replace(goal, constant=program.objective.constant)
    dropped = {id(p) for p in gone}
    result = replace(
        program,
        columns=columns,
        objective=goal,
        rows=join_rows([program.rows.widened(width), extra], width),
        kinds=(*program.kinds, *(("duality",) * extra.count)),
        pairs=tuple(p for p in program.pairs if id(p) not in dropped),
    )
    return Whole(result, products, made, program.columns.count)
