"""What every best response meets, as a single-level program: the relaxation of a follower that is
not settled by optimality conditions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.exact.engine.logarithms import LEAST
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.optimality.choice_rows import with_choice_rows
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rewriting.intervals import column_ranges, tree_range
from bilevelpy.reductions.rewriting.norms import Norms
from bilevelpy.reductions.rows import Functions, Rows, System, join_rows
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Array = np.ndarray[Any, np.dtype[Any]]


def rows_are_affine(system: System) -> bool:
    """Whether every row is affine in its follower's own variables, for fixed others."""
    rows, owner = system.lower_rows, system.columns.owner
    for r in range(rows.count):
        own = np.flatnonzero(owner == rows.follower[r])
        if r in rows.functions.trees:
            for j in own:
                slope = sc.derivative(rows.functions.trees[r], int(j))
                if slope is None or sc.columns([slope]) & set(own.tolist()):
                    return False
        elif r in rows.functions.quadratic and rows.functions.quadratic[r][own][:, own].nnz:
            return False
    return True


def necessary(system: System) -> KKT:
    """The strongest relaxation that can be written: of every follower the conditions of Karush,
    Kuhn and Tucker where rows are affine, those of Fritz John where they are not, the rows alone
    where it has whole numbers or kinks.
    """
    able = [k for k in range(len(system.followers)) if _has_conditions(_only(system, [k]))]
    if not able:
        return high_point(system)
    part = system if len(able) == len(system.followers) else _only(system, able)
    try:
        program = kkt(part, "the backend `exact`", force=True, norms=True)
    except Refused:
        return high_point(system)
    program = program if rows_are_affine(part) else fritz_john(program)
    owner = program.columns.owner.copy()
    owner[: system.columns.count] = system.columns.owner
    return replace(program, system=system, columns=replace(program.columns, owner=owner))


def _only(system: System, chosen: Collection[int]) -> System:
    """The system in which the leader decides for all followers but the chosen ones: their rows
    remain, and their objectives do not matter.
    """
    owner = system.columns.owner
    kept = np.isin(owner - 1, list(chosen)) | (owner <= 0)
    return replace(system, columns=replace(system.columns, owner=np.where(kept, owner, 0)))


def _has_conditions(system: System) -> bool:
    """Whether the followers' decisions are real numbers and their functions have derivatives."""
    columns = system.columns
    return not bool(columns.integer[system.lower_columns].any()) and _has_slopes(system)


def _has_slopes(system: System) -> bool:
    """Whether the followers' functions have derivatives, or norms subgradients, wherever they have
    values: another root or a broken power has none at 0, where a solution may lie, and the slope
    of an entropy is a logarithm, which SCIP takes down to 1e-9 alone: responses are smaller.
    """
    low, high = column_ranges(system)
    below = set(system.lower_columns.tolist())
    rows, norms = system.lower_rows, Norms(system, low.size)
    trees = [norms.opened(t, k + 1) for k, t in system.lower_objectives.trees.items()]
    trees += [norms.opened(t, int(rows.follower[r])) for r, t in rows.functions.trees.items()]
    low, high = np.concatenate([low, norms.low]), np.concatenate([high, norms.high])
    for tree in trees:
        ranges = tree_range(tree, low, high)
        if _has_steep_logarithm(tree, below, ranges):
            return False
        for node in sc.postorder(tree):
            if not isinstance(node, sc.Call) or node.function not in ("sqrt", "pow"):
                continue
            if node.function == "pow":
                exponent = node.arguments[1]
                if isinstance(exponent, sc.Num) and float(exponent.value).is_integer():
                    continue
            moving = sc.columns([node.arguments[0]]) & below
            if moving and not ranges[id(node.arguments[0])][0] > 0.0:
                return False
    return True


def _has_steep_logarithm(
    tree: sc.Scalar, below: set[int], ranges: Mapping[int, tuple[float, float]]
) -> bool:
    """Whether a slope reads the logarithm of what the followers can bring near 0."""
    steep = {
        id(node)
        for node in sc.postorder(tree)
        if isinstance(node, sc.Call)
        and node.function == "log"
        and sc.columns(node.arguments) & below
        and not ranges[id(node.arguments[0])][0] > LEAST
    }
    if not steep:
        return False
    slopes = sc.gradient(tree, sc.columns([tree]) & below).values()
    return any(id(node) in steep for s in slopes if s is not None for node in sc.postorder(s))


def high_point(system: System) -> KKT:
    """Rows and bounds of both levels: the leader chooses for everybody, within rankings."""
    parts = [system.upper_rows, system.lower_rows]
    rows = join_rows(parts, system.columns.count)
    kinds = ("upper",) * parts[0].count + ("lower",) * parts[1].count
    program = KKT(system, system.columns, system.objective, rows, kinds, (), ())
    return with_choice_rows(program)


def fritz_john(program: KKT) -> KKT:
    """The conditions with a multiplier of the objective too: they need no constraint qualification,
    and all multipliers lie in [0, 1].
    """
    system = program.system
    width, count = program.columns.count, len(system.followers)
    columns = program.columns.extended(
        [f"weight.{f.name}" for f in system.followers],
        np.zeros(count),
        np.ones(count),
        np.zeros(count, dtype=bool),
    )
    multipliers = {p.multiplier for p in (*program.pairs, *program.equations)}
    rows = program.rows.widened(columns.count)
    kept = [r for r, kind in enumerate(program.kinds) if kind in ("upper", "lower", "norm")]
    stationary = [r for r, kind in enumerate(program.kinds) if kind == "stationarity"]
    trees: dict[int, sc.Scalar] = {}
    used: dict[int, set[int]] = {k: set() for k in range(count)}
    for place, r in enumerate(stationary):
        k = int(rows.follower[r]) - 1
        # Terms without a multiplier are the objective's; its constant slope is on the other side.
        tree = sc.add(tree_of(rows.functions, r), sc.Num(-float(rows.lower[r])))
        parts = tree.arguments if isinstance(tree, sc.Call) and tree.function == "add" else (tree,)
        own = [p for p in parts if not sc.columns([p]) & multipliers]
        others = [p for p in parts if sc.columns([p]) & multipliers]
        used[k] |= sc.columns(others) & multipliers
        trees[place] = sc.add(sc.mul(sc.Col(width + k), sc.add(*own)), *others)
    made = [rows.take(kept), _equations(trees, [rows.names[r] for r in stationary], columns.count)]
    made.append(_weights(used, columns.count, width, program.columns.lower))
    low, high = columns.lower.copy(), columns.upper.copy()
    for j in multipliers:
        low[j], high[j] = max(low[j], -1.0), 1.0
    kinds = tuple(program.kinds[r] for r in kept) + ("stationarity",) * (len(trees) + count)
    return KKT(
        system,
        replace(columns, lower=low, upper=high),
        system.objective.widened(columns.count),
        join_rows(made, columns.count),
        kinds,
        program.pairs,
        program.stationary,
        program.warnings,
    )


def _equations(trees: dict[int, sc.Scalar], names: list[str], width: int) -> Rows:
    count = len(trees)
    zero = np.zeros(count)
    functions = Functions(zero, sp.csr_array((count, width)), {}, trees)
    none = (None,) * count
    return Rows(tuple(names), functions, zero, zero, np.zeros(count, dtype=np.int64), none, none)


def _weights(used: dict[int, set[int]], width: int, first: int, lower: Array) -> Rows:
    """Not all multipliers of a follower are zero: their sum (squares of free ones) is 1."""
    trees = {
        k: sc.add(sc.Col(first + k), *(_size(j, lower) for j in sorted(chosen)), sc.Num(-1.0))
        for k, chosen in used.items()
    }
    return _equations(trees, [f"weights.{k}" for k in used], width)


def _size(column: int, lower: Collection[float] | Array) -> sc.Scalar:
    free = lower[column] < 0.0  # type: ignore[index]
    return sc.power(sc.Col(column), sc.Num(2.0)) if free else sc.Col(column)
