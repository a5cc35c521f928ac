"""The leader's products made linear by the followers' optimality conditions.

At a point that satisfies a follower's conditions, every stationarity row times its variable and
every constraint times its multiplier is zero, and a bound's multiplier times the variable is the
multiplier times the bound::

    y_j (c_j + C_j x + sum_r A_rj lam_r + mu_j) = 0,      y_j mu_j = end_j mu_j,
    lam_r (A_r y + B_r x - end_r) = 0

Each is a linear combination of products and of linear terms. Where the products of the leader's
objective are a combination of these products, they are replaced by the linear terms: what a leader
earns on a toll (``x_a y_a``) or at a price (``price * sold``) becomes linear in costs and
multipliers. Strong duality is the sum of all; here every row has a weight of its own.

The argument is that of Labbe, Marcotte, Savard (1998) for tolls and of Ruiz, Conejo (2009) for
prices, as linear algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from bilevelpy.reductions.monomials import Terms, functions_of
from bilevelpy.reductions.trees import linear_terms, quadratic_terms
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import Functions

Array = np.ndarray[Any, np.dtype[Any]]
# What may remain of a product, relative to the largest one, to count as gone.
GONE = 1e-9
# Rounds of refinement of the weights, and the shift that makes their equations regular.
ROUNDS, SHIFT = 12, 1e-7


def linear_objective(program: KKT) -> KKT:
    """The same program with a linear objective that agrees with the given one at every point that
    satisfies rows and pairs; the program itself where there is none.
    """
    if program.objective.degree != 2:
        return program
    terms = objective_products(program)
    for j, c in linear_terms(program.objective, 0):
        terms[j,] = terms.get((j,), 0.0) + c
    found = list(identities(program, {j for key in terms if len(key) == 2 for j in key}))
    made = linear_terms_of(terms, found)
    if made is None:
        return program
    objective = functions_of([{key: c for key, c in made.items() if c}], program.columns.count)
    return replace(program, objective=replace(objective, constant=program.objective.constant))


def linear_terms_of(terms: Terms, found: list[Terms]) -> Terms | None:
    """Linear terms (and a constant) that agree with ``terms`` where the identities ``found`` hold;
    None where these do not make up its products.
    """
    products: Terms = {key: c for key, c in terms.items() if len(key) == 2}
    weights = _weights(products, found) if products else np.zeros(len(found))
    if weights is None:
        return None
    linear = {key: c for key, c in terms.items() if len(key) < 2}
    for weight, identity in zip(weights, found, strict=True):
        for key, c in identity.items():
            if weight and len(key) == 1:
                linear[key] = linear.get(key, 0.0) - weight * c
    return linear


@dataclass(slots=True)
class _Numbers:
    """Monomials of degree two, numbered as they come."""

    place: dict[tuple[int, ...], int] = field(default_factory=dict)

    def of(self, key: tuple[int, ...]) -> int:
        """The number of a monomial."""
        return self.place.setdefault(key, len(self.place))


def _add(terms: Terms, c: float, *columns: int) -> None:
    key = tuple(sorted(columns))
    terms[key] = terms.get(key, 0.0) + c


def _multiply(terms: Terms, c: float, i: int, j: int, columns: Columns) -> None:
    """Add ``c v_i v_j``; a fixed column is a number."""
    low, high = columns.lower, columns.upper
    if low[j] == high[j]:
        i, j = j, i
    if low[i] == high[i]:
        _add(terms, c * float(low[i]), j)
    else:
        _add(terms, c, i, j)


def objective_products(program: KKT) -> Terms:
    """The products of the objective, with every shadow price in terms of multipliers."""
    terms: Terms = {}
    for i, j, c in quadratic_terms(program.objective, 0):
        _add(terms, c, i, j)
    return price_terms(program)(terms)


def price_terms(program: KKT) -> Callable[[Terms], Terms]:
    """What puts multipliers into products in the place of shadow prices, and numbers in that of
    fixed columns.
    """
    price: dict[int, list[tuple[int, float]]] = {}
    for r, kind in enumerate(program.kinds):
        if kind == "price":
            own, *others = linear_terms(program.rows.functions, r)
            price[own[0]] = [(j, -c / own[1]) for j, c in others]

    def written(terms: Terms) -> Terms:
        found: Terms = {key: c for key, c in terms.items() if len(key) < 2}
        for key, c in terms.items():
            if len(key) == 2:
                for k, a in price.get(key[0], [(key[0], 1.0)]):
                    for m, b in price.get(key[1], [(key[1], 1.0)]):
                        _multiply(found, a * b * c, k, m, program.columns)
        return {key: c for key, c in found.items() if c}

    return written


def identities(program: KKT, read: set[int]) -> Iterator[Terms]:
    """Combinations of monomials that are zero, of the followers whose columns are ``read``."""
    rows, columns = program.rows, program.columns
    owner = program.system.columns.owner
    of_column: dict[int, list[tuple[int, float]]] = {}
    of_row: list[tuple[int, int, float]] = []
    for pair in (*program.pairs, *program.equations):
        low, high = (columns.lower, columns.upper) if pair.row is None else (rows.lower, rows.upper)
        place = pair.column if pair.row is None else pair.row
        assert place is not None
        end = float((low if pair.side == "lower" else high)[place])
        if pair.row is None:
            of_column.setdefault(place, []).append((pair.multiplier, end))
        else:
            of_row.append((pair.row, pair.multiplier, end))
    concerned = {int(owner[j]) for j in read if j < owner.size and owner[j] > 0}
    concerned |= {int(rows.follower[r]) for r, multiplier, _ in of_row if multiplier in read}
    first = program.kinds.index("stationarity") if program.stationary else 0
    for k, j in enumerate(program.stationary):
        r = first + k
        if int(owner[j]) in concerned and _is_linear(rows.functions, r):
            ends = dict(of_column.get(j, []))
            terms: Terms = {}
            for column, c in linear_terms(rows.functions, r):
                if column in ends:
                    _add(terms, c * ends[column], column)
                else:
                    _multiply(terms, c, j, column, columns)
            _add(terms, -float(rows.lower[r]), j)
            yield terms
    for r, multiplier, end in of_row:
        if int(rows.follower[r]) in concerned and _is_linear(rows.functions, r):
            terms = {}
            for column, c in linear_terms(rows.functions, r):
                _multiply(terms, c, multiplier, column, columns)
            _add(terms, -end, multiplier)
            yield terms


def _is_linear(functions: Functions, row: int) -> bool:
    return row not in functions.quadratic and row not in functions.trees


def _weights(products: Terms, identities: Iterable[Terms]) -> Array | None:
    """Weights of the identities whose products add up to those given; None where none do."""
    numbers = _Numbers()
    target = [(numbers.of(key), c) for key, c in products.items()]
    entries: list[tuple[int, int, float]] = []
    count = 0
    for count, terms in enumerate(identities, start=1):
        check()
        entries += [(numbers.of(k), count - 1, c) for k, c in terms.items() if len(k) == 2 and c]
    if not entries:
        return None
    i, j, c = zip(*entries, strict=True)
    M = sp.csc_array((c, (i, j)), shape=(len(numbers.place), count))
    q = np.zeros(len(numbers.place))
    for place, value in target:
        q[place] += value
    scale = float(np.abs(q).max())
    normal = sp.csc_matrix(M.T @ M + SHIFT * sp.eye_array(count))
    factor = splu(normal)
    w = np.zeros(count)
    left = q
    for _ in range(ROUNDS):
        w = w + factor.solve(np.asarray(M.T @ left))
        left = q - M @ w
        if float(np.abs(left).max()) <= 1e-2 * GONE * scale:
            break
    if float(np.abs(left).max()) > GONE * scale:
        return None
    w[np.abs(w) < 1e-12 * np.abs(w).max()] = 0.0
    return np.asarray(w)
