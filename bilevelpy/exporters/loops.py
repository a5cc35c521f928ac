"""Programs as loops over tables: what a text of a large model consists of.

The tables stand in a file beside the text, the text says what is done with them. ``v`` are the
variables in the order of the tables, ``z1``, ``z2``, ... expressions that others share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

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
from bilevelpy.exporters.parts import FOLLOWER, OBJECTIVE
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.exporters.conditions import Writer
    from bilevelpy.exporters.parts import Parts

Array = np.ndarray[Any, np.dtype[Any]]
INDICES = "iklnpq"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a target says what loops consist of.

    ``entry`` writes an entry of a table from its name and index. ``refer`` writes a member of ``v``
    or of ``z1``, ``z2``, ...: at the place that stands in a table at an index or, without a table,
    at the index itself. ``total`` writes a sum from its body, its index, the table in which the
    first lines of every member stand, and the member. A running index is a letter, a fixed one a
    whole number. Where tables are ``even``, those inside of sums have an axis for every index,
    which stand one after another: ``i, k``. ``share``: whether there are ``z1``, ``z2``, ...
    """

    entry: Callable[[str, str], str]
    refer: Callable[[str, str | None, str], str]
    total: Callable[[str, str, str, str], str]
    share: bool = True
    even: bool = False


def subscripted(
    total: Callable[[str, str, str, str], str],
    *,
    at: Callable[[str], str] = str,
    prefix: str = "",
    share: bool = True,
    even: bool = False,
) -> Dialect:
    """The dialect of a target that writes ``table[index]``: ``at`` writes an index, ``prefix``
    stands before the names of tables.
    """

    def entry(table: str, index: str) -> str:
        return f"{prefix}{table}[{at(index)}]"

    def refer(base: str, table: str | None, index: str) -> str:
        return f"{base}[{at(index) if table is None else entry(table, index)}]"

    return Dialect(entry, refer, total, share, even)


def from_one(index: str) -> str:
    """An index of a target that counts from 1, for which running ones do so already."""
    return ", ".join(str(int(w) + 1) if w.isdigit() else w for w in index.split(", "))


@dataclass(frozen=True, slots=True)
class Loop:
    """Expressions of one shape: ``body`` in terms of the index ``i``, for ``count`` members.

    ``label`` begins the names of its tables; ``kind`` is "definition", the group of an objective, a
    kind of rows, or "pair"; ``places`` are those of the followers, rows or pairs that its members
    come from.
    """

    label: str
    kind: str
    body: str
    count: int
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Loops:
    """A program: shared expressions, the objective and those of followers, rows, slacks of pairs;
    and its tables.

    ``sorts`` says for every table what it holds: "number", "place" (of a column or shared
    expression), "lines" (where the lines of a member begin), "name".
    """

    definitions: tuple[Loop, ...]
    objective: Loop
    followers: tuple[Loop, ...]
    rows: tuple[Loop, ...]
    pairs: tuple[Loop, ...]
    tables: dict[str, Array] = field(default_factory=dict)
    sorts: dict[str, str] = field(default_factory=dict)


def loops(parts: Parts, write: Writer, dialect: Dialect) -> Loops | None:
    """A program as loops where it is large, else None; ``tables`` hold all numbers.

    Tables of a row ``r1`` are ``r1_name``, ``r1_low`` and ``r1_high``, of a pair ``p1`` its
    ``p1_name`` and ``p1_multiplier``, of objectives ``f1`` the places ``f1_follower`` of their
    followers; those of the variables have no label.
    """
    rows = parts.rows
    kept = [r for r in write.kept(parts.whole or rows) if r not in parts.skipped]
    roots = [o.tree for o in parts.objectives]
    roots += [tree_of(rows.functions, r) for r in kept]
    roots += parts.slacks
    if written_size(roots) <= LARGE:
        return None
    if unsupported(write.style, sc.Call("add", tuple(roots))):
        spans = [*(o.span for o in parts.objectives), *(rows.spans[r] for r in kept)]
        spans += [p.span for p in parts.pairs]
        for root, span in zip(roots, spans, strict=True):
            write.require(root, span)
    groups = [o.group for o in parts.objectives]
    groups += [*(parts.kinds[r] for r in kept), *("pair" for _ in parts.pairs)]
    made = families(roots, groups, share=dialect.share, even=dialect.even)
    if made is None:
        return None
    places = [0, *range(len(parts.objectives) - 1), *kept, *range(len(parts.pairs))]
    return _Printer(write.style, dialect).program(made, groups, places, parts)


class _Printer:
    def __init__(self, style: Style, dialect: Dialect) -> None:
        self.style, self.dialect = style, dialect
        self.tables: dict[str, Array] = {}
        self.sorts: dict[str, str] = {}

    def program(self, made: Families, groups: list[str], places: list[int], parts: Parts) -> Loops:
        """Everything as text, numbers into the tables."""
        columns = parts.columns
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
        others: dict[str, list[Loop]] = {OBJECTIVE: [], FOLLOWER: [], "row": [], "pair": []}
        for family in made.roots:
            kind = groups[family.members[0]]
            group = kind if kind in others else "row"
            label = f"{group[0]}{len(others[group]) + 1}"
            own = tuple(places[m] for m in family.members)
            body = self.body(family.shape, label, "0" if kind == OBJECTIVE else "i")
            others[group].append(Loop(label, kind, body, family.count, own))
            self._ends(label, group, own, parts)
        rows = tuple(sorted(others["row"], key=lambda loop: loop.places[0]))
        return Loops(
            definitions,
            others[OBJECTIVE][0],
            tuple(others[FOLLOWER]),
            rows,
            tuple(others["pair"]),
            self.tables,
            self.sorts,
        )

    def _table(self, name: str, values: Array, sort: str = NUMBER) -> None:
        self.tables[name], self.sorts[name] = values, sort

    def _ends(self, label: str, group: str, places: tuple[int, ...], parts: Parts) -> None:
        chosen, rows = list(places), parts.rows
        if group == "row":
            self._table(f"{label}_name", np.array([rows.names[r] for r in chosen]), "name")
            self._table(f"{label}_low", rows.lower[chosen])
            self._table(f"{label}_high", rows.upper[chosen])
        elif group == "pair":
            pairs = [parts.pairs[k] for k in chosen]
            self._table(f"{label}_name", np.array([p.name for p in pairs]), "name")
            self._table(f"{label}_multiplier", np.array([p.multiplier for p in pairs]), "place")
        elif group == FOLLOWER:
            self._table(f"{label}_follower", np.array(chosen))

    def body(
        self, shape: Shape, label: str, index: str, depth: int = 0, size: tuple[int, ...] = ()
    ) -> str:
        """A shape as text; its blanks are tables ``label_a``, ``label_b``, ..."""
        names: list[str] = []
        for k, blank in enumerate(shape.blanks):
            table = f"{label}_{_letters(k)}"
            if isinstance(blank, Total):
                names.append(self._total(blank, table, index, depth, size))
            elif blank.kind == NUMBER:
                self._table(table, blank.values.reshape(size or -1))
                names.append(self.dialect.entry(table, index))
            else:
                base = f"z{blank.of + 1}" if blank.kind == DEFINED else "v"
                names.append(self._reference(base, blank.values, table, index, size))
        return text(self.style, shape.tree, names)

    def _total(
        self, blank: Total, table: str, index: str, depth: int, size: tuple[int, ...]
    ) -> str:
        inner = INDICES[depth + 1] if depth + 1 < len(INDICES) else f"i{depth + 1}"
        if self.dialect.even:
            width = int(blank.starts[1] - blank.starts[0])
            within = (*(size or (blank.starts.size - 1,)), width)
            at = f"{index}, {inner}"
            body = self.body(blank.body, table, at, depth + 1, within)
        else:
            body = self.body(blank.body, table, inner, depth + 1)
        self._table(table, blank.starts, "lines")
        return self.dialect.total(body, inner, table, index)

    def _reference(
        self, base: str, values: Array, table: str, index: str, size: tuple[int, ...]
    ) -> str:
        """A place that does not depend on the member, or is its own, needs no table."""
        if (values == values[0]).all():
            return self.dialect.refer(base, None, str(int(values[0])))
        if np.array_equal(values, np.arange(values.size)) and not self.dialect.even:
            return self.dialect.refer(base, None, index)
        self._table(table, values.reshape(size or -1), "place")
        return self.dialect.refer(base, table, index)


def _letters(k: int) -> str:
    return chr(97 + k) if k < 26 else f"{_letters(k // 26 - 1)}{chr(97 + k % 26)}"
