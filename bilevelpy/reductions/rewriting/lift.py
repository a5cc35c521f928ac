"""Kinks of convex followers as rows: every ``|e|`` and ``max(a, b)`` where less is better becomes
a further variable of the follower, bounded by its epigraph::

    c(x) |e(x, y)|,  c >= 0      ->      c(x) t,   t >= e,   t >= -e
    c(x) max(a, b),  c >= 0      ->      c(x) t,   t >= a,   t >= b
    -c(x) min(a, b), c >= 0      ->      c(x) t,   t >= -a,  t >= -b
    c(x) huber(r, d), c >= 0     ->      c(x) (u^2/2 + d |r - u|),   u free

and so in sums, in products with factors of one sign, and in powers of what is not negative.
A best response of the lifted follower is one of the given one (where ``c`` is 0, ``t`` is idle), so
linear and quadratic followers with absolute values, maxima and norms 1 and infinity get exact
optimality conditions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.fixing import fix, polynomial
from bilevelpy.reductions.rewriting.intervals import affine_range, column_ranges, tree_range
from bilevelpy.reductions.rows import Functions, Rows, System, join_rows, without_constants
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bilevelpy.reductions.columns import Columns

KINKS = frozenset({"abs", "max", "min"})


def lift(system: System, *, leader: bool = False) -> System:
    """The same program without the kinks that an epigraph can stand for; others stay.

    ``leader``: those of the leader, too, with further variables of the leader.
    """
    seen = [system.lower_objectives.trees, system.lower_rows.functions.trees]
    if leader:
        seen += [system.objective.trees, system.upper_rows.functions.trees]
    if not any(sc.functions(t) & KINKS for trees in seen for t in trees.values()):
        return system
    return _Lift(system).run(leader)


def with_ranges(columns: Columns, rows: Rows) -> Columns:
    """Columns in which further variables lie within the ranges of what they are the greatest of.

    Each may be chosen as the greatest, so that nothing is lost; the bounds are no constraints of
    the follower, and have no multipliers.
    """
    lower, upper = columns.lower.copy(), columns.upper.copy()
    seen: set[int] = set()
    for r, name in enumerate(rows.names):
        if not name.startswith("epigraph.") or r in rows.functions.trees:
            continue
        terms = linear_terms(rows.functions, r)
        # Those within others were made before them.
        top = max(j for j, _ in terms)
        rest = [(c * lower[j], c * upper[j]) for j, c in terms if j != top]
        ends = [sum(f(pair) for pair in rest) - float(rows.upper[r]) for f in (min, max)]
        if top in seen:
            ends = [max(ends[0], lower[top]), max(ends[1], upper[top])]
        seen.add(top)
        lower[top], upper[top] = ends
    return replace(columns, lower=lower, upper=upper)


class _Lift:
    """Collects further variables and their rows."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.low, self.high = column_ranges(system)
        # What the leader asks for does not restrict what a follower may choose.
        self.own = column_ranges(system, leader=False)
        self.owners: list[int] = []
        self.names: list[str] = []
        self.trees: list[sc.Scalar] = []
        self.of_row: list[int] = []
        self.chosen: dict[int, set[int]] = {}

    def run(self, leader: bool) -> System:
        system = self.system
        objectives = {
            k: self._lifted(tree, k + 1) for k, tree in system.lower_objectives.trees.items()
        }
        below = self._of_rows(system.lower_rows)
        above, objective = system.upper_rows.functions.trees, system.objective.trees
        if leader:
            objective = {r: self._lifted(tree, 0) for r, tree in objective.items()}
            above = self._of_rows(system.upper_rows)
        count = len(self.owners)
        if not count:
            return system
        columns = system.columns.extended(
            self.names, np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count, dtype=bool)
        )
        owner = columns.owner.copy()
        owner[system.columns.count :] = self.owners
        columns = replace(columns, owner=owner)
        width = columns.count
        everything = np.arange(width)

        def read(functions: Functions, trees: Mapping[int, sc.Scalar]) -> Functions:
            wide = replace(functions.widened(width), trees=dict(trees))
            return fix(wide, everything, np.zeros(width))

        def rows(given: Rows, trees: Mapping[int, sc.Scalar], mine: bool) -> Rows:
            wide = given.widened(width)
            wide = replace(wide, functions=read(wide.functions, trees))
            made = self._rows(width, mine)
            made = replace(made, functions=read(made.functions, made.functions.trees))
            return without_constants(join_rows([wide, made], width))

        return replace(
            system,
            columns=columns,
            objective=read(system.objective, objective),
            upper_rows=rows(system.upper_rows, above, True),
            lower_objectives=read(system.lower_objectives, objectives),
            lower_rows=rows(system.lower_rows, below, False),
        )

    def _of_rows(self, rows: Rows) -> dict[int, sc.Scalar]:
        """The trees of rows without kinks where they can be."""
        trees = dict(rows.functions.trees)
        for r, tree in rows.functions.trees.items():
            # An equation wants its kinks neither small nor large.
            if rows.lower[r] == -math.inf or rows.upper[r] == math.inf:
                sign = 1.0 if rows.lower[r] == -math.inf else -1.0
                trees[r] = self._lifted(tree, int(rows.follower[r]), sign)
        return trees

    def _rows(self, width: int, leader: bool) -> Rows:
        """``epigraph - t <= 0`` of every further variable of the leader, or of the followers."""
        mine = [n for n, k in enumerate(self.of_row) if (k == 0) == leader]
        count = len(mine)
        trees = {place: self.trees[n] for place, n in enumerate(mine)}
        functions = Functions(np.zeros(count), sp.csr_array((count, width)), {}, trees)
        none = (None,) * count
        names = tuple(f"epigraph.{n + 1}" for n in mine)
        owner = np.array([self.of_row[n] for n in mine], dtype=np.int64)
        return Rows(names, functions, np.full(count, -np.inf), np.zeros(count), owner, none, none)

    def _lifted(self, tree: sc.Scalar, k: int, sign: float = 1.0) -> sc.Scalar:
        """The tree without its kinks, or as it is where one of them stays."""
        columns, rows = len(self.owners), len(self.trees)
        found = self._less(tree, k, sign)
        if found is not None:
            return found
        del self.owners[columns:], self.names[columns:], self.trees[rows:], self.of_row[rows:]
        return tree

    def _less(self, tree: sc.Scalar, k: int, sign: float = 1.0) -> sc.Scalar | None:
        """A tree that may stand for ``tree`` where follower k wants ``sign * tree`` to be small;
        None where a kink stands in another place. Kinks in what the follower does not choose are
        none of its own.
        """
        if not sc.functions(tree) & KINKS or (k and not sc.columns([tree]) & self._chosen(k)):
            return tree
        if not isinstance(tree, sc.Call):
            return tree
        match tree.function:
            case "add":
                parts = self._terms(tree.arguments, k, sign)
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

    def _terms(self, terms: tuple[sc.Scalar, ...], k: int, sign: float) -> list[sc.Scalar | None]:
        """What may stand for the terms of a sum; those of a Huber function go together."""
        found: list[sc.Scalar | None] = []
        rest = list(terms)
        while rest:
            huber = huber_terms(rest) if sign > 0 else None
            if huber is None or (k and not sc.columns([huber[0]]) & self._chosen(k)):
                found.append(self._less(rest.pop(0), k, sign))
                continue
            r, d, count = huber
            near = self._further(k, "huber")
            off = sc.add(r, sc.mul(sc.Num(-1.0), near))
            far = self._epigraph((off, sc.mul(sc.Num(-1.0), off)), k)
            square = sc.mul(sc.Num(0.5), sc.power(near, sc.Num(2.0)))
            found += [square, None if far is None else sc.mul(sc.Num(d), far)]
            del rest[:count]
        return found

    def _product(self, tree: sc.Call, k: int, sign: float) -> sc.Scalar | None:
        """A kink times factors that the follower does not choose and that keep their sign."""
        if k:
            own = self._chosen(k)
            moving = [a for a in tree.arguments if sc.columns([a]) & own]
            rest = [a for a in tree.arguments if not sc.columns([a]) & own]
        else:  # nobody derives conditions from what the leader wants
            moving = [a for a in tree.arguments if sc.functions(a) & KINKS]
            rest = [a for a in tree.arguments if not sc.functions(a) & KINKS]
        if len(moving) != 1:
            return None
        factor = sc.mul(*rest)
        low, high = self._range(factor)
        if low < 0.0 < high:
            return None
        inner = self._less(moving[0], k, sign if low >= 0.0 else -sign)
        return None if inner is None else sc.mul(factor, inner)

    def _chosen(self, k: int) -> set[int]:
        """The columns of follower k."""
        if k not in self.chosen:
            self.chosen[k] = set(np.flatnonzero(self.system.columns.owner == k).tolist())
        return self.chosen[k]

    def _range(self, factor: sc.Scalar) -> tuple[float, float]:
        """Where a factor lies: a row of the leader may keep its sign, as of prices that rise."""
        low, high = tree_range(factor, self.low, self.high)[id(factor)]
        if low < 0.0 < high:
            terms = polynomial(factor)
            if terms is not None and all(len(key) < 2 for key in terms):
                return affine_range(self.system, terms)
        return low, high

    def _power(self, tree: sc.Call, k: int, sign: float) -> sc.Scalar | None:
        """``e^p`` with ``e >= 0`` and ``p >= 1`` grows with e: the kinks in e are its kinks."""
        base, exponent = tree.arguments
        if sign < 0 or not isinstance(exponent, sc.Num) or exponent.value < 1.0:
            return None
        if tree_range(base, *self.own)[id(base)][0] < 0.0:
            return None
        inner = self._less(base, k)
        return None if inner is None else sc.power(inner, exponent)

    def _further(self, k: int, name: str) -> sc.Col:
        """A further variable of follower k."""
        self.owners.append(k)
        self.names.append(f"{name}.{sum(n.startswith(name) for n in self.names) + 1}")
        return sc.Col(self.system.columns.count + len(self.owners) - 1)

    def _epigraph(self, parts: tuple[sc.Scalar, ...], k: int) -> sc.Scalar | None:
        made = [self._less(p, k) for p in parts]
        if any(p is None for p in made):
            return None
        top = self._further(k, "kink")
        for part in _known(made):
            self.trees.append(sc.add(part, sc.mul(sc.Num(-1.0), top)))
            self.of_row.append(k)
        return top


def huber_terms(terms: Sequence[sc.Scalar]) -> tuple[sc.Scalar, float, int] | None:
    """(r, d, count) where the first ``count`` terms are ``huber(r, d)`` as it is written out::

    s^2/2 + d (|r| - s),   s = min(|r|, d)
    """
    match terms[0]:
        case sc.Call("mul", (sc.Num(0.5), sc.Call("pow", (sc.Call("min", (size, d)) as s, _)))):
            if not (isinstance(size, sc.Call) and size.function == "abs"):
                return None
            if not (isinstance(d, sc.Num) and d.value > 0.0):
                return None
            r = size.arguments[0]
            linear = sc.mul(d, sc.add(size, sc.mul(sc.Num(-1.0), s)))
            count = 3 if d.value == 1.0 else 2  # sums lie open in sums
            whole = sc.add(terms[0], linear) == sc.add(*terms[:count])
            return (r, d.value, count) if whole else None
    return None


def _known(parts: Collection[sc.Scalar | None]) -> list[sc.Scalar]:
    return [p for p in parts if p is not None]
