"""A bound program as scalar rows: the exact coefficients of every objective and constraint.

``system(bound)`` numbers the columns (:class:`~bilevelpy.reductions.columns.Columns`) and writes
every level as rows over them. A row is linear, quadratic, or (small models) a scalar tree. Every
objective is a minimisation: a level that maximises has ``sign == -1`` and its objective negated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.types import DomainKind, Relation, Sense
from bilevelpy.ir.walk import place
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.columns import entry_names, make_columns
from bilevelpy.reductions.expand.expander import Expander
from bilevelpy.reductions.polynomial import Form, apply_linear, plus, spread
from bilevelpy.reductions.tables import (
    Follower,
    Functions,
    Rows,
    System,
    join_functions,
    join_rows,
    tree_functions,
    without_constants,
)

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import BoundProgram, Constraint, Level, Variable

__all__ = [
    "Follower",
    "Functions",
    "Rows",
    "System",
    "join_functions",
    "join_rows",
    "system",
    "without_constants",
]

Array = np.ndarray[Any, np.dtype[Any]]


def system(
    bound: BoundProgram, *, objective: bool = True, lower: bool = True, matrices: bool = False
) -> System:
    """Write a bound program as scalar rows; without the leader's ``objective``, or those of the
    ``lower`` levels, 0 stands for them.
    ``matrices``: semidefinite variables are taken without their domain, which has no rows.

    Raises
    ------
    Refused
        Where something has no scalar form (semidefinite variables, extern functions), or a function
        that is no polynomial of degree two is too large to be written entry by entry.
    """
    program = bound.program
    columns = make_columns(bound, matrices=matrices)
    offsets = {(b.level, b.name): b.offset for b in columns.blocks}
    run = Expander(bound, offsets, columns.count)
    made: list[Follower] = []
    objectives: list[Functions] = []
    lower_rows: list[Rows] = []
    first = 1
    for level in program.lowers:
        sign = -1.0 if level.sense is Sense.MAXIMIZE else 1.0
        names = entry_names(bound, level.name, level.family)
        made += [Follower(level.name, name, sign, level.nash, level.span) for name in names]
        none = Functions(np.zeros(len(names)), sp.csr_array((len(names), columns.count)))
        own = _functions(run, level.objective, len(names)).scaled(sign) if lower else none
        objectives.append(own)
        lower_rows.append(_level_rows(run, level, first, len(names)))
        first += len(names)
    sign = -1.0 if program.upper.sense is Sense.MAXIMIZE else 1.0
    above = Functions(np.zeros(1), sp.csr_array((1, columns.count)))
    if objective:
        above = _functions(run, program.upper.objective, 1).scaled(sign)
    return System(
        bound,
        columns,
        sign,
        above,
        _level_rows(run, program.upper, 0, 1),
        tuple(made),
        join_functions(objectives, columns.count),
        join_rows(lower_rows, columns.count),
    )


def _functions(run: Expander, node: Expr, count: int, span: Span | None = None) -> Functions:
    """The entries of an expression as functions."""
    form = run.form(node)
    if form is not None:
        form = spread(form, count)
        return Functions(
            form.constant.copy(), form.linear, run.quadratic(form, span or place(node))
        )
    trees = run.trees(node)
    trees = trees * count if len(trees) == 1 else trees
    return tree_functions(trees, run.width)


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
        pieces = [(_functions(run, terms[1], count, constraint.span), low, high, "")]
    else:
        pieces = []
        for k, relation in enumerate(relations):
            part = f".{k + 1}" if len(relations) == 2 else ""
            body = _difference(run, terms[k], terms[k + 1], count, constraint.span)
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
        # An end may be data that is infinite: an end that is open stays open.
        low = np.subtract(low, moved, where=np.isfinite(low), out=low.copy())
        high = np.subtract(high, moved, where=np.isfinite(high), out=high.copy())
        found.append(Rows(shown, functions, low, high, follower, spans, origin))
    return found[0] if len(found) == 1 else join_rows(found, run.width)


def _difference(run: Expander, left: Expr, right: Expr, count: int, span: Span | None) -> Functions:
    a, b = run.form(left), run.form(right)
    if a is not None and b is not None:
        minus = _negated(b)
        form = plus(spread(a, count), spread(minus, count))
        return Functions(form.constant.copy(), form.linear, run.quadratic(form, span))
    first, second = run.trees(left), run.trees(right)
    pairs = zip(
        first * (count if len(first) == 1 else 1),
        second * (count if len(second) == 1 else 1),
        strict=True,
    )
    trees = [sc.add(p, sc.mul(sc.Num(-1.0), q)) for p, q in pairs]
    return tree_functions(trees, run.width)


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
