"""Complementarity pairs as what mixed-integer solvers read: SOS1 sets, indicators, or big-M.

``sos1`` and ``indicators`` are exact for every size of slack and multiplier. ``big_m`` is exact
only where every multiplier stays below its constant; a constant of a slack follows from bounds of
the variables, one of a multiplier has to be known (``assume dual(c) in [lo, hi]``) or be given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.columns import Columns
from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import Functions, Rows, join_rows

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT, Pair


@dataclass(frozen=True, slots=True)
class Indicator:
    """Where the binary column has ``value``, ``sum coefficients * columns <= bound``."""

    name: str
    binary: int
    value: int
    terms: tuple[tuple[int, float], ...]
    bound: float


@dataclass(frozen=True, slots=True)
class Mixed:
    """``min objective`` under ``rows``, bounds and integrality of ``columns``, SOS1 ``sets`` (pairs
    of columns of which one is zero) and ``indicators``.

    ``constants`` holds, for big-M, (pair, constant of the slack, constant of the multiplier).
    """

    kkt: KKT
    columns: Columns
    objective: Functions
    rows: Rows
    sets: tuple[tuple[str, tuple[int, int]], ...] = ()
    indicators: tuple[Indicator, ...] = ()
    constants: tuple[tuple[str, float, float], ...] = ()
    multiplier_limits: tuple[tuple[int, float], ...] = ()


def sos1(kkt: KKT) -> Mixed:
    """A slack column for every pair (or the variable itself, where its lower bound is zero), and
    the set {slack, multiplier}.
    """
    columns, rows, slacks = _with_slacks(kkt)
    sets = [(p.name, (s, p.multiplier)) for p, s in zip(kkt.pairs, slacks, strict=True)]
    width = columns.count
    return Mixed(kkt, columns, kkt.objective.widened(width), rows, tuple(sets))


def indicators(kkt: KKT) -> Mixed:
    """A binary for every pair: 1 closes the slack, 0 the multiplier."""
    columns, rows, slacks = _with_slacks(kkt)
    count = len(kkt.pairs)
    first = columns.count
    columns = _binaries(columns, kkt)
    made: list[Indicator] = []
    for k, (pair, slack) in enumerate(zip(kkt.pairs, slacks, strict=True)):
        made.append(Indicator(f"{pair.name}.slack", first + k, 1, ((slack, 1.0),), 0.0))
        made.append(
            Indicator(f"{pair.name}.multiplier", first + k, 0, ((pair.multiplier, 1.0),), 0.0)
        )
    width = first + count
    return Mixed(
        kkt, columns, kkt.objective.widened(width), rows.widened(width), indicators=tuple(made)
    )


def big_m(kkt: KKT, dual_bound: float | None = None, target: str = "big-M") -> Mixed:
    """A binary z for every pair: ``slack <= P (1 - z)``, ``multiplier <= D z``.

    Parameters
    ----------
    dual_bound
        D where the model does not bound the multiplier.

    Raises
    ------
    Refused
        BLV0705 for a multiplier without bound, BLV0708 for a slack without.
    """
    program = kkt.system.bound.program
    first = kkt.columns.count
    columns = _binaries(kkt.columns, kkt)
    width = columns.count
    first_row = kkt.kinds.index("stationarity") if kkt.stationary else 0
    place = {column: k for k, column in enumerate(kkt.stationary)}
    own: dict[int, set[int]] = {}
    for pair in kkt.pairs:
        if pair.column is not None:
            own.setdefault(pair.column, set()).add(pair.multiplier)
    names: list[str] = []
    terms_of: list[Terms] = []
    ends: list[float] = []
    constants: list[tuple[str, float, float]] = []
    limits: list[tuple[int, float]] = []
    for k, pair in enumerate(kkt.pairs):
        terms, end = slack_terms(kkt, pair)
        top = end + sum(max(c * kkt.columns.lower[j], c * kkt.columns.upper[j]) for j, c in terms)
        if not np.isfinite(top):
            raise refuse(
                program,
                "BLV0708",
                pair.span,
                "a variable in it has no finite bound",
                hint="bound the variables, or use SOS1 sets, which need no constants",
                row=pair.name,
            )
        known = float(kkt.columns.upper[pair.multiplier])
        if pair.column is not None:
            row = first_row + place[pair.column]
            known = min(known, _gradient_limit(kkt, pair.side, row, own[pair.column]))
        limit = known if np.isfinite(known) else dual_bound
        if limit is None:
            raise refuse(
                program,
                "BLV0705",
                pair.span,
                f"{target} needs one",
                hint="write `assume dual(...) in [lo, hi];`, give `dual_bound`, or use SOS1 sets",
                row=pair.name,
            )
        top = max(0.0, float(top))
        z = first + k
        # slack = end + terms <= top (1 - z)
        terms_of.append({**{(j,): c for j, c in terms}, (z,): top})
        terms_of.append({(pair.multiplier,): 1.0, (z,): -limit})
        names += [f"slack.{pair.name}", f"mult.{pair.name}"]
        ends += [top - end, 0.0]
        constants.append((pair.name, top, float(limit)))
        limits.append((pair.multiplier, float(limit)))
    low = [-np.inf] * len(ends)
    return Mixed(
        kkt,
        columns,
        kkt.objective.widened(width),
        join_rows([kkt.rows.widened(width), terms_rows(names, terms_of, low, ends, width)], width),
        constants=tuple(constants),
        multiplier_limits=tuple(limits),
    )


def _gradient_limit(kkt: KKT, side: str, row: int, own: set[int]) -> float:
    """A bound of the multiplier of a variable's bound: of its two (``own``) only one is positive,
    and their difference is the rest of the stationarity row, whose range may be known.
    """
    functions = kkt.rows.functions
    if row in functions.quadratic or row in functions.trees:
        return np.inf
    sign = 1.0 if side == "lower" else -1.0
    span = slice(functions.linear.indptr[row], functions.linear.indptr[row + 1])
    total = -sign * float(kkt.rows.upper[row])
    for j, c in zip(functions.linear.indices[span], functions.linear.data[span], strict=True):
        if int(j) not in own:
            ends = (kkt.columns.lower[j], kkt.columns.upper[j])
            total += max(sign * c * end for end in ends)
    return max(0.0, float(total))


def slack_terms(kkt: KKT, pair: Pair) -> tuple[list[tuple[int, float]], float]:
    """The slack of a linear pair as (column, coefficient) terms and a constant."""
    sign = -1.0 if pair.side == "upper" else 1.0
    if pair.row is None:
        assert pair.column is not None
        ends = kkt.columns.upper if pair.side == "upper" else kkt.columns.lower
        return [(pair.column, sign)], -sign * float(ends[pair.column])
    functions = kkt.rows.functions
    if pair.row in functions.quadratic or pair.row in functions.trees:
        raise refuse(
            kkt.system.bound.program,
            "BLV0701",
            pair.span,
            "not linear",
            target="a form with constants for slacks",
            what=f"the constraint `{pair.name}`",
        )
    linear = functions.linear
    span = slice(linear.indptr[pair.row], linear.indptr[pair.row + 1])
    terms = [
        (int(j), sign * float(c))
        for j, c in zip(linear.indices[span], linear.data[span], strict=True)
    ]
    ends = kkt.rows.upper if pair.side == "upper" else kkt.rows.lower
    return terms, -sign * float(ends[pair.row])


def _with_slacks(kkt: KKT) -> tuple[Columns, Rows, list[int]]:
    """Slack columns; a row of pairs becomes one equation for each of its sides."""
    columns = kkt.columns
    names: list[str] = []
    slacks: list[int] = []
    paired: dict[int, list[tuple[int, str]]] = {}
    bounds: list[tuple[int, int, str]] = []
    for pair in kkt.pairs:
        if (
            pair.row is None
            and pair.column is not None
            and pair.side == "lower"
            and columns.lower[pair.column] == 0.0
        ):
            slacks.append(pair.column)
            continue
        place = columns.count + len(names)
        names.append(f"slack.{pair.name}")
        slacks.append(place)
        if pair.row is None:
            assert pair.column is not None
            bounds.append((pair.column, place, pair.side))
        else:
            paired.setdefault(pair.row, []).append((place, pair.side))
    count = len(names)
    columns = columns.extended(
        names, np.zeros(count), np.full(count, np.inf), np.zeros(count, dtype=bool)
    )
    width = columns.count
    rows = kkt.rows.widened(width)
    sided = [(r, place, side) for r, sides in paired.items() for place, side in sides]
    low, high = columns.lower, columns.upper
    ends = [float(high[j] if side == "upper" else low[j]) for j, _, side in bounds]
    terms: list[Terms] = [
        {(j,): 1.0, (p,): 1.0 if side == "upper" else -1.0} for j, p, side in bounds
    ]
    shown = tuple(f"bound.{columns.names[j]}.{side}" for j, _, side in bounds)
    parts = [
        rows.take(r for r in range(rows.count) if r not in paired),
        _slack_rows(rows, sided, {r for r, sides in paired.items() if len(sides) > 1}),
        terms_rows(shown, terms, ends, ends, width),
    ]
    return columns, join_rows(parts, width), slacks


def _slack_rows(rows: Rows, sided: list[tuple[int, int, str]], both: set[int]) -> Rows:
    """Rows with their slack columns as equations: ``g + s = upper``, ``g - s = lower``."""
    taken = rows.take(r for r, *_ in sided)
    count, width = taken.functions.linear.shape
    signs = [1.0 if side == "upper" else -1.0 for *_, side in sided]
    entries = (signs, (np.arange(count), [place for _, place, _ in sided]))
    linear = taken.functions.linear + sp.csr_array(entries, shape=(count, width))
    functions = Functions(
        taken.functions.constant,
        sp.csr_array(linear),
        taken.functions.quadratic,
        taken.functions.trees,
    )
    ends = np.where(np.array(signs) > 0, taken.upper, taken.lower) if count else taken.upper
    names = tuple(
        f"{name}.{side}" if r in both else name
        for name, (r, _, side) in zip(taken.names, sided, strict=True)
    )
    return Rows(names, functions, ends, ends, taken.follower, taken.spans, taken.origin)


def _binaries(columns: Columns, kkt: KKT) -> Columns:
    count = len(kkt.pairs)
    return columns.extended(
        [f"z.{p.name}" for p in kkt.pairs],
        np.zeros(count),
        np.ones(count),
        np.ones(count, dtype=bool),
    )
