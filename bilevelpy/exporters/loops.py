"""Optimality conditions as loops over tables: what a text of a large model consists of.

The tables stand in a file beside the text, the text says what is done with them. ``v`` are the
variables in the order of the tables, ``z1``, ``z2``, ... expressions that others share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.conditions import Writer, slack_tree
from bilevelpy.exporters.expressions import Style, text, unsupported
from bilevelpy.exporters.families import (
    DEFINED,
    LARGE,
    NUMBER,
    Families,
    Shape,
    Total,
    families,
    written_size,
)
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.reductions.kkt import KKT

Array = np.ndarray[Any, np.dtype[Any]]
INDICES = "iklnpq"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a target says what loops consist of.

    ``entry`` writes an entry of a table from its name and index. ``refer`` writes a member of ``v``
    or of ``z1``, ``z2``, ...: at the place that stands in a table at an index or, without a table,
    at the index itself. ``total`` writes a sum from its body, its index, the table in which the
    first lines of every member stand, and the member. A running index is a letter, a fixed one a
    whole number.
    """

    entry: Callable[[str, str], str]
    refer: Callable[[str, str | None, str], str]
    total: Callable[[str, str, str, str], str]


@dataclass(frozen=True, slots=True)
class Loop:
    """Expressions of one shape: ``body`` in terms of the index ``i``, for ``count`` members.

    ``label`` begins the names of its tables; ``kind`` is "definition", "objective", a kind of rows,
    or "pair"; ``places`` are those of the rows or pairs that its members come from.
    """

    label: str
    kind: str
    body: str
    count: int
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Loops:
    """A program: shared expressions, the objective, rows, slacks of pairs; and its tables.

    ``sorts`` says for every table what it holds: "number", "place" (of a column or shared
    expression), "lines" (where the lines of a member begin), "name".
    """

    definitions: tuple[Loop, ...]
    objective: Loop
    rows: tuple[Loop, ...]
    pairs: tuple[Loop, ...]
    tables: dict[str, Array] = field(default_factory=dict)
    sorts: dict[str, str] = field(default_factory=dict)


def loops(found: KKT, write: Writer, dialect: Dialect, paired_rows: bool) -> Loops | None:
    """The conditions as loops where they are large, else None; ``tables`` hold all numbers.

    ``paired_rows``: whether rows with a slack are rows, too. Tables of a row ``r1`` are
    ``r1_name``, ``r1_low`` and ``r1_high``, of a pair ``p1`` its ``p1_name`` and
    ``p1_multiplier``; those of the variables have no label.
    """
    program, rows = found.system.bound.program, found.rows
    paired = set() if paired_rows else {p.row for p in found.pairs if p.row is not None}
    kept = [r for r in write.kept(rows) if r not in paired]
    roots = [tree_of(found.objective, 0)]
    roots += [tree_of(rows.functions, r) for r in kept]
    roots += [slack_tree(found, p) for p in found.pairs]
    if written_size(roots) <= LARGE:
        return None
    if unsupported(write.style, sc.Call("add", tuple(roots))):
        spans = [program.upper.objective.span, *(rows.spans[r] for r in kept)]
        spans += [p.span for p in found.pairs]
        for root, span in zip(roots, spans, strict=True):
            write.require(root, span)
    groups = ["objective", *(found.kinds[r] for r in kept), *("pair" for _ in found.pairs)]
    made = families(roots, groups)
    if made is None:
        return None
    places = [0, *kept, *range(len(found.pairs))]
    return _Printer(write.style, dialect).program(made, groups, places, found)


class _Printer:
    def __init__(self, style: Style, dialect: Dialect) -> None:
        self.style, self.dialect = style, dialect
        self.tables: dict[str, Array] = {}
        self.sorts: dict[str, str] = {}

    def program(self, made: Families, groups: list[str], places: list[int], found: KKT) -> Loops:
        """Everything as text, numbers into the tables."""
        columns = found.columns
        self._table("name", np.array(columns.names), "name")
        for name, values in (
            ("low", columns.lower),
            ("high", columns.upper),
            ("start", columns.start),
            ("whole", columns.integer),
        ):
            self._table(name, values)
        definitions = tuple(
            Loop(f"z{k + 1}", "definition", self.body(f.shape, f"z{k + 1}", "i"), f.count)
            for k, f in enumerate(made.definitions)
        )
        others: dict[str, list[Loop]] = {"objective": [], "row": [], "pair": []}
        for family in made.roots:
            kind = groups[family.members[0]]
            group = kind if kind in others else "row"
            label = f"{group[0]}{len(others[group]) + 1}"
            own = tuple(places[m] for m in family.members)
            body = self.body(family.shape, label, "0" if kind == "objective" else "i")
            others[group].append(Loop(label, kind, body, family.count, own))
            self._ends(label, group, own, found)
        rows = tuple(sorted(others["row"], key=lambda loop: loop.places[0]))
        objective, pairs = others["objective"][0], tuple(others["pair"])
        return Loops(definitions, objective, rows, pairs, self.tables, self.sorts)

    def _table(self, name: str, values: Array, sort: str = NUMBER) -> None:
        self.tables[name], self.sorts[name] = values, sort

    def _ends(self, label: str, group: str, places: tuple[int, ...], found: KKT) -> None:
        chosen = list(places)
        if group == "row":
            self._table(f"{label}_name", np.array([found.rows.names[r] for r in chosen]), "name")
            self._table(f"{label}_low", found.rows.lower[chosen])
            self._table(f"{label}_high", found.rows.upper[chosen])
        elif group == "pair":
            pairs = [found.pairs[k] for k in chosen]
            self._table(f"{label}_name", np.array([p.name for p in pairs]), "name")
            self._table(f"{label}_multiplier", np.array([p.multiplier for p in pairs]), "place")

    def body(self, shape: Shape, label: str, index: str, depth: int = 0) -> str:
        """A shape as text; its blanks are tables ``label_a``, ``label_b``, ..."""
        names: list[str] = []
        for k, blank in enumerate(shape.blanks):
            table = f"{label}_{_letters(k)}"
            if isinstance(blank, Total):
                inner = INDICES[depth + 1] if depth + 1 < len(INDICES) else f"i{depth + 1}"
                body = self.body(blank.body, table, inner, depth + 1)
                self._table(table, blank.starts, "lines")
                names.append(self.dialect.total(body, inner, table, index))
            elif blank.kind == NUMBER:
                self._table(table, blank.values)
                names.append(self.dialect.entry(table, index))
            else:
                base = f"z{blank.of + 1}" if blank.kind == DEFINED else "v"
                names.append(self._reference(base, blank.values, table, index))
        return text(self.style, shape.tree, names)

    def _reference(self, base: str, values: Array, table: str, index: str) -> str:
        """A place that does not depend on the member, or is its own, needs no table."""
        if (values == values[0]).all():
            return self.dialect.refer(base, None, str(int(values[0])))
        if np.array_equal(values, np.arange(values.size)):
            return self.dialect.refer(base, None, index)
        self._table(table, values, "place")
        return self.dialect.refer(base, table, index)


def _letters(k: int) -> str:
    return chr(97 + k) if k < 26 else f"{_letters(k // 26 - 1)}{chr(97 + k % 26)}"
