"""Strong duality in place of complementarity: one row for each follower, no sets and no binaries.

For a follower ``min (c + C x)'y + y'Q y / 2`` under rows ``L <= A y + B x <= U`` and bounds, the
stationarity rows times ``y`` and the feasible multipliers give ::

    (c + C x)'y + y'Q y + sum_r p_r (U_r - B_r x) - sum_r q_r (L_r - B_r x)
        + sum_j (mu_up_j up_j - mu_lo_j lo_j) + sum_e nu_e (b_e - B_e x)
    = sum of slack * multiplier

which is nonnegative, so that ``<= 0`` says that every pair is complementary (for ``Q = 0`` the left
side is the primal minus the dual objective). What is bilinear in it are products with ``x`` alone.
A product of a whole number with a bounded column becomes linear: ``x = lo + sum 2^k b_k`` with
binaries, and ``w = b v`` by McCormick's four rows, which are exact for a binary ``b``.

The row holds with equality at every feasible point: no constraint qualification is left, and with
free multipliers spatial branching returned false optima. Hence every multiplier needs a bound, from
the model or from the user; as with big-M, one that is too small cuts the optimum off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.mixed import Mixed
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import Functions, Rows, join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.kkt import KKT, Pair

Array = np.ndarray[Any, np.dtype[Any]]
Terms = dict[tuple[int, ...], float]
"""Coefficients of monomials: (), (i,) and (i, j) with i <= j."""
MOST_BITS = 30
"""Binaries of one whole number at most: more is no description of a number any more."""


def strong_duality(kkt: KKT, dual_bound: float | None = None, target: str = "this form") -> Mixed:
    """The conditions with one row of strong duality for each follower.

    Parameters
    ----------
    dual_bound
        Bound of multipliers that the model does not bound.

    Raises
    ------
    Refused
        BLV0705 for a multiplier without bound, BLV0701 for a row or an objective of a follower that
        is not of the class above.
    """
    _require_class(kkt, target)
    kkt = _bounded(kkt, dual_bound, target)
    made = [_gap(kkt, k + 1) for k in range(len(kkt.system.followers))]
    program = _Products(kkt)
    rows = [program.linear(terms) for terms in made]
    columns = kkt.columns.extended(
        program.names, np.array(program.low), np.array(program.high), np.array(program.whole, bool)
    )
    width = columns.count
    names = tuple(f"duality.{f.name}" for f in kkt.system.followers)
    gaps = _rows(names, rows, [-np.inf] * len(rows), [0.0] * len(rows), width)
    parts = [kkt.rows.widened(width), gaps]
    if program.rows:
        shown, terms, low, high = (list(part) for part in zip(*program.rows, strict=True))
        parts.append(_rows(tuple(shown), terms, low, high, width))
    limits = tuple(
        (p.multiplier, float(columns.upper[p.multiplier])) for p in (*kkt.pairs, *kkt.equations)
    )
    return Mixed(
        kkt,
        columns,
        kkt.objective.widened(width),
        join_rows(parts, width),
        multiplier_limits=limits,
    )


def _require_class(kkt: KKT, target: str) -> None:
    system = kkt.system
    hint = "SOS1 sets take rows and objectives of other classes"
    for k, follower in enumerate(system.followers):
        if k in system.lower_objectives.trees:
            span = system.bound.program.level(follower.level).objective.span
            raise refuse(
                system.bound.program, "BLV0701", span, "neither linear nor quadratic",
                target=f"strong duality in {target}", what="this objective", hint=hint,
            )  # fmt: skip
    for pair in (*kkt.pairs, *kkt.equations):
        functions = kkt.rows.functions
        if pair.row is not None and (
            pair.row in functions.quadratic or pair.row in functions.trees
        ):
            raise refuse(
                system.bound.program, "BLV0701", pair.span, "not linear",
                target=f"strong duality in {target}", what=f"the row `{pair.name}`", hint=hint,
            )  # fmt: skip


def _bounded(kkt: KKT, dual_bound: float | None, target: str) -> KKT:
    """The conditions with finite bounds of every multiplier."""
    low, high = kkt.columns.lower.copy(), kkt.columns.upper.copy()
    for pair in (*kkt.pairs, *kkt.equations):
        j = pair.multiplier
        if np.isfinite(low[j]) and np.isfinite(high[j]):
            continue
        if dual_bound is None:
            raise refuse(
                kkt.system.bound.program, "BLV0705", pair.span, f"{target} needs one",
                hint="write `assume dual(...) in [lo, hi];`, give `dual_bound`, or use SOS1 sets",
                row=pair.name,
            )  # fmt: skip
        low[j], high[j] = max(low[j], -dual_bound), min(high[j], dual_bound)
    return replace(kkt, columns=replace(kkt.columns, lower=low, upper=high))


def _gap(kkt: KKT, follower: int) -> Terms:
    """The left side of the row of a follower (counted from 1)."""
    system = kkt.system
    owner = system.columns.owner
    terms: Terms = {}

    def add(coefficient: float, *columns: int) -> None:
        key = tuple(sorted(columns))
        terms[key] = terms.get(key, 0.0) + coefficient

    k = follower - 1
    for j, c in linear_terms(system.lower_objectives, k):
        if owner[j] == follower:
            add(c, j)
    if k in system.lower_objectives.quadratic:
        coo = system.lower_objectives.quadratic[k].tocoo()
        for i, j, c in zip(coo.row, coo.col, coo.data, strict=True):
            # y' H y for the follower's own block, y' H_yx x for the others.
            if owner[i] == follower:
                add(float(c), int(i), int(j))
    for pair in (*kkt.pairs, *kkt.equations):
        if pair.row is None:
            assert pair.column is not None
            if owner[pair.column] == follower:
                ends = kkt.columns.lower if pair.side == "lower" else kkt.columns.upper
                sign = -1.0 if pair.side == "lower" else 1.0
                add(sign * float(ends[pair.column]), pair.multiplier)
        elif kkt.rows.follower[pair.row] == follower:
            sign, end = _side(kkt, pair)
            add(sign * end, pair.multiplier)
            for j, c in linear_terms(kkt.rows.functions, pair.row):
                if owner[j] != follower:
                    add(-sign * c, pair.multiplier, j)
    return {key: c for key, c in terms.items() if c}


def _side(kkt: KKT, pair: Pair) -> tuple[float, float]:
    assert pair.row is not None
    if pair.side == "lower":
        return -1.0, float(kkt.rows.lower[pair.row])
    return 1.0, float(kkt.rows.upper[pair.row])


class _Products:
    """Makes products with whole numbers linear; keeps what it adds."""

    def __init__(self, kkt: KKT) -> None:
        self.kkt = kkt
        self.first = kkt.columns.count
        self.names: list[str] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[tuple[str, Terms, float, float]] = []
        self._bits: dict[int, list[tuple[float, int]]] = {}
        self._known: dict[tuple[int, int], int] = {}

    def linear(self, terms: Terms) -> Terms:
        """Terms without products that have a whole number and a bounded column in them."""
        found: Terms = {}

        def add(key: tuple[int, ...], c: float) -> None:
            found[key] = found.get(key, 0.0) + c

        for key, c in terms.items():
            chosen = self._chosen(key)
            if chosen is None:
                add(key, c)
                continue
            integer, other = chosen
            low = float(self.kkt.columns.lower[integer])
            if low:
                add((other,), c * low)
            for weight, bit in self._binaries(integer):
                add((self._product(bit, other),), c * weight)
        return found

    def _chosen(self, key: tuple[int, ...]) -> tuple[int, int] | None:
        if len(key) != 2 or key[0] == key[1]:
            return None
        columns = self.kkt.columns
        finite = np.isfinite(columns.lower) & np.isfinite(columns.upper)
        if not (finite[key[0]] and finite[key[1]]):
            return None
        for integer, other in (key, key[::-1]):
            width = columns.upper[integer] - columns.lower[integer]
            if columns.integer[integer] and width < 2.0**MOST_BITS:
                return integer, other
        return None

    def _column(self, name: str, low: float, high: float, whole: bool) -> int:
        self.names.append(name)
        self.low.append(low)
        self.high.append(high)
        self.whole.append(whole)
        return self.first + len(self.names) - 1

    def _binaries(self, integer: int) -> list[tuple[float, int]]:
        """(weight, binary) whose sum is the column minus its lower bound."""
        if integer not in self._bits:
            columns = self.kkt.columns
            low, high = float(columns.lower[integer]), float(columns.upper[integer])
            if (low, high) == (0.0, 1.0):
                self._bits[integer] = [(1.0, integer)]
                return self._bits[integer]
            count = int(high - low).bit_length()
            name = columns.names[integer]
            made = [(2.0**k, self._column(f"bit.{name}.{k}", 0.0, 1.0, True)) for k in range(count)]
            terms: Terms = {(integer,): 1.0}
            terms.update({(b,): -w for w, b in made})
            self.rows.append((f"bits.{name}", terms, low, low))
            self._bits[integer] = made
        return self._bits[integer]

    def _product(self, binary: int, other: int) -> int:
        """A column that equals ``binary * other``."""
        key = (binary, other)
        if key not in self._known:
            columns = self.kkt.columns
            low, high = float(columns.lower[other]), float(columns.upper[other])
            name = f"{self._name(binary)}*{columns.names[other]}"
            w = self._column(name, min(low, 0.0), max(high, 0.0), False)
            inf = np.inf
            self.rows += [
                (f"{name}.1", {(w,): 1.0, (binary,): -high}, -inf, 0.0),
                (f"{name}.2", {(w,): 1.0, (binary,): -low}, 0.0, inf),
                (f"{name}.3", {(w,): 1.0, (other,): -1.0, (binary,): -low}, -inf, -low),
                (f"{name}.4", {(w,): 1.0, (other,): -1.0, (binary,): -high}, -high, inf),
            ]
            self._known[key] = w
        return self._known[key]

    def _name(self, column: int) -> str:
        columns = self.kkt.columns
        return columns.names[column] if column < self.first else self.names[column - self.first]


def _rows(
    names: tuple[str, ...], terms: list[Terms], low: list[float], high: list[float], width: int
) -> Rows:
    """Rows ``low <= terms <= high``; a constant among the terms moves into the ends."""
    count = len(names)
    matrix = sp.lil_array((count, width))
    quadratic = {}
    moved = np.zeros(count)
    for r, row in enumerate(terms):
        entries: list[tuple[int, int, float]] = []
        for key, c in row.items():
            if not key:
                moved[r] += c
            elif len(key) == 1:
                matrix[r, key[0]] += c
            else:
                # v' Q v / 2 holds a square with half of the diagonal entry, a product once.
                i, j = key
                entries += [(i, i, 2 * c)] if i == j else [(i, j, c), (j, i, c)]
        if entries:
            i_, j_, c_ = (list(part) for part in zip(*entries, strict=True))
            quadratic[r] = sp.csr_array((c_, (i_, j_)), shape=(width, width))
    functions = Functions(np.zeros(count), sp.csr_array(matrix), quadratic)
    return Rows(
        names, functions, np.array(low) - moved, np.array(high) - moved,
        np.zeros(count, dtype=np.int64), (None,) * count, (None,) * count,
    )  # fmt: skip
