"""What a text consists of, in the same terms for every form: objectives, rows, pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.exporters.conditions import slack_tree
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rows import join_rows
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.optimality.conditions import KKT, Pair
    from bilevelpy.reductions.rows import Rows, System

OBJECTIVE, FOLLOWER = "objective", "follower"


@dataclass(frozen=True, slots=True)
class Part:
    """An objective: that of the leader (``OBJECTIVE``), or of a follower, as a tree."""

    group: str
    tree: sc.Scalar
    span: Span | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The objectives, the leader's first; rows, each with its kind; and pairs with their slacks.

    ``skipped`` are rows that are not written, because the slack of a pair says the same. ``whole``
    are the rows with all their terms, where a part of them is written in another way.
    """

    columns: Columns
    objectives: tuple[Part, ...]
    rows: Rows
    kinds: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    slacks: tuple[sc.Scalar, ...] = ()
    skipped: frozenset[int] = frozenset()
    whole: Rows | None = None


def parts_of_conditions(found: KKT, *, paired_rows: bool) -> Parts:
    """Optimality conditions; ``paired_rows``: whether rows with a slack are rows, too."""
    paired = frozenset(p.row for p in found.pairs if p.row is not None)
    span = found.system.bound.program.upper.objective.span
    return Parts(
        found.columns,
        (Part(OBJECTIVE, tree_of(found.objective, 0), span),),
        found.rows,
        found.kinds,
        found.pairs,
        tuple(slack_tree(found, p) for p in found.pairs),
        frozenset() if paired_rows else paired,
    )


def parts_of_levels(found: System, *, move_idle: bool = True) -> Parts:
    """Both levels as they are, followers one after another.

    ``move_idle``: a row of a follower that reads none of its variables is the leader's.
    """
    program, columns = found.bound.program, found.columns
    objectives = [Part(OBJECTIVE, tree_of(found.objective, 0), program.upper.objective.span)]
    for k, follower in enumerate(found.followers):
        span = program.level(follower.level).objective.span
        objectives.append(Part(FOLLOWER, tree_of(found.lower_objectives, k), span))
    rows, lower = join_rows([found.upper_rows, found.lower_rows], columns.count), found.lower_rows
    kinds = ["upper"] * found.upper_rows.count
    for r in range(lower.count):
        own = any(columns.owner[j] == lower.follower[r] for j in lower.functions.reads(r))
        kinds.append("lower" if own or not move_idle else "upper")
    return Parts(columns, tuple(objectives), rows, tuple(kinds))
