"""Expressions of the IR: immutable, interned tensor nodes with ordered axes.

Nodes are made by :class:`bilevelpy.ir.build.Builder` only, which brings them to one canonical form
and interns them, so that equal expressions of one program are the same object. A node's ``axes``
are its dimensions in order; an axis may occur twice (``D[k, k]``). The number of nodes depends on
the text of a model, never on its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.types import Axes, Axis, Label


@dataclass(frozen=True, eq=False, slots=True)
class Expr:
    """Base of all nodes. ``span`` is the first place in the source that gave rise to it (None for
    synthetic).
    """

    axes: Axes
    span: Span | None

    @property
    def children(self) -> tuple[Expr, ...]:
        """The operands, in order."""
        return ()

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.axes)


# --- leaves --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Const(Expr):
    """A scalar number."""

    value: float


@dataclass(frozen=True, eq=False, slots=True)
class Array(Expr):
    """A literal array ``[a, b]`` of numbers, row by row in ``values``; its axes are SIZE axes."""

    values: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Fill(Expr):
    """A tensor of one value over ``axes`` (ones, zeros)."""

    value: float


@dataclass(frozen=True, eq=False, slots=True)
class Eye(Expr):
    """The identity matrix over ``axes == (a, a)``."""


@dataclass(frozen=True, eq=False, slots=True)
class ParamRef(Expr):
    """A param, its array bound later."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class VarRef(Expr):
    """A decision variable; ``level`` is "upper" or a follower's name; family axes come first in
    ``axes``.
    """

    level: str
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class DualRef(Expr):
    """The shadow price of a follower's constraint; ``axes`` are those of the constraint, family
    first.
    """

    level: str
    constraint: str


@dataclass(frozen=True, eq=False, slots=True)
class Size(Expr):
    """The number of elements of ``axis``, a scalar."""

    axis: Axis


@dataclass(frozen=True, eq=False, slots=True)
class Position(Expr):
    """``axes == (axis,)``: position of each element in its axis, from 0."""

    axis: Axis


@dataclass(frozen=True, eq=False, slots=True)
class Coordinate(Expr):
    """``axes == (axis,)``: the number that each element is (dims count from 1, ranges are their
    integers).
    """

    axis: Axis


@dataclass(frozen=True, eq=False, slots=True)
class Component(Expr):
    """``axes == (axis,)``: position of each element of a PAIRS or SUBSET axis within
    ``axis.parents[part]``.
    """

    axis: Axis
    part: int


@dataclass(frozen=True, eq=False, slots=True)
class LabelPosition(Expr):
    """The position of ``label`` in ``axis``, a scalar; checked at binding."""

    axis: Axis
    label: Label


# --- index arithmetic (data only) -----------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Locate(Expr):
    """Positions in ``axis`` of elements given by ``values`` (all of the node's axes).

    One value: the element as a number (``by_number``) or as a position in ``axis.parents[0]``.
    Several values: positions in each of ``axis.parents``. An element that is not in the axis is an
    error at binding.
    """

    axis: Axis
    values: tuple[Expr, ...]
    by_number: bool

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.values


# --- tensor operations ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Apply(Expr):
    """An elementwise function. Every operand has the node's axes, or is a scalar.

    ``function`` is a key of :data:`bilevelpy.ir.atoms.ELEMENTWISE` ("add" takes any number of
    operands; products are :class:`Einsum`).
    """

    function: str
    operands: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands


@dataclass(frozen=True, eq=False, slots=True)
class Einsum(Expr):
    """A product of operands, summed over the labels that are not in ``output``.

    ``subscripts[k][d]`` labels dimension ``d`` of operand ``k``. Either nothing is summed and there
    are any number of operands (an elementwise or outer product; a scalar operand has no
    subscripts), or labels are summed and there are exactly two operands. A single operand takes a
    diagonal (``ii->i``) or permutes.
    """

    operands: tuple[Expr, ...]
    subscripts: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands

    @property
    def axis_of(self) -> dict[int, Axis]:
        """The axis of every label."""
        pairs = zip(self.operands, self.subscripts, strict=True)
        return {s: a for o, labels in pairs for s, a in zip(labels, o.axes, strict=True)}

    @property
    def contracts(self) -> bool:
        """Whether labels are summed."""
        kept = set(self.output)
        return any(label not in kept for subscript in self.subscripts for label in subscript)


@dataclass(frozen=True, eq=False, slots=True)
class Align(Expr):
    """A permutation with broadcasting: dimension ``d`` is dimension ``source[d]`` of the operand,
    or repeats it (None).
    """

    operand: Expr
    source: tuple[int | None, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Expr):
    """A reduction over ``dims`` of the operand: a key of :data:`bilevelpy.ir.atoms.REDUCTIONS`."""

    function: str
    operand: Expr
    dims: tuple[int, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class MapLast(Expr):
    """A function of the last axis that keeps the shape: "softmax" or "logsoftmax"."""

    function: str
    operand: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class Matrix(Expr):
    """A scalar function of a square (or any) matrix over the last two axes: "logdet" or
    "spectral_norm".
    """

    function: str
    operand: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class Gather(Expr):
    """Static indexing. ``index[d]`` is a data-only position expression for dimension ``d``, or None
    to keep it.

    All given indices have the same axes J; the node's axes are J followed by the kept dimensions in
    order.
    """

    operand: Expr
    index: tuple[Expr | None, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand, *(i for i in self.index if i is not None))


@dataclass(frozen=True, eq=False, slots=True)
class ScatterSum(Expr):
    """Sums dimension 0 of the operand into ``axes[0 : len(index)]`` at the positions ``index``
    (data only, over dim 0).

    The other dimensions of the operand follow. Used for sums whose `where` reads an outer iterator.
    """

    operand: Expr
    index: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand, *self.index)


@dataclass(frozen=True, eq=False, slots=True)
class Concat(Expr):
    """Operands one after another along dimension 0; ``axes[0]`` is a CONCAT axis, or the size of a
    literal array.
    """

    operands: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands


@dataclass(frozen=True, eq=False, slots=True)
class Diag(Expr):
    """The square matrix over ``axes == (..., a, a)`` with the operand (..., a) on its diagonal."""

    operand: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class ExternCall(Expr):
    """A call of a function handed over at binding."""

    name: str
    operands: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.operands
