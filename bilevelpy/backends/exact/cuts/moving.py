"""Responses that move with x: the vertex of a follower's rows that a response lies at.

Where the rows that are tight at a response leave its real numbers no freedom, they say where it
goes with x, as long as they stay tight::

    A z + C x = b      ->      z(x) = inv(A) (b - C x)

A cut from ``z(x)`` holds at every x, as one from ``z`` does, and these rows leave no way out of it:
it says in one what cuts from single responses would only come near to, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls

from bilevelpy.backends.exact.responses.cut import Cut
from bilevelpy.backends.exact.responses.kinks import kink_columns
from bilevelpy.backends.nlp.branches import slopes_at
from bilevelpy.reductions.rewriting.fixing import placed
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.backends.exact.responses.followers import Followers

Array = np.ndarray[Any, np.dtype[Any]]

# A row is tight where its slack is at most this, relative to 1 and its end.
TIGHT = 1e-6
# A normal counts as one more where at least this part of it is not in the span of the others.
INDEPENDENT = 1e-6
# Slopes above this carry rounding too far.
STEEPEST = 1e4
# Entries of slopes below this, relative to the largest, are rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class _Hold:
    """``normal @ z + others @ v == end`` for the real numbers z of a follower: a row of its that is
    tight (by its number), or a bound. ``signs`` are those that its multiplier may have.
    """

    normal: Array
    others: Array
    end: float
    signs: tuple[float, ...]
    row: int | None = None


def moving(run: Followers, cut: Cut) -> Cut | None:
    """The cut from the response as it moves with x; None where it does not, or where what holds it
    is not affine.
    """
    columns = run.system.columns
    own = columns.owner == cut.follower + 1
    real = np.flatnonzero(own & ~columns.integer)
    if not real.size or bool(kink_columns(run.system)[own].any()):
        return None
    holds = _rows(run, cut, own, real)
    if not any(h.others.any() for h in holds):
        return None
    holds += _bounds(run, cut, real)
    nothing = np.zeros(own.size)
    still = [_Hold(e, nothing, float(cut.response[j]), ()) for e, j in _units(real)]
    # Rows that hold z against its objective come first, what is free at last.
    chosen = _independent([*_weighed(run, cut, real, holds), *still], real.size)
    left = np.array([h.normal for h in chosen])
    slopes = np.linalg.solve(left, -np.array([h.others for h in chosen]))
    largest = float(np.abs(slopes).max(initial=0.0))
    slopes[np.abs(slopes) <= ROUNDING * largest] = 0.0
    if not slopes.any() or largest > STEEPEST:
        return None
    response = cut.response.copy()
    response[real] = np.linalg.solve(left, np.array([h.end for h in chosen]))
    entries = sp.coo_array(slopes)
    shape = (own.size, own.size)
    made = sp.csr_array((entries.data, (real[entries.row], entries.col)), shape=shape)
    tight = frozenset(h.row for h in chosen if h.row is not None)
    return replace(cut, response=response, slopes=made, tight=tight)


def _rows(run: Followers, cut: Cut, own: Array, real: Array) -> list[_Hold]:
    """The follower's rows that are tight, with its whole numbers as they are."""
    _, rows = run.given(cut.follower)
    whole = own & run.system.columns.integer
    functions = placed(rows.functions, whole, cut.response)
    found = []
    for r in range(rows.count):
        if r in functions.trees or r in functions.quadratic:
            continue
        entries = functions.linear[[r]].toarray().reshape(-1)
        value = functions.at(r, cut.response)
        others = np.where(own, 0.0, entries)
        for end, signs in _ends(float(rows.lower[r]), float(rows.upper[r])):
            if entries[real].any() and abs(value - end) <= TIGHT * max(1.0, abs(end)):
                rest = end - float(functions.constant[r])
                found.append(_Hold(entries[real], others, rest, signs, r))
    return found


def _bounds(run: Followers, cut: Cut, real: Array) -> list[_Hold]:
    """The bounds that the response lies at."""
    columns, nothing = run.system.columns, np.zeros(run.system.columns.count)
    return [
        _Hold(e, nothing, end, signs)
        for e, j in _units(real)
        for end, signs in _ends(float(columns.lower[j]), float(columns.upper[j]))
        if abs(cut.response[j] - end) <= TIGHT * max(1.0, abs(end))
    ]


def _ends(lower: float, upper: float) -> list[tuple[float, tuple[float, ...]]]:
    """The finite ends, with the signs of multipliers there."""
    if lower == upper:
        return [(lower, (-1.0, 1.0))]
    return [(e, (s,)) for e, s in ((lower, -1.0), (upper, 1.0)) if math.isfinite(e)]


def _units(real: Array) -> Iterator[tuple[Array, int]]:
    return zip(np.eye(real.size), real.tolist(), strict=True)


def _weighed(run: Followers, cut: Cut, real: Array, holds: list[_Hold]) -> list[_Hold]:
    """What has a multiplier first, then the rest."""
    objective, _ = run.given(cut.follower)
    slope = slopes_at(tree_of(objective, 0), real.tolist(), cut.response)
    if slope is None or not np.isfinite(slope).all():
        return holds
    signs = [(n, s) for n, h in enumerate(holds) for s in h.signs]
    weights, _ = nnls(np.array([s * holds[n].normal for n, s in signs]).T, -slope)
    least = TIGHT * max(1.0, float(np.abs(slope).max()))
    active = {n for (n, _), weight in zip(signs, weights, strict=True) if weight > least}
    order = sorted(range(len(holds)), key=lambda n: (n not in active, n))
    return [holds[n] for n in order]


def _independent(holds: list[_Hold], count: int) -> list[_Hold]:
    """The first ``count`` whose normals are independent of those before."""
    chosen: list[_Hold] = []
    basis = np.zeros((0, count))
    for hold in holds:
        unit = hold.normal / float(np.linalg.norm(hold.normal))
        rest = unit - basis.T @ (basis @ unit)
        rest -= basis.T @ (basis @ rest)
        size = float(np.linalg.norm(rest))
        if size > INDEPENDENT:
            basis = np.vstack([basis, rest / size])
            chosen.append(hold)
    return chosen
