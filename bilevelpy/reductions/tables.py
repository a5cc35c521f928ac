"""Scalar functions, rows over them, and a whole program of rows: what every reformulation reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.columns import Columns
from bilevelpy.reductions.evaluation import Evaluation
from bilevelpy.reductions.polynomial import Sparse
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Functions:
    """m scalar functions of n columns: ``constant + linear v + v' Q_r v / 2 + tree_r(v)``.

    ``quadratic[r]`` is the symmetric sparse Q of row r (absent where there is none); ``trees[r]``
    stands for the whole row where that is no polynomial of degree two: its other parts are zero.
    """

    constant: Array
    linear: Sparse
    quadratic: Mapping[int, Sparse] = field(default_factory=dict)
    trees: Mapping[int, sc.Scalar] = field(default_factory=dict)
    # Trees made ready for evaluation, by identity; what is taken from here shares them.
    _ready: dict[int, Evaluation] = field(default_factory=dict, repr=False, compare=False)

    @property
    def count(self) -> int:
        """The number of functions."""
        return int(self.constant.size)

    @property
    def degree(self) -> int:
        """1 where all are linear, 2 where some are quadratic, 3 where some are trees."""
        return 3 if self.trees else 2 if self.quadratic else 1

    def reads(self, row: int) -> set[int]:
        """The columns that a function depends on."""
        if row in self.trees:
            return sc.columns([self.trees[row]])
        found = set(self.linear.indices[self.linear.indptr[row] : self.linear.indptr[row + 1]])
        if row in self.quadratic:
            found |= set(self.quadratic[row].tocoo().row)
        return {int(j) for j in found}

    def value(self, v: Array) -> Array:
        """The values at a point."""
        total = self.constant + self.linear @ v
        for row, q in self.quadratic.items():
            total[row] += 0.5 * float(v @ (q @ v))
        for row in self.trees:
            total[row] += self.tree(row).value(v)
        return np.asarray(total)

    def tree(self, row: int) -> Evaluation:
        """The tree of a row, ready for evaluation."""
        root = self.trees[row]
        found = self._ready.get(id(root))
        if found is None:
            found = self._ready[id(root)] = Evaluation(root, int(self.linear.shape[1]))
        return found

    def at(self, row: int, v: Array) -> float:
        """The value of one function at a point."""
        span = slice(self.linear.indptr[row], self.linear.indptr[row + 1])
        total = float(self.constant[row] + self.linear.data[span] @ v[self.linear.indices[span]])
        if row in self.quadratic:
            total += 0.5 * float(v @ (self.quadratic[row] @ v))
        if row in self.trees:
            total += self.tree(row).value(v)
        return total

    def take(self, rows: Iterable[int]) -> Functions:
        """Some of the functions, in the given order."""
        chosen = [int(r) for r in rows]
        return Functions(
            self.constant[chosen],
            sp.csr_array(self.linear[chosen]),
            {k: self.quadratic[r] for k, r in enumerate(chosen) if r in self.quadratic},
            {k: self.trees[r] for k, r in enumerate(chosen) if r in self.trees},
            self._ready,
        )

    def widened(self, width: int) -> Functions:
        """Over more columns, on which nothing depends."""
        return Functions(
            self.constant,
            _wider(self.linear, self.count, width),
            {r: _wider(q, width, width) for r, q in self.quadratic.items()},
            self.trees,
        )

    def scaled(self, factor: float) -> Functions:
        """All functions times a number."""
        return Functions(
            factor * self.constant,
            sp.csr_array(factor * self.linear),
            {r: sp.csr_array(factor * q) for r, q in self.quadratic.items()},
            {r: sc.mul(sc.Num(factor), t) for r, t in self.trees.items()},
        )

    def parted(self) -> tuple[Functions, Functions]:
        """One quadratic function as a sum: what is linear in columns of its own, and the rest."""
        curved = np.zeros(self.linear.shape[1], dtype=bool)
        curved[self.quadratic[0].tocoo().row] = True
        terms = self.linear.tocoo()
        inside = curved[terms.col]

        def part(chosen: Array) -> Sparse:
            entries = (terms.data[chosen], (terms.row[chosen], terms.col[chosen]))
            return sp.csr_array(entries, shape=self.linear.shape)

        return (
            Functions(np.zeros(1), part(~inside)),
            Functions(self.constant, part(inside), self.quadratic),
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """Constraints ``lower <= functions <= upper``; equal bounds are an equation.

    The constants of the functions are zero: they have moved into the bounds (not for trees, which
    keep theirs). ``follower[r]`` is 0 for the upper level, else as ``Columns.owner``. ``origin[r]``
    is (level, constraint, entry) of the constraint that the row comes from, None for rows of
    domains.
    """

    names: tuple[str, ...]
    functions: Functions
    lower: Array
    upper: Array
    follower: Array
    spans: tuple[Span | None, ...]
    origin: tuple[tuple[str, str, int] | None, ...]

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.names)

    @property
    def is_equation(self) -> Array:
        """Which rows are equations."""
        return np.asarray(self.lower == self.upper)

    def take(self, rows: Iterable[int]) -> Rows:
        """Some of the rows, in the given order."""
        chosen = [int(r) for r in rows]
        return Rows(
            tuple(self.names[r] for r in chosen),
            self.functions.take(chosen),
            self.lower[chosen],
            self.upper[chosen],
            self.follower[chosen],
            tuple(self.spans[r] for r in chosen),
            tuple(self.origin[r] for r in chosen),
        )

    def widened(self, width: int) -> Rows:
        """Over more columns."""
        return Rows(
            self.names,
            self.functions.widened(width),
            self.lower,
            self.upper,
            self.follower,
            self.spans,
            self.origin,
        )

    def violation(self, v: Array) -> Array:
        """How far every row is violated at a point; without end where it has no value there (the
        derivative of an entropy at 0).
        """
        try:
            value = self.functions.value(v)
        except (ValueError, ArithmeticError):
            value = np.array([self._at(row, v) for row in range(self.count)])
        off = np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0)
        return np.asarray(np.where(np.isnan(off), math.inf, off))

    def _at(self, row: int, v: Array) -> float:
        try:
            return self.functions.at(row, v)
        except (ValueError, ArithmeticError):
            return math.nan


@dataclass(frozen=True, slots=True)
class Follower:
    """One follower of a level, in the order of ``System.lower_objectives``; ``sign`` is -1 where
    the model maximises.
    """

    level: str
    name: str
    sign: float
    nash: bool
    span: Span | None


@dataclass(frozen=True, slots=True)
class System:
    """A bound program in scalars.

    ``objective`` is one function, ``lower_objectives`` one for each follower (followers that do not
    play a game can be added up: their variables are apart). All are minimised. Bounds of variables
    are in ``columns``; bounds of a lower variable belong to its follower.
    """

    bound: BoundProgram
    columns: Columns
    sign: float
    objective: Functions
    upper_rows: Rows
    followers: tuple[Follower, ...]
    lower_objectives: Functions
    lower_rows: Rows
    # What has been derived from it, by name: made once, and anew where something is replaced.
    derived: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def upper_columns(self) -> Array:
        """Columns that the leader chooses."""
        return np.flatnonzero(self.columns.owner == 0)

    @property
    def lower_columns(self) -> Array:
        """Columns that followers choose."""
        return np.flatnonzero(self.columns.owner > 0)

    @property
    def degree(self) -> int:
        """The highest class of all functions (1 linear, 2 quadratic, 3 other)."""
        parts = (
            self.objective,
            self.lower_objectives,
            self.upper_rows.functions,
            self.lower_rows.functions,
        )
        return max(p.degree for p in parts)


def tree_functions(trees: Sequence[sc.Scalar], width: int) -> Functions:
    """One function of ``width`` columns for each tree."""
    count = len(trees)
    return Functions(np.zeros(count), sp.csr_array((count, width)), {}, dict(enumerate(trees)))


def free_rows(
    names: Sequence[str], functions: Functions, low: Array, high: Array, owner: Array | int = 0
) -> Rows:
    """Rows that come from no constraint of the model."""
    count = len(names)
    follower = np.full(count, owner) if isinstance(owner, int) else owner
    none = (None,) * count
    return Rows(tuple(names), functions, low, high, follower, none, none)


def join_functions(parts: list[Functions], width: int) -> Functions:
    """Functions one after another."""
    if not parts:
        return Functions(np.zeros(0), sp.csr_array((0, width)))
    quadratic: dict[int, Sparse] = {}
    trees: dict[int, sc.Scalar] = {}
    start = 0
    for part in parts:
        quadratic |= {start + r: q for r, q in part.quadratic.items()}
        trees |= {start + r: t for r, t in part.trees.items()}
        start += part.count
    linear = sp.csr_array(sp.vstack([p.linear for p in parts], format="csr"))
    return Functions(np.concatenate([p.constant for p in parts]), linear, quadratic, trees)


def join_rows(parts: list[Rows], width: int) -> Rows:
    """Rows one after another."""
    none = np.zeros(0)
    return Rows(
        tuple(n for p in parts for n in p.names),
        join_functions([p.functions for p in parts], width),
        np.concatenate([none, *(p.lower for p in parts)]),
        np.concatenate([none, *(p.upper for p in parts)]),
        np.concatenate([none, *(p.follower for p in parts)]).astype(np.int64),
        tuple(s for p in parts for s in p.spans),
        tuple(o for p in parts for o in p.origin),
    )


def _wider(matrix: Sparse, rows: int, width: int) -> Sparse:
    if matrix.shape == (rows, width):
        return matrix
    check()  # every quadratic row has a matrix of its own
    coo = matrix.tocoo()
    return sp.csr_array((coo.data, (coo.row, coo.col)), shape=(rows, width))


def without_constants(rows: Rows) -> Rows:
    """Constants of rows that are polynomials belong into their bounds."""
    moved = rows.functions.constant
    functions = replace(rows.functions, constant=np.zeros(rows.count))
    return replace(rows, functions=functions, lower=rows.lower - moved, upper=rows.upper - moved)
