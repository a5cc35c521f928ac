"""Kinks of convex followers as rows: every ``|e|`` and ``max(a, b)`` where less is better becomes
a further variable of the follower, bounded by its epigraph::

    c(x) |e(x, y)|,  c >= 0      ->      c(x) t,   t >= e,   t >= -e
    c(x) max(a, b),  c >= 0      ->      c(x) t,   t >= a,   t >= b
    -c(x) min(a, b), c >= 0      ->      c(x) t,   t >= -a,  t >= -b

and so in sums, in products with factors of one sign, and in powers of what is not negative.
A best response of the lifted follower is one of the given one (where ``c`` is 0, ``t`` is idle), so
linear and quadratic followers with absolute values, maxima and norms 1 and infinity get exact
optimality conditions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.fixing import fix
from bilevelpy.reductions.intervals import column_ranges, tree_range
from bilevelpy.reductions.rows import Functions, Rows, System, join_rows

if TYPE_CHECKING:
    from collections.abc import Collection

Array = np.ndarray[Any, np.dtype[Any]]

KINKS = frozenset({"abs", "max", "min"})


def lift(system: System) -> System:
    """The same program without the kinks that an epigraph can stand for; others stay."""
    lower = system.lower_objectives.trees, system.lower_rows.functions.trees
    if not any(sc.functions(t) & KINKS for trees in lower for t in trees.values()):
        return system
    return _Lift(system).run()


class _Lift:
    """Collects further variables and their rows."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.low, self.high = column_ranges(system)
        # What the leader asks for does not restrict what a follower may choose.
        self.own = column_ranges(system, leader=False)
        self.owners: list[int] = []
        self.trees: list[sc.Scalar] = []
        self.of_row: list[int] = []

    def run(self) -> System:
        system = self.system
        objectives = {
            k: self._less(tree, k + 1) or tree for k, tree in system.lower_objectives.trees.items()
        }
        rows = system.lower_rows
        trees = dict(rows.functions.trees)
        for r, tree in rows.functions.trees.items():
            # An equation wants its kinks neither small nor large.
            if rows.lower[r] == -math.inf or rows.upper[r] == math.inf:
                sign = 1.0 if rows.lower[r] == -math.inf else -1.0
                trees[r] = self._less(tree, int(rows.follower[r]), sign) or tree
        count = len(self.owners)
        if not count:
            return system
        names = [f"kink.{n + 1}" for n in range(count)]
        columns = system.columns.extended(
            names, np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count, dtype=bool)
        )
        owner = columns.owner.copy()
        owner[system.columns.count :] = self.owners
        columns = replace(columns, owner=owner)
        width = columns.count
        everything = np.arange(width)

        def read(functions: Functions) -> Functions:
            return fix(functions, everything, np.zeros(width))

        wide = rows.widened(width)
        wide = replace(wide, functions=read(replace(wide.functions, trees=trees)))
        made = self._rows(width)
        made = replace(made, functions=read(made.functions))
        below = system.lower_objectives.widened(width)
        return replace(
            system,
            columns=columns,
            objective=system.objective.widened(width),
            upper_rows=system.upper_rows.widened(width),
            lower_objectives=read(replace(below, trees=objectives)),
            lower_rows=_without_constants(join_rows([wide, made], width)),
        )

    def _rows(self, width: int) -> Rows:
        """``epigraph - t <= 0`` of every further variable."""
        count = len(self.trees)
        functions = Functions(
            np.zeros(count), sp.csr_array((count, width)), {}, dict(enumerate(self.trees))
        )
        none = (None,) * count
        names = tuple(f"epigraph.{n + 1}" for n in range(count))
        owner = np.array(self.of_row, dtype=np.int64)
        return Rows(names, functions, np.full(count, -np.inf), np.zeros(count), owner, none, none)

    def _less(self, tree: sc.Scalar, k: int, sign: float = 1.0) -> sc.Scalar | None:
        """A tree that may stand for ``tree`` where follower k wants ``sign * tree`` to be small;
        None where a kink stands in another place.
        """
        if not sc.functions(tree) & KINKS:
            return tree
        if not isinstance(tree, sc.Call):
            return tree
        match tree.function:
            case "add":
                parts = [self._less(a, k, sign) for a in tree.arguments]
                return None if any(p is None for p in parts) else sc.add(*_known(parts))
            case "mul":
                return self._product(tree, k, sign)
            case "pow":
                return self._power(tree, k, sign)
            case "abs" if sign > 0:
                minus = sc.mul(sc.Num(-1.0), tree.arguments[0])
                return self._epigraph((tree.arguments[0], minus), k)
            case "max" if sign > 0:
                return self._epigraph(tree.arguments, k)
            case "min" if sign < 0:
                # -min(a, b) is max(-a, -b).
                minuses = tuple(sc.mul(sc.Num(-1.0), a) for a in tree.arguments)
                top = self._epigraph(minuses, k)
                return None if top is None else sc.mul(sc.Num(-1.0), top)
        return None

    def _product(self, tree: sc.Call, k: int, sign: float) -> sc.Scalar | None:
        """A kink times factors that the follower does not choose and that keep their sign."""
        own = set(np.flatnonzero(self.system.columns.owner == k).tolist())
        moving = [a for a in tree.arguments if sc.columns([a]) & own]
        rest = [a for a in tree.arguments if not sc.columns([a]) & own]
        if len(moving) != 1:
            return None
        factor = sc.mul(*rest)
        low, high = tree_range(factor, self.low, self.high)[id(factor)]
        if low < 0.0 < high:
            return None
        inner = self._less(moving[0], k, sign if low >= 0.0 else -sign)
        return None if inner is None else sc.mul(factor, inner)

    def _power(self, tree: sc.Call, k: int, sign: float) -> sc.Scalar | None:
        """``e^p`` with ``e >= 0`` and ``p >= 1`` grows with e: the kinks in e are its kinks."""
        base, exponent = tree.arguments
        if sign < 0 or not isinstance(exponent, sc.Num) or exponent.value < 1.0:
            return None
        if tree_range(base, *self.own)[id(base)][0] < 0.0:
            return None
        inner = self._less(base, k)
        return None if inner is None else sc.power(inner, exponent)

    def _epigraph(self, parts: tuple[sc.Scalar, ...], k: int) -> sc.Scalar | None:
        made = [self._less(p, k) for p in parts]
        if any(p is None for p in made):
            return None
        top = sc.Col(self.system.columns.count + len(self.owners))
        self.owners.append(k)
        for part in _known(made):
            self.trees.append(sc.add(part, sc.mul(sc.Num(-1.0), top)))
            self.of_row.append(k)
        return top


def _known(parts: Collection[sc.Scalar | None]) -> list[sc.Scalar]:
    return [p for p in parts if p is not None]


def _without_constants(rows: Rows) -> Rows:
    """Constants of rows that are polynomials belong into their bounds."""
    moved = rows.functions.constant
    zero = np.zeros(rows.count)
    functions = replace(rows.functions, constant=zero)
    return replace(rows, functions=functions, lower=rows.lower - moved, upper=rows.upper - moved)
