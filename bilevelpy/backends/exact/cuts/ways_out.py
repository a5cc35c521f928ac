"""The ways out of a cut: rows that its response breaks at some x, and what each is worth.

A row that no x within the bounds breaks is none, one of whole numbers is broken halfway to its next
value, and one of which variables may fall back only costs something (:mod:`fallback`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.cuts.fallback import fallback, slopes_of
from bilevelpy.backends.exact.responses.kinks import kink_columns
from bilevelpy.numerics.programs.follower import row_scales
from bilevelpy.reductions.rewriting.fixing import placed
from bilevelpy.reductions.rewriting.intervals import column_ranges, tree_range
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import linear_terms, tree_of

if TYPE_CHECKING:
    from bilevelpy.backends.exact.cuts.fallback import Slopes
    from bilevelpy.backends.exact.responses.cut import Cut
    from bilevelpy.backends.exact.responses.followers import Followers
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Ends = tuple[float, float]

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
class Way:
    """A row of the follower that its response breaks at some x: beyond its ``end`` by ``by`` at
    least, half a step where it goes by ``whole`` ones, between ``least`` and ``most`` over all x.
    ``cost`` is what it costs at most to fall back where it is broken, with the columns ``moved``;
    None where that is no way.
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
    moved: tuple[int, ...] = ()


class Rules:
    """What all cuts of one follower share: its objective, its rows, their slopes and ranges."""

    def __init__(self, run: Followers, k: int) -> None:
        self.system: System = run.system
        self.objective, self.rows = run.given(k)
        self.own = self.system.columns.owner == k + 1
        self.low, self.high = column_ranges(self.system)
        self.slopes: Slopes | None = None
        if not bool(kink_columns(self.system)[self.own].any()):
            self.slopes = slopes_of(
                self.system.columns, self.objective, self.rows, self.own, (self.low, self.high)
            )

    def ways_out(self, cut: Cut, margin: float) -> list[Way]:
        """The rows, and the bounds of what moves, that the response of a cut may break."""
        columns = self.system.columns
        found = placed(self.rows.functions, self.own, cut.response, cut.slopes)
        scales = row_scales(self.rows, cut.response)
        least, most = ranges(found, self.low, self.high)
        ways: list[Way] = []
        for r in range(self.rows.count):
            if r not in cut.tight and found.reads(r):
                ends = float(self.rows.lower[r]), float(self.rows.upper[r])
                span = float(least[r]), float(most[r])
                made = self._ways(found, r, ends, span, float(scales[r]), margin)
                ways += made if cut.slopes is not None else [self._priced(cut, w) for w in made]
        if cut.slopes is not None:
            moving = np.flatnonzero(np.diff(cut.slopes.indptr))
            values = Functions(cut.response[moving], sp.csr_array(cut.slopes[moving]))
            least, most = ranges(values, self.low, self.high)
            for place, j in enumerate(moving):
                ends = float(columns.lower[j]), float(columns.upper[j])
                span = float(least[place]), float(most[place])
                scale = max(1.0, abs(float(cut.response[j])))
                ways += self._ways(values, place, ends, span, scale, margin)
        return ways

    def _ways(
        self, functions: Functions, row: int, ends: Ends, span: Ends, scale: float, margin: float
    ) -> list[Way]:
        """The ways beyond the ends of one row, which is within ``span`` over all x."""
        sides = (
            (ends[1], True, span[0] - ends[1], span[1] - ends[1]),
            (ends[0], False, ends[0] - span[1], ends[0] - span[0]),
        )
        if all(b <= NEVER * scale for _, _, _, b in sides):
            return []
        steps = whole_steps(self.system, functions, row, ends)
        ways = []
        for (end, above, a, b), whole in zip(sides, steps, strict=True):
            if b > NEVER * scale:
                by = max(whole, margin * scale)
                ways.append(Way(functions, row, end, above, by, scale, whole == by > 0.0, a, b))
        return ways

    def _priced(self, cut: Cut, way: Way) -> Way:
        """The way with what falling back costs where its row is broken, if that then holds at
        every x.
        """
        if self.slopes is None:
            return way
        made = fallback(self.slopes, self.rows, cut.response, way.row, way.above)
        if made is None:
            return way
        there, cost, moved = made
        functions = self.rows.functions
        if way.row in functions.quadratic:
            back = placed(functions.take([way.row]), self.own, there)
            least, most = ranges(back, self.low, self.high)
            beyond = float(most[0]) - way.end if way.above else way.end - float(least[0])
        else:
            shift = float(self.slopes.least[way.row] @ (there - cut.response)[self.slopes.own])
            beyond = way.most + (shift if way.above else -shift)
        if not beyond <= NEVER * way.scale:
            return way
        return replace(way, cost=cost, moved=moved)


def ranges(functions: Functions, low: Array, high: Array) -> tuple[Array, Array]:
    """Least and greatest values of functions over ranges of the columns."""
    plus = sp.csr_array(functions.linear.maximum(0.0))
    minus = sp.csr_array(functions.linear.minimum(0.0))
    for part in (plus, minus):
        part.eliminate_zeros()  # zero times an infinite end is no number
    least = functions.constant + plus @ low + minus @ high
    most = functions.constant + plus @ high + minus @ low
    for r in functions.trees.keys() | functions.quadratic.keys():
        tree = tree_of(functions, r)
        least[r], most[r] = tree_range(tree, low, high)[id(tree)]
    return least, most


def whole_steps(system: System, functions: Functions, row: int, ends: Ends) -> tuple[float, float]:
    """Half of what a row that takes the values ``c + g n`` with whole n only lies beyond its upper
    and its lower end where it breaks them: there is a next value. Nothing for other rows.
    """
    if row in functions.trees or row in functions.quadratic:
        return 0.0, 0.0
    terms = [(j, c) for j, c in linear_terms(functions, row) if c]
    if not terms or not all(system.columns.integer[j] for j, _ in terms):
        return 0.0, 0.0
    unit = common(np.array([c for _, c in terms]))
    if unit == 0.0:
        return 0.0, 0.0
    lower, upper = ((end - float(functions.constant[row])) / unit for end in ends)
    # An end that is a value of the row up to rounding is met there, not broken.
    above = unit * (math.floor(upper + WHOLE) + 1.0 - upper) if math.isfinite(upper) else 0.0
    below = unit * (lower - math.ceil(lower - WHOLE) + 1.0) if math.isfinite(lower) else 0.0
    return 0.5 * above, 0.5 * below


def common(numbers: Array) -> float:
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
