"""A bound program as scalar rows: the exact coefficients of every objective and constraint.

``system(bound)`` numbers the columns (:class:`~bilevelpy.reductions.columns.Columns`) and writes
every level as rows over them. A row is linear, quadratic, or (small models) a scalar tree. Every
objective is a minimisation: a level that maximises has ``sign == -1`` and its objective negated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.types import DomainKind, Relation, Sense
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.columns import Columns, entry_names, followers, make_columns
from bilevelpy.reductions.expand import Expander
from bilevelpy.reductions.polynomial import Form, Sparse, apply_linear, hessians, plus, spread

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import BoundProgram, Constraint, Level, Variable

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
        for row, tree in self.trees.items():
            total[row] += sc.evaluate(tree, v.tolist())
        return np.asarray(total)

    def take(self, rows: Iterable[int]) -> Functions:
        """Some of the functions, in the given order."""
        chosen = [int(r) for r in rows]
        return Functions(
            self.constant[chosen],
            sp.csr_array(self.linear[chosen]),
            {k: self.quadratic[r] for k, r in enumerate(chosen) if r in self.quadratic},
            {k: self.trees[r] for k, r in enumerate(chosen) if r in self.trees},
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
        """How far every row is violated at a point."""
        value = self.functions.value(v)
        return np.asarray(np.maximum(np.maximum(self.lower - value, value - self.upper), 0.0))


@dataclass(frozen=True, slots=True)
class Follower:
    """One follower: its level, its place in the family, and its objective (a row of
    ``System.lower_objectives``); ``sign`` is -1 where the model maximises.
    """

    level: str
    place: tuple[int, ...]
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


def system(bound: BoundProgram) -> System:
    """Write a bound program as scalar rows.

    Raises
    ------
    Refused
        Where something has no scalar form (semidefinite variables, extern functions), or a function
        that is no polynomial of degree two is too large to be written entry by entry.
    """
    program = bound.program
    columns = make_columns(bound)
    offsets = {(b.level, b.name): b.offset for b in columns.blocks}
    run = Expander(bound, offsets, columns.count)
    made: list[Follower] = []
    objectives: list[Functions] = []
    lower_rows: list[Rows] = []
    first = 1
    places = followers(bound)
    for level in program.lowers:
        own = [place for name, place in places if name == level.name]
        sign = -1.0 if level.sense is Sense.MAXIMIZE else 1.0
        names = entry_names(bound, level.name, level.family)
        made += [
            Follower(level.name, place, name, sign, level.nash, level.span)
            for place, name in zip(own, names, strict=True)
        ]
        objectives.append(_functions(run, level.objective, len(own)).scaled(sign))
        lower_rows.append(_level_rows(run, level, first, len(own)))
        first += len(own)
    sign = -1.0 if program.upper.sense is Sense.MAXIMIZE else 1.0
    return System(
        bound,
        columns,
        sign,
        _functions(run, program.upper.objective, 1).scaled(sign),
        _level_rows(run, program.upper, 0, 1),
        tuple(made),
        join_functions(objectives, columns.count),
        join_rows(lower_rows, columns.count),
    )


def _functions(run: Expander, node: Expr, count: int) -> Functions:
    """The entries of an expression as functions."""
    form = run.form(node)
    if form is not None:
        form = spread(form, count)
        return Functions(form.constant.copy(), form.linear, hessians(form))
    trees = run.trees(node)
    trees = trees * count if len(trees) == 1 else trees
    return Functions(np.zeros(count), sp.csr_array((count, run.width)), {}, dict(enumerate(trees)))


def _level_rows(run: Expander, level: Level, first: int, members: int) -> Rows:
    prefix = "" if first == 0 else f"{level.name}."
    parts = [_constraint(run, level, c, prefix, first, members) for c in level.constraints]
    parts += [
        r for v in level.variables for r in _domain_rows(run, level, v, prefix, first, members)
    ]
    return join_rows(parts, run.width)


def _constraint(
    run: Expander, level: Level, constraint: Constraint, prefix: str, first: int, members: int
) -> Rows:
    """The rows of one constraint; data at both ends of two comparisons make one row an entry."""
    bound = run.bound
    shape = tuple(bound.data.sizes[a] for a in constraint.axes)
    count = int(np.prod(shape, dtype=np.int64))
    names = entry_names(bound, prefix + constraint.name, constraint.axes)
    follower = _owners(first, members, count)
    is_data = bound.program.builder.is_data
    terms, relations = constraint.terms, constraint.relations
    if len(relations) == 2 and is_data(terms[0]) and is_data(terms[2]):
        ends = [
            np.broadcast_to(evaluate(t, bound.data), shape).reshape(-1).astype(float)
            for t in (terms[0], terms[2])
        ]
        low, high = ends if relations[0] is Relation.LE else ends[::-1]
        pieces = [(_functions(run, terms[1], count), low, high, "")]
    else:
        pieces = []
        for k, relation in enumerate(relations):
            part = f".{k + 1}" if len(relations) == 2 else ""
            body = _difference(run, terms[k], terms[k + 1], count)
            zero, inf = np.zeros(count), np.full(count, np.inf)
            low = zero if relation is not Relation.LE else -inf
            high = zero if relation is not Relation.GE else inf
            pieces.append((body, low, high, part))
    found = []
    for functions, low, high, part in pieces:
        # What is constant moves to the other side; a tree keeps its own.
        moved = functions.constant
        functions = Functions(
            np.zeros(count), functions.linear, functions.quadratic, functions.trees
        )
        origin = tuple((level.name, constraint.name, k) for k in range(count))
        shown = tuple(n + part for n in names)
        spans = (constraint.span,) * count
        found.append(Rows(shown, functions, low - moved, high - moved, follower, spans, origin))
    return found[0] if len(found) == 1 else join_rows(found, run.width)


def _difference(run: Expander, left: Expr, right: Expr, count: int) -> Functions:
    a, b = run.form(left), run.form(right)
    if a is not None and b is not None:
        minus = _negated(b)
        form = plus(spread(a, count), spread(minus, count))
        return Functions(form.constant.copy(), form.linear, hessians(form))
    first, second = run.trees(left), run.trees(right)
    pairs = zip(
        first * (count if len(first) == 1 else 1),
        second * (count if len(second) == 1 else 1),
        strict=True,
    )
    trees = [sc.add(p, sc.mul(sc.Num(-1.0), q)) for p, q in pairs]
    return Functions(np.zeros(count), sp.csr_array((count, run.width)), {}, dict(enumerate(trees)))


def _negated(form: Form) -> Form:
    return apply_linear(-sp.eye_array(form.rows, format="csr"), form)


def _domain_rows(
    run: Expander, level: Level, variable: Variable, prefix: str, first: int, members: int
) -> list[Rows]:
    """The rows of a domain that is more than bounds."""
    bound, kind = run.bound, variable.domain.kind
    if kind not in (DomainKind.SIMPLEX, DomainKind.BALL):
        return []
    shape = tuple(bound.data.sizes[a] for a in variable.axes)
    size = int(np.prod(shape, dtype=np.int64))
    offset = run.offsets[level.name, variable.name]
    if kind is DomainKind.SIMPLEX:
        each, axes = shape[-1], variable.axes[:-1]
    else:
        each = size // members if members else 0
        axes = level.family
    count = size // each if each else 0
    rows = np.repeat(np.arange(count), each)
    entries = offset + np.arange(size)
    names = tuple(entry_names(bound, f"{prefix}{variable.name}.{kind}", axes))
    if kind is DomainKind.SIMPLEX:
        matrix = sp.csr_array((np.ones(size), (rows, entries)), shape=(count, run.width))
        functions = Functions(np.zeros(count), matrix)
        low, high = np.ones(count), np.ones(count)
    else:
        quadratic = {}
        for k in range(count):
            own = entries[k * each : (k + 1) * each]
            quadratic[k] = sp.csr_array(
                (np.full(each, 2.0), (own, own)), shape=(run.width, run.width)
            )
        functions = Functions(np.zeros(count), sp.csr_array((count, run.width)), quadratic)
        radius = variable.domain.radius
        assert radius is not None
        square = np.asarray(evaluate(radius, bound.data), dtype=float).reshape(-1) ** 2
        low, high = np.full(count, -np.inf), np.broadcast_to(square, (count,)).copy()
    span = variable.domain.span or variable.span
    return [
        Rows(
            names,
            functions,
            low,
            high,
            _owners(first, members, count),
            (span,) * count,
            (None,) * count,
        )
    ]


def _owners(first: int, members: int, count: int) -> Array:
    """The follower of every row of a family; 0 for the upper level."""
    if first == 0:
        return np.zeros(count, dtype=np.int64)
    return first + np.repeat(np.arange(members), count // members if members else 0)


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
    coo = matrix.tocoo()
    return sp.csr_array((coo.data, (coo.row, coo.col)), shape=(rows, width))
