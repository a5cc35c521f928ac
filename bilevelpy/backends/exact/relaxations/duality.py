"""Strong duality of linear followers as a further row: it cuts off much of the relaxation.

Multiplying every stationarity row with its variable and using complementarity gives, for a follower
whose rows read no other variables::

    c(x)'y + sum_r lam_r U_r - sum_r lam_r L_r + (the same of bounds) = 0

It follows from the other rows. Only followers whose objective does not move with x get it: the row
is linear then. With products in it SCIP 10.0 has returned false optima, SOS1 sets beside nonlinear
equations (tests/faults/test_engine.py); what a leader earns from such products is made linear in
the objective instead (``reductions.linearization.linear_objective``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.reductions.rewriting.fixing import placed

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.reductions.optimality.conditions import KKT


def write_duality(program: KKT, model: Model) -> None:
    """Add the row of every follower that has one."""
    system = program.system
    if not program.pairs or len(program.columns.names) > _limit(program):
        return
    multipliers: dict[int, list[tuple[int, float]]] = {}
    owner, names = system.columns.owner, {n: j for j, n in enumerate(program.columns.names)}
    for pair in program.pairs:
        if pair.row is not None:
            k = int(program.rows.follower[pair.row])
            bounds = (program.rows.lower[pair.row], program.rows.upper[pair.row])
        else:
            assert pair.column is not None
            k = int(owner[pair.column])
            bounds = (program.columns.lower[pair.column], program.columns.upper[pair.column])
        weight = float(bounds[1]) if pair.side == "upper" else -float(bounds[0])
        multipliers.setdefault(k, []).append((pair.multiplier, weight))
    for r, kind in enumerate(program.kinds):
        if kind == "lower" and program.rows.lower[r] == program.rows.upper[r]:
            column = names[f"nu.{program.rows.names[r]}"]
            k = int(program.rows.follower[r])
            multipliers.setdefault(k, []).append((column, float(program.rows.lower[r])))
    for j in system.lower_columns:
        fixed = names.get(f"nu.{system.columns.names[j]}")
        if fixed is not None:
            value = float(system.columns.lower[j])
            multipliers.setdefault(int(owner[j]), []).append((fixed, value))
    for k in range(len(system.followers)):
        if _is_linear(program, k):
            own = owner[: system.columns.count] == k + 1
            functions = system.lower_objectives.take([k])
            rest = placed(functions, own, np.zeros(system.columns.count))
            total = model.expression(functions, 0) - model.expression(rest, 0)
            for column, weight in multipliers.get(k + 1, []):
                total = total + weight * model.variables[column]
            model.row(total, 0.0, 0.0)


def _limit(program: KKT) -> int:
    """Columns up to which the row is written: a long dense row slows large programs down."""
    return 5000 if program.objective.degree > 1 else 500


def _is_linear(program: KKT, k: int) -> bool:
    """Whether follower k is linear and reads its own variables only."""
    system = program.system
    own = np.flatnonzero(system.columns.owner == k + 1)
    if k in system.lower_objectives.trees:
        return False
    curved = system.lower_objectives.quadratic.get(k)
    if curved is not None and curved[own].nnz:
        return False
    chosen = set(own.tolist())
    rows = program.rows
    for r, kind in enumerate(program.kinds):
        foreign = r in rows.functions.trees or not rows.functions.reads(r) <= chosen
        if kind == "lower" and rows.follower[r] == k + 1 and foreign:
            return False
    return True
