"""Many scalar trees as few loops: expressions of one shape become one expression over tables.

Where data of 400 rows was written out, the same formula stands there 400 times with other numbers.
The trees are first merged (equal parts are one node), parts that are used more than once become
definitions, and then everything is sorted by its shape: what it is when numbers, columns and
definitions are left blank. The terms of a sum that have one shape become one sum over an index. A
family is a shape with a table of what goes into the blanks, one line for each member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelpy.reductions import scalar as sc

Array = np.ndarray[Any, np.dtype[Any]]
LARGE = 20_000
"""Leaves of all expressions written out from which on a text refers to tables."""
SUMMED = 4
"""Terms of one shape from which on they are a sum over an index."""
DEEPEST = 100
"""Nesting of a shape; trees that are deeper are written out."""

NUMBER, COLUMN, TOTAL, DEFINED, EXACT = "number", "column", "total", "defined", "exact"


@dataclass(frozen=True, slots=True)
class Blank:
    """What differs between members: numbers, or the columns or members of family ``of`` referred
    to. ``values[k]`` belongs to the k-th member.
    """

    kind: str
    values: Array
    of: int = -1


@dataclass(frozen=True, slots=True)
class Total:
    """A sum: member k adds up ``body`` over the lines ``starts[k] .. starts[k + 1]``."""

    starts: Array
    body: Shape


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree whose ``Col(k)`` stands for ``blanks[k]``; numbers that never differ stay in it."""

    tree: sc.Scalar
    blanks: tuple[Blank | Total, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Expressions of one shape; ``members`` are their places in what was given, in order."""

    shape: Shape
    members: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of expressions."""
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Families:
    """``definitions`` in an order in which each reads earlier ones, and ``roots``, all of them."""

    definitions: tuple[Family, ...]
    roots: tuple[Family, ...]


def written_size(roots: Sequence[sc.Scalar]) -> int:
    """The leaves of all expressions where each is written out."""
    size: dict[int, int] = {}
    for node in sc.postorder(sc.Call("add", tuple(roots))):
        size[id(node)] = (
            sum(size[id(a)] for a in node.arguments) if isinstance(node, sc.Call) else 1
        )
    return sum(size[id(r)] for r in roots)


def families(
    roots: Sequence[sc.Scalar], groups: Sequence[str], *, share: bool = True, even: bool = False
) -> Families | None:
    """Sort expressions by their shapes; those of different ``groups`` stay apart.

    ``share``: whether parts that are used more than once become definitions. ``even``: whether
    sums belong to one shape only where they have the same number of terms, so that tables are
    rectangular. None where a shape is nested too deeply to be a loop.
    """
    return _Sorter(roots, share, even).run(groups)


# What goes into the blanks of one expression: numbers, places, and for a sum a list of those.
Values = list[Any]


class _Sorter:
    def __init__(self, roots: Sequence[sc.Scalar], share: bool, even: bool) -> None:
        self.share, self.even = share, even
        self.nodes: list[tuple[Any, ...]] = []
        self.roots = self._merge(roots)
        self.keys: list[tuple[Any, ...]] = []
        self.key_of: dict[tuple[Any, ...], int] = {}
        self.depth: list[int] = []
        # shape of a definition -> its family, and the values of every member
        self.family_of: dict[int, int] = {}
        self.found: list[tuple[int, list[Values]]] = []

    def _merge(self, roots: Sequence[sc.Scalar]) -> list[int]:
        """Equal nodes get one number, arguments lower ones than what uses them."""
        number: dict[tuple[Any, ...], int] = {}
        place: dict[int, int] = {}
        for node in sc.postorder(sc.Call("add", tuple(roots)))[:-1]:
            if isinstance(node, sc.Num):
                key: tuple[Any, ...] = (NUMBER, float(node.value).hex(), node.value)
            elif isinstance(node, sc.Col):
                key = (COLUMN, node.index)
            else:
                key = (node.function, *(place[id(a)] for a in node.arguments))
            if key not in number:
                number[key] = len(self.nodes)
                self.nodes.append(key)
            place[id(node)] = number[key]
        return [place[id(r)] for r in roots]

    def run(self, groups: Sequence[str]) -> Families | None:
        parts = self._parts()
        if parts is None:
            return None
        sorted_roots: dict[tuple[str, int], list[int]] = {}
        for k, (root, group) in enumerate(zip(self.roots, groups, strict=True)):
            sorted_roots.setdefault((group, parts[root][0]), []).append(k)
        made = tuple(
            Family(self._shape(key, values), tuple(range(len(values))))
            for key, values in self.found
        )
        shown = tuple(
            Family(self._shape(key, [parts[self.roots[k]][1] for k in members]), tuple(members))
            for (_, key), members in sorted_roots.items()
        )
        return Families(made, shown)

    def _parts(self) -> list[tuple[int, Values]] | None:
        """The shape of every node and what goes into its blanks."""
        uses = np.zeros(len(self.nodes), dtype=np.int64)
        for kind, *arguments in self.nodes:
            if kind not in (NUMBER, COLUMN):
                np.add.at(uses, arguments, 1)
        parts: list[tuple[int, Values]] = []
        for k, (kind, *arguments) in enumerate(self.nodes):
            if kind == NUMBER:
                parts.append((self._key((NUMBER,), 0), [arguments[1]]))
                continue
            if kind == COLUMN:
                parts.append((self._key((COLUMN,), 0), [arguments[0]]))
                continue
            made = self._call(kind, [parts[a] for a in arguments], arguments)
            if self.depth[made[0]] > DEEPEST:
                return None
            if (
                self.share
                and uses[k] > 1
                and (kind not in ("add", "mul", "pow") or len(made[1]) > 3)
            ):
                made = self._defined(made)
            parts.append(made)
        return parts

    def _call(
        self, function: str, inner: list[tuple[int, Values]], arguments: list[int]
    ) -> tuple[int, Values]:
        if function == "pow" and self.nodes[arguments[1]][0] == NUMBER:
            # A whole exponent is spelled in another way, so that it belongs to the shape.
            exact: tuple[int, Values] = (self._key((EXACT, self.nodes[arguments[1]][2]), 0), [])
            inner = [inner[0], exact]
        if function == "add":
            inner = self._summed(inner)
        key = (function, *(part[0] for part in inner))
        depth = 1 + max(self.depth[part[0]] for part in inner)
        if function == "add" and len(inner) == 1:
            return inner[0]
        return self._key(key, depth), [v for part in inner for v in part[1]]

    def _summed(self, inner: list[tuple[int, Values]]) -> list[tuple[int, Values]]:
        """Terms of a sum that have one shape as one term."""
        groups: dict[int, list[Values]] = {}
        for key, values in inner:
            groups.setdefault(key, []).append(values)
        shown: list[tuple[int, Values]] = []
        for key, members in groups.items():
            if len(members) < SUMMED or not members[0]:
                shown += [(key, values) for values in members]
            else:
                width = len(members) if self.even else 0
                shown.append((self._key((TOTAL, key, width), 1 + self.depth[key]), [members]))
        return shown

    def _defined(self, made: tuple[int, Values]) -> tuple[int, Values]:
        key, values = made
        if key not in self.family_of:
            self.family_of[key] = len(self.found)
            self.found.append((key, []))
        family = self.family_of[key]
        members = self.found[family][1]
        members.append(values)
        return self._key((DEFINED, family), 0), [len(members) - 1]

    def _key(self, key: tuple[Any, ...], depth: int) -> int:
        if key not in self.key_of:
            self.key_of[key] = len(self.keys)
            self.keys.append(key)
            self.depth.append(depth)
        return self.key_of[key]

    def _shape(self, key: int, members: list[Values]) -> Shape:
        blanks: list[Blank | Total] = []
        columns = iter(zip(*members, strict=True))
        return Shape(self._tree(key, columns, blanks), tuple(blanks))

    def _tree(self, key: int, columns: Any, blanks: list[Blank | Total]) -> sc.Scalar:
        kind, *rest = self.keys[key]
        if kind == EXACT:
            return sc.Num(rest[0])
        if kind == NUMBER:
            values = np.array(next(columns), dtype=float)
            if (values == values[0]).all():
                return sc.Num(float(values[0]))
            blanks.append(Blank(NUMBER, values))
        elif kind in (COLUMN, DEFINED):
            places = np.array(next(columns), dtype=np.int64)
            blanks.append(Blank(kind, places, rest[0] if rest else -1))
        elif kind == TOTAL:
            lists = next(columns)
            starts = np.concatenate([[0], np.cumsum([len(part) for part in lists])])
            blanks.append(Total(starts, self._shape(rest[0], [v for part in lists for v in part])))
        else:
            return sc.Call(kind, tuple(self._tree(k, columns, blanks) for k in rest))
        return sc.Col(len(blanks) - 1)
