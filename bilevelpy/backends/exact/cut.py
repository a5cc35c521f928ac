"""A cut from a follower's response, and its rows in a relaxation.

For a response ``z`` of the follower every bilevel feasible point satisfies::

    f(x, y) <= f(x, z)    or    z breaks a row of the follower at x

``z`` may move with x, as long as it is affine: rows that are tight along it leave no way out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.closure import STRICT, is_affine
from bilevelpy.backends.exact.fallback import fallback
from bilevelpy.numerics.programs.follower import row_scales
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.difference import difference
from bilevelpy.reductions.fixing import fix, mapped
from bilevelpy.reductions.intervals import column_ranges, tree_range
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import linear_terms, tree_of

if TYPE_CHECKING:
    from bilevelpy.backends.exact.followers import Followers
    from bilevelpy.backends.exact.scip import Model
    from bilevelpy.reductions.polynomial import Sparse
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Ends = tuple[float, float]

# Responses as good as that of a cut meet it with this to spare: SCIP loses points that meet a row
# by nothing, and a tie is where the leader's choice lies.
ROOM = 2e-8
# A row that no x breaks by more than this (relative to its terms) is no way out.
NEVER = 1e-14
# Numbers of steps within this of a whole one are whole.
WHOLE = 1e-6
# Coefficients are multiples of a common step where their ratios are fractions, to this accuracy,
# with denominators up to so much.
SAME_RATIO, DENOMINATOR = 1e-12, 1000
# Numbers below this are whole without rounding.
LARGEST = 2.0**53


@dataclass(frozen=True, slots=True)
class Cut:
    """A response of follower k, and by how much the objective at another one may be above that at
    this one. The own columns are at ``response + slopes @ v`` (those of others do not matter), and
    the follower's rows ``tight`` (counted among its own) hold there at every x.
    """

    follower: int
    response: Array
    room: float = ROOM
    slopes: Sparse | None = None
    tight: frozenset[int] = frozenset()

    def is_same(self, other: Cut, own: Array, within: float) -> bool:
        """Whether both are the same response everywhere."""
        if self.follower != other.follower:
            return False
        if not np.allclose(self.response[own], other.response[own], rtol=0.0, atol=within):
            return False
        parts = [c.slopes for c in (self, other) if c.slopes is not None]
        if len(parts) == 2:
            return bool(abs(parts[0] - parts[1]).max() <= within)
        return not parts or bool(abs(parts[0]).max() <= within)


def write_cut(
    run: Followers, model: Model, cut: Cut, margin: float = 0.0, twin: Model | None = None
) -> None:
    """The cut as rows of a relaxation; with a ``margin`` (relative), z has to break its row by
    that at least: points inside of what the cut allows, and no relaxation any more. A ``twin``
    breaks the same row clearly (see :mod:`~bilevelpy.backends.exact.closure`).
    """
    k, system = cut.follower, run.system
    objective, _ = run.given(k)
    own = system.columns.owner == k + 1
    there = placed(objective, own, cut.response, cut.slopes)
    fall = difference(system.lower_objectives.take([k]), there)
    ways = _ways_out(run, cut, margin)
    points = [model]
    if twin is not None and is_affine(system.columns, fall, 0):
        points.append(twin)
    paid = sum((w.cost * _broken(model, w, twin, system) for w in ways if w.cost), 0.0)
    ways = [w for w in ways if w.cost is None]
    if not ways:
        for point in points:
            point.row(point.expression(fall, 0, 1.0) - paid, -math.inf, cut.room)
        return
    choices = [model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")]
    for point in points:
        _obey(point, choices[0], point.expression(fall, 0, 1.0) - paid, cut.room)
    for way in ways:
        choices.append(_way_out(model, way, twin, system))
    model.scip.addCons(sum(choices[1:], choices[0] + 0.0) >= 1.0)


def _way_out(model: Model, way: _Way, twin: Model | None, system: System) -> Any:
    """A binary that, where it is 1, lets the response break a row."""
    sign, end = (-1.0, way.end) if way.above else (1.0, -way.end)
    z = _switch(model, sign * model.expression(way.functions, way.row) + end + way.by, 0.0)
    strict = way.by == 0.0 and is_affine(system.columns, way.functions, way.row)
    if twin is not None and strict:
        value = sign * twin.expression(way.functions, way.row) + end
        _obey(twin, z, value, -STRICT * way.scale)
    return z


def _broken(model: Model, way: _Way, twin: Model | None, system: System) -> Any:
    """1 at most where the row is broken, else 0: by how many steps it is where that is no more than
    one, a binary otherwise.
    """
    step = 2.0 * way.by
    stepwise = way.whole and way.least >= -NEVER * way.scale
    if not stepwise:
        return _way_out(model, way, twin, system)
    sign = 1.0 if way.above else -1.0
    steps = sign * (model.expression(way.functions, way.row) - way.end) * (1.0 / step)
    if way.most <= step + NEVER * way.scale:
        return steps
    z = model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")
    model.scip.addCons(z - steps <= 0.0)
    return z


@dataclass(frozen=True, slots=True)
class _Way:
    """A row of the follower that its response breaks at some x: beyond its ``end`` by ``by`` at
    least, half a step where it goes by ``whole`` ones, between ``least`` and ``most`` over all x.
    ``cost`` is what it costs at most to fall back where it is broken; None where that is no way.
    """

    functions: Functions
    row: int
    end: float
    above: bool
    by: float
    scale: float
    whole: bool
    least: float
    most: float
    cost: float | None = None


def _ways_out(run: Followers, cut: Cut, margin: float) -> list[_Way]:
    """The rows, and the bounds of what moves, that the response of a cut may break."""
    k, system = cut.follower, run.system
    _, rows = run.given(k)
    own = system.columns.owner == k + 1
    found = placed(rows.functions, own, cut.response, cut.slopes)
    scales = row_scales(rows, cut.response)
    ways: list[_Way] = []

    def add(functions: Functions, row: int, ends: Ends, scale: float) -> None:
        above, below = _whole_steps(system, functions, row, ends)
        tree = tree_of(functions, row)
        least, most = tree_range(tree, *column_ranges(system))[id(tree)]
        for end, over, whole, a, b in (
            (ends[1], True, above, least - ends[1], most - ends[1]),
            (ends[0], False, below, ends[0] - most, ends[0] - least),
        ):
            if b > NEVER * scale:
                by = max(whole, margin * scale)
                ways.append(_Way(functions, row, end, over, by, scale, whole == by > 0.0, a, b))

    for r in range(rows.count):
        if r not in cut.tight and found.reads(r):
            add(found, r, (float(rows.lower[r]), float(rows.upper[r])), float(scales[r]))
    if cut.slopes is None:
        ways = [replace(w, cost=_cost(run, cut, own, w)) for w in ways]
    if cut.slopes is not None:
        moving = np.flatnonzero(np.diff(cut.slopes.indptr))
        values = Functions(cut.response[moving], sp.csr_array(cut.slopes[moving]))
        for place, j in enumerate(moving):
            ends = float(system.columns.lower[j]), float(system.columns.upper[j])
            add(values, place, ends, max(1.0, abs(float(cut.response[j]))))
    return ways


def _cost(run: Followers, cut: Cut, own: Array, way: _Way) -> float | None:
    """What falling back costs where the row of a way is broken, if it then holds at every x."""
    made = fallback(run, cut.follower, cut.response, way.row, way.above)
    if made is None:
        return None
    there, cost = made
    _, rows = run.given(cut.follower)
    functions = placed(rows.functions.take([way.row]), own, there)
    tree = tree_of(functions, 0)
    least, most = tree_range(tree, *column_ranges(run.system))[id(tree)]
    beyond = most - way.end if way.above else way.end - least
    return cost if beyond <= NEVER * way.scale else None


def placed(
    functions: Functions, own: Array, response: Array, slopes: Sparse | None = None
) -> Functions:
    """The functions with a follower's own columns at ``response + slopes @ v``; only the others
    still move.
    """
    width = own.size
    move = sp.diags_array(np.where(own, 0.0, 1.0)).tocsr()
    base = np.where(own, response, 0.0)
    if slopes is not None:
        move = sp.csr_array(move + slopes)
        functions = _moved(functions, response, slopes)
    fixed = fix(functions, np.flatnonzero(~own), response)
    constant = fixed.constant + fixed.linear @ base
    linear = sp.csr_array(fixed.linear @ move).tolil()
    quadratic = {}
    for r, q in fixed.quadratic.items():
        constant[r] += 0.5 * float(base @ (q @ base))
        linear[[r], :] = linear[[r], :].toarray() + (move.T @ (q @ base)).reshape(1, width)
        kept = sp.csr_array(move.T @ q @ move)
        kept.eliminate_zeros()
        if kept.nnz:
            quadratic[r] = kept
    rows = linear.tocsr()
    rows.eliminate_zeros()
    return Functions(constant, rows, quadratic, fixed.trees)


def _moved(functions: Functions, response: Array, slopes: Sparse) -> Functions:
    """Trees with the response, as it moves, in place of the columns that move."""
    moves: dict[int, sc.Scalar] = {}
    for j in np.flatnonzero(np.diff(slopes.indptr)):
        span = slice(slopes.indptr[j], slopes.indptr[j + 1])
        terms = zip(slopes.indices[span], slopes.data[span], strict=True)
        parts = [sc.mul(sc.Num(float(c)), sc.Col(int(i))) for i, c in terms]
        moves[int(j)] = sc.add(*parts, sc.Num(float(response[j])))
    trees = {
        r: mapped(tree, lambda c: moves.get(c.index, c)) for r, tree in functions.trees.items()
    }
    return Functions(functions.constant, functions.linear, functions.quadratic, trees)


def _switch(model: Model, expression: Any, level: float) -> Any:
    """A binary that, where it is 1, forces ``expression <= level``."""
    z = model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")
    _obey(model, z, expression, level)
    return z


def _obey(model: Model, z: Any, expression: Any, level: float) -> None:
    """``expression <= level`` where the binary z is 1."""
    scip = model.scip
    s = scip.addVar(f"value.{scip.getNVars()}", "C", lb=None, ub=None)
    scip.addCons(s - expression >= 0.0)
    scip.addConsIndicator(s <= level, z)


def _whole_steps(system: System, functions: Functions, row: int, ends: Ends) -> tuple[float, float]:
    """Half of what a row that takes the values ``c + g n`` with whole n only lies beyond its upper
    and its lower end where it breaks them: there is a next value. Nothing for other rows.
    """
    if row in functions.trees or row in functions.quadratic:
        return 0.0, 0.0
    terms = [(j, c) for j, c in linear_terms(functions, row) if c]
    if not terms or not all(system.columns.integer[j] for j, _ in terms):
        return 0.0, 0.0
    unit = _common(np.array([c for _, c in terms]))
    if unit == 0.0:
        return 0.0, 0.0
    lower, upper = ((end - float(functions.constant[row])) / unit for end in ends)
    # An end that is a value of the row up to rounding is met there, not broken.
    above = unit * (math.floor(upper + WHOLE) + 1.0 - upper) if math.isfinite(upper) else 0.0
    below = unit * (lower - math.ceil(lower - WHOLE) + 1.0) if math.isfinite(lower) else 0.0
    return 0.5 * above, 0.5 * below


def _common(numbers: Array) -> float:
    """The largest number that all are whole multiples of; 0 where there is none of a reasonable
    size.
    """
    if bool((numbers == np.rint(numbers)).all()) and float(np.abs(numbers).max()) < LARGEST:
        return float(np.gcd.reduce(numbers.astype(np.int64)))
    least = float(np.abs(numbers).min())
    ratios = [Fraction(abs(float(c)) / least).limit_denominator(DENOMINATOR) for c in numbers]
    apart = np.abs(np.abs(numbers) / least - np.array([float(r) for r in ratios]))
    if bool((apart > SAME_RATIO * np.array([float(r) for r in ratios])).any()):
        return 0.0
    parts = math.lcm(*(r.denominator for r in ratios))
    if parts > DENOMINATOR:
        return 0.0
    return least / parts * math.gcd(*(int(r * parts) for r in ratios))
