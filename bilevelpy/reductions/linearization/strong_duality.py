"""Strong duality in place of complementarity: one row for each follower, no sets and no binaries.

For a follower ``min (c + C x)'y + y'Q y / 2`` under rows ``L <= A y + B x <= U`` and bounds, the
stationarity rows times ``y`` and the feasible multipliers give ::

    (c + C x)'y + y'Q y + sum_r p_r (U_r - B_r x) - sum_r q_r (L_r - B_r x)
        + sum_j (mu_up_j up_j - mu_lo_j lo_j) + sum_e nu_e (b_e - B_e x)
    = sum of slack * multiplier

which is nonnegative, so that ``<= 0`` says that every pair is complementary (for ``Q = 0`` the left
side is the primal minus the dual objective). What is bilinear in it are products with ``x`` alone.
A product of a whole number with a bounded column becomes linear (``integer_products``).

The row holds with equality at every feasible point: no constraint qualification is left, and with
free multipliers spatial branching returned false optima. Hence every multiplier needs a bound, from
the model or from the user; as with big-M, one that is too small cuts the optimum off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.reductions.linearization.integer_products import Products
from bilevelpy.reductions.linearization.mixed import Mixed
from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import join_rows
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT, Pair


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
    made = duality_gaps(kkt)
    program = Products(kkt.columns)
    rows = [program.linear(terms) for terms in made]
    columns = program.extended()
    width = columns.count
    names = tuple(f"duality.{f.name}" for f in kkt.system.followers)
    gaps = terms_rows(names, rows, [-np.inf] * len(rows), [0.0] * len(rows), width)
    parts = [kkt.rows.widened(width), gaps]
    if program.rows:
        parts.append(program.made_rows(width))
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


def duality_gaps(kkt: KKT) -> list[Terms]:
    """The left side of the row of every follower."""
    system = kkt.system
    owner = system.columns.owner
    made: list[Terms] = [{} for _ in system.followers]

    def add(k: int, coefficient: float, *columns: int) -> None:
        key = tuple(sorted(columns))
        made[k][key] = made[k].get(key, 0.0) + coefficient

    for k in range(len(made)):
        for j, c in linear_terms(system.lower_objectives, k):
            if owner[j] == k + 1:
                add(k, c, j)
        if k in system.lower_objectives.quadratic:
            coo = system.lower_objectives.quadratic[k].tocoo()
            for i, j, c in zip(coo.row, coo.col, coo.data, strict=True):
                # y' H y for the follower's own block, y' H_yx x for the others.
                if owner[i] == k + 1:
                    add(k, float(c), int(i), int(j))
    for pair in (*kkt.pairs, *kkt.equations):
        if pair.row is None:
            assert pair.column is not None
            ends = kkt.columns.lower if pair.side == "lower" else kkt.columns.upper
            sign = -1.0 if pair.side == "lower" else 1.0
            add(int(owner[pair.column]) - 1, sign * float(ends[pair.column]), pair.multiplier)
        else:
            k = int(kkt.rows.follower[pair.row]) - 1
            sign, end = _side(kkt, pair)
            add(k, sign * end, pair.multiplier)
            for j, c in linear_terms(kkt.rows.functions, pair.row):
                # Multipliers that were appended as columns are nobody's choice.
                if j >= owner.size or owner[j] != k + 1:
                    add(k, -sign * c, pair.multiplier, j)
    return [{key: c for key, c in terms.items() if c} for terms in made]


def _side(kkt: KKT, pair: Pair) -> tuple[float, float]:
    assert pair.row is not None
    if pair.side == "lower":
        return -1.0, float(kkt.rows.lower[pair.row])
    return 1.0, float(kkt.rows.upper[pair.row])
