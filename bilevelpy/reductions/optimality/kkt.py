"""Optimality conditions in place of the followers: one level, with complementarity.

For a follower ``min f(x, y)`` under rows ``L <= g(x, y) <= U`` and bounds ``l <= y <= u``::

    grad f + sum_r (p_r - q_r) grad g_r - p_l + p_u = 0      (stationarity, one row a column of y)
    p, q >= 0,   p_r (U_r - g_r) = 0,   q_r (g_r - L_r) = 0   (complementarity: ``pairs``)

with one free multiplier and no complementarity for an equation (or a fixed variable). Rows of a
follower that read none of its variables join the upper level. Followers of a family, and players
of a Nash game, each get their own conditions. A shadow price is ``-(p_r - q_r)`` under ``minimize``
and ``p_r - q_r`` under ``maximize``: the derivative of the optimal value in the sense it is written
in, by the right-hand side of the row as it is written. Norms may get subgradients
(:mod:`~bilevelpy.reductions.rewriting.norms`): a gradient is not there where they vanish.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.columns import Columns
from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.optimality.conditions import KKT, Pair
from bilevelpy.reductions.optimality.validity import require_convex, require_optimistic
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.norms import Norms
from bilevelpy.reductions.rows import Functions, Rows, System, join_rows, without_constants
from bilevelpy.reductions.tables import free_rows
from bilevelpy.reductions.trees import linear_terms, tree_of

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

Array = np.ndarray[Any, np.dtype[Any]]


def kkt(
    system: System,
    target: str = "this form",
    force: bool = False,
    optimistic: bool = False,
    norms: bool = False,
) -> KKT:
    """Replace the followers by their optimality conditions.

    Parameters
    ----------
    target
        Name of the format, for messages.
    force
        Let followers through that are not known to be convex.
    optimistic
        Take a pessimistic model by the optimistic reading: the caller knows what that means.
    norms
        Put columns and rows in the place of norms (kind "norm"), so that the conditions hold where
        norms vanish too.

    Raises
    ------
    Refused
        Where the conditions would not be equivalent, or a function has kinks.
    """
    if not optimistic:
        require_optimistic(system, target)
    warnings = require_convex(system, force)
    return _Conditions(system, norms).build(warnings, force)


def own_slopes(system: System) -> Array:
    """The linear coefficient of every lower column in the objective of its own follower."""
    linear = system.lower_objectives.linear.tocoo()
    mine = system.columns.owner[linear.col] == linear.row + 1
    return np.bincount(linear.col[mine], linear.data[mine], minlength=system.columns.count)


class _Conditions:
    """Collects multipliers, and what they contribute to each stationarity row."""

    def __init__(self, system: System, norms: bool) -> None:
        self.system = system
        self.norms = Norms(system, system.columns.count) if norms else None
        owner = system.columns.owner
        self.stationary = [int(j) for j in np.flatnonzero(owner > 0)]
        self.place = {j: k for k, j in enumerate(self.stationary)}
        self.names: list[str] = []
        self.low: list[float] = []
        self.high: list[float] = []
        # (stationarity row, column, coefficient) of linear terms
        self.linear: list[tuple[int, int, float]] = []
        # stationarity row -> (multiplier, column, coefficient) of products
        self.products: dict[int, list[tuple[int, int, float]]] = {}
        self.trees: dict[int, list[sc.Scalar]] = {}
        # the gradient of every tree, by its identity
        self.slopes: dict[int, dict[int, sc.Scalar | None]] = {}
        self.pairs: list[Pair] = []
        self.equations: list[Pair] = []
        # lower row -> (multiplier, sign) of its multipliers
        self.of_row: dict[int, list[tuple[int, float]]] = {}

    def build(self, warnings: tuple[str, ...], force: bool) -> KKT:
        system = self.system
        rows = system.lower_rows
        moved, kept = self._split(rows)
        upper = join_rows([system.upper_rows, rows.take(moved)], system.columns.count)
        lower = rows.take(kept)
        if self.norms is not None:
            self._open(self.norms, lower, force)
        self._objectives()
        for r in range(lower.count):
            self._row(lower, r, upper.count + r)
        for j in self.stationary:
            self._bounds(j)
        width = system.columns.count + len(self.names)
        prices = self._prices(lower, width)
        columns = system.columns.extended(
            self.names,
            np.array(self.low),
            np.array(self.high),
            np.zeros(len(self.names), dtype=bool),
        )
        stationarity = self._stationarity(columns)
        shown = lower.widened(width)
        linked: list[Rows] = []
        if self.norms is not None and self.norms.names:
            shown = without_constants(
                replace(shown, functions=self.norms.read(shown.functions, lower.follower))
            )
            linked = [self.norms.rows(width)]
        parts = [upper.widened(width), shown, stationarity, prices, *linked]
        kinds = ("upper", "lower", "stationarity", "price", "norm")[: len(parts)]
        return KKT(
            system,
            columns,
            system.objective.widened(width),
            join_rows(parts, width),
            tuple(kind for kind, p in zip(kinds, parts, strict=True) for _ in range(p.count)),
            tuple(self.pairs),
            tuple(self.stationary),
            warnings,
            tuple(self.equations),
        )

    def _open(self, norms: Norms, lower: Rows, force: bool) -> None:
        """Columns for the norms; refused where other points would meet the conditions too."""
        for k, tree in self.system.lower_objectives.trees.items():
            norms.watch(tree, k + 1, 1.0)
        for r, tree in lower.functions.trees.items():
            for sign, end in ((1.0, lower.upper[r]), (-1.0, lower.lower[r])):
                if np.isfinite(end):
                    norms.watch(tree, int(lower.follower[r]), sign)
        if not norms.regular and not force:
            raise refuse(
                self.system.bound.program,
                "BLV0707",
                self.system.followers[0].span,
                "a norm in it need not grow what the follower makes small",
                hint="give it a factor that is never negative",
                what="the conditions of the follower",
            )
        self.names, self.low, self.high = [*norms.names], [*norms.low], [*norms.high]

    def _split(self, rows: Rows) -> tuple[list[int], list[int]]:
        """Rows that do not read their follower's own variables, and the others; idle rows go."""
        owner = self.system.columns.owner
        moved: list[int] = []
        kept: list[int] = []
        for r in range(rows.count):
            if rows.lower[r] == -np.inf and rows.upper[r] == np.inf:
                continue
            own = any(owner[j] == rows.follower[r] for j in rows.functions.reads(r))
            (kept if own else moved).append(r)
        return moved, kept

    def _multiplier(self, name: str, free: bool) -> int:
        self.names.append(name)
        self.low.append(-np.inf if free else 0.0)
        self.high.append(np.inf)
        return self.system.columns.count + len(self.names) - 1

    def _objectives(self) -> None:
        """The gradient of every follower's objective in its own variables."""
        functions, owner = self.system.lower_objectives, self.system.columns.owner
        for j in self.stationary:
            k = int(owner[j]) - 1
            if k in functions.trees:
                self._tree(j, functions.trees[k], None, self.system.followers[k].span)
                continue
            if k in functions.quadratic:
                q = functions.quadratic[k]
                span = slice(q.indptr[j], q.indptr[j + 1])
                for column, c in zip(q.indices[span], q.data[span], strict=True):
                    self.linear.append((self.place[j], int(column), float(c)))

    def _row(self, rows: Rows, r: int, shown_at: int) -> None:
        """Multipliers of a row and what they contribute."""
        name, low, high = rows.names[r], rows.lower[r], rows.upper[r]
        sides: list[tuple[int, float]] = []
        if low == high:
            column = self._multiplier(f"nu.{name}", True)
            sides.append((column, 1.0))
            self.equations.append(Pair(name, column, "equation", shown_at, span=rows.spans[r]))
        else:
            for side, sign, end in (("upper", 1.0, high), ("lower", -1.0, low)):
                if np.isfinite(end):
                    both = np.isfinite(low) and np.isfinite(high)
                    part = f".{side}" if both else ""
                    column = self._multiplier(f"lam.{name}{part}", False)
                    sides.append((column, sign))
                    self.pairs.append(
                        Pair(name + part, column, side, row=shown_at, span=rows.spans[r])
                    )
        self.of_row[r] = sides
        functions, owner = rows.functions, self.system.columns.owner
        own = [j for j in functions.reads(r) if owner[j] == rows.follower[r]]
        coefficients = dict(linear_terms(functions, r))
        for column, sign in sides:
            for j in own:
                if r in functions.trees:
                    self._tree(j, functions.trees[r], (column, sign), rows.spans[r])
                    continue
                c = coefficients.get(j, 0.0)
                if c:
                    self.linear.append((self.place[j], column, sign * c))
                if r in functions.quadratic:
                    q = functions.quadratic[r]
                    span = slice(q.indptr[j], q.indptr[j + 1])
                    self.products.setdefault(self.place[j], []).extend(
                        (column, int(k), sign * float(d))
                        for k, d in zip(q.indices[span], q.data[span], strict=True)
                    )

    def _tree(
        self, j: int, tree: sc.Scalar, weight: tuple[int, float] | None, span: Span | None
    ) -> None:
        if id(tree) not in self.slopes:
            self.slopes[id(tree)] = (
                sc.gradient(tree, self.place)
                if self.norms is None
                else self.norms.gradient(tree, int(self.system.columns.owner[j]), self.place)
            )
        slope = self.slopes[id(tree)].get(j, sc.ZERO)
        if slope is None:
            raise refuse(
                self.system.bound.program,
                "BLV0707",
                span,
                "has kinks (abs, max or min)",
                hint="write it with a further variable and two rows, which is smooth",
                what=f"the derivative by `{self.system.columns.names[j]}`",
            )
        if slope == sc.ZERO:
            return
        if weight is not None:
            slope = sc.mul(sc.Num(weight[1]), sc.Col(weight[0]), slope)
        self.trees.setdefault(self.place[j], []).append(slope)

    def _bounds(self, j: int) -> None:
        """Bounds of a lower variable are constraints of its follower."""
        columns = self.system.columns
        name, low, high = columns.names[j], columns.lower[j], columns.upper[j]
        block = columns.block_of(j)
        span = block.span if block is not None else None
        if low == high:
            column = self._multiplier(f"nu.{name}", True)
            self.linear.append((self.place[j], column, 1.0))
            self.equations.append(Pair(name, column, "equation", column=j, span=span))
            return
        for side, sign, end in (("lower", -1.0, low), ("upper", 1.0, high)):
            if np.isfinite(end):
                column = self._multiplier(f"mu.{name}.{side}", False)
                self.linear.append((self.place[j], column, sign))
                self.pairs.append(Pair(f"{name}.{side}", column, side, column=j, span=span))

    def _stationarity(self, columns: Columns) -> Rows:
        count, width = len(self.stationary), columns.count
        system = self.system
        rows = [t[0] for t in self.linear]
        entries = ([t[2] for t in self.linear], (rows, [t[1] for t in self.linear]))
        linear = sp.csr_array(entries, shape=(count, width))
        linear.sum_duplicates()
        constant = own_slopes(system)[self.stationary]
        quadratic = {}
        for row, terms in self.products.items():
            if not terms:  # the row is affine in the columns that it shares with this one
                continue
            m, k, c = (list(part) for part in zip(*terms, strict=True))
            half = sp.csr_array((c, (m, k)), shape=(width, width))
            quadratic[row] = sp.csr_array(half + half.T)
        functions = Functions(np.zeros(count), linear, quadratic)
        trees = {
            row: sc.add(tree_of(functions, row, constant=False), *parts)
            for row, parts in self.trees.items()
        }
        if trees:
            keep = np.ones(count)
            keep[list(trees)] = 0.0
            linear = sp.csr_array(sp.diags_array(keep) @ linear)
            linear.eliminate_zeros()
            quadratic = {r: q for r, q in quadratic.items() if r not in trees}
            functions = Functions(np.zeros(count), linear, quadratic, trees)
        names = tuple(f"stat.{system.columns.names[j]}" for j in self.stationary)
        owner = system.columns.owner[self.stationary] if count else np.zeros(0, dtype=np.int64)
        return free_rows(names, functions, -constant, -constant, owner)

    def _prices(self, lower: Rows, width: int) -> Rows:
        """Shadow prices as combinations of multipliers; known bounds of prices bound these."""
        columns = self.system.columns
        names: list[str] = []
        made: list[Terms] = []
        sign_of = {f.level: f.sign for f in self.system.followers}
        rows_of: dict[tuple[str, str, int], list[int]] = {}
        for r, origin in enumerate(lower.origin):
            if origin is not None:
                rows_of.setdefault(origin, []).append(r)
        for block in columns.blocks:
            if not block.is_dual:
                continue
            sign = sign_of[block.level]
            for k in range(block.size):
                price = block.offset + k
                names.append(f"price.{columns.names[price]}")
                terms: Terms = {(price,): 1.0}
                for r in rows_of.get((block.level, block.name, k), []):
                    for column, side in self.of_row[r]:
                        terms[column,] = sign * side
                        self._bound(column, -sign * side, price)
                made.append(terms)
        zero = [0.0] * len(names)
        return terms_rows(names, made, zero, zero, width)

    def _bound(self, multiplier: int, factor: float, price: int) -> None:
        """The price is ``factor * multiplier`` where that acts alone: bounds of one bound both."""
        place = multiplier - self.system.columns.count
        low, high = self.system.columns.lower[price], self.system.columns.upper[price]
        ends = sorted((low, high) if factor > 0 else (-high, -low))
        if self.low[place] == 0.0:
            self.high[place] = min(self.high[place], max(0.0, float(ends[1])))
        else:
            self.low[place] = max(self.low[place], float(ends[0]))
            self.high[place] = min(self.high[place], float(ends[1]))
