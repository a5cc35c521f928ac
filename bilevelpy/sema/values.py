"""Values of expressions during elaboration: an IR node whose first dimensions belong to iterators.

Alignment happens here and only here: operands share iterator dimensions by identity of the
iterator, and positional axes by identity of the axis. Whether axes fit is checked by the callers,
which can say it in the user's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bilevelpy.diagnostics import Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.build import Builder
from bilevelpy.ir.types import Axes, Axis


@dataclass(frozen=True, eq=False, slots=True)
class Iterator:
    """A bound index; ``serial`` grows with the depth of binding, and orders the dimensions of
    values.
    """

    name: str
    axis: Axis
    serial: int
    span: Span | None = None


Iterators = tuple[Iterator, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """``expr`` with one dimension per iterator (outermost first), then positional axes."""

    expr: ir.Expr
    iters: Iterators = ()

    @property
    def axes(self) -> Axes:
        """The positional axes."""
        return self.expr.axes[len(self.iters) :]


@dataclass(frozen=True, slots=True)
class Point:
    """An element of ``axis``: its ``position`` there, and the iterator if it simply runs over the
    axis.
    """

    axis: Axis
    position: Value
    iterator: Iterator | None = None


def plain(builder: Builder, iterator: Iterator) -> Point:
    """The element that ``iterator`` stands at."""
    return Point(iterator.axis, Value(builder.position(iterator.axis), (iterator,)), iterator)


def union(values: Sequence[Value]) -> Iterators:
    """All iterators of ``values``, outermost first."""
    return ordered({i for v in values for i in v.iters})


def ordered(iterators: set[Iterator]) -> Iterators:
    """Iterators by depth."""
    return tuple(sorted(iterators, key=lambda i: i.serial))


def spread(builder: Builder, value: Value, iters: Iterators, axes: Axes) -> ir.Expr:
    """The node of ``value`` with exactly the dimensions ``iters`` and ``axes``; what it lacks is
    repeated.
    """
    source = [value.iters.index(i) if i in value.iters else None for i in iters]
    front = len(value.iters)
    source += [front + d if value.axes else None for d in range(len(axes))]
    return builder.align(value.expr, tuple(source), (*(i.axis for i in iters), *axes))


def shape(values: Sequence[Value]) -> Axes:
    """The positional axes that operands share (scalars are broadcast)."""
    return next((v.axes for v in values if v.axes), ())


def level_out(builder: Builder, values: Sequence[Value]) -> tuple[list[ir.Expr], Iterators]:
    """Nodes with equal dimensions, plain scalars left as they are; and their iterators."""
    iters, axes = union(values), shape(values)
    return [spread(builder, v, iters, axes) if v.expr.axes else v.expr for v in values], iters


def elementwise(
    builder: Builder, function: str, values: Sequence[Value], span: Span | None
) -> Value:
    """An elementwise function of aligned values."""
    operands, iters = level_out(builder, values)
    return Value(builder.apply(function, *operands, span=span), iters)


def total(
    builder: Builder, terms: Sequence[Value], signs: Sequence[float], span: Span | None
) -> Value:
    """The signed sum of aligned values."""
    operands, iters = level_out(builder, terms)
    signed = [o if s > 0 else builder.scale(s, o) for o, s in zip(operands, signs, strict=True)]
    return Value(builder.add(signed, span), iters)


def one_after_another(
    builder: Builder, parts: Sequence[tuple[Value, Axes]], axis: Axis, span: Span | None
) -> Value:
    """Values along ``axis``, each with the axes that are said beside it: what it lacks of them in
    front has one element.
    """
    iters = union([value for value, _ in parts])
    operands = []
    for value, axes in parts:
        front, lacking = len(value.iters), len(axes) - len(value.axes)
        source = [value.iters.index(i) if i in value.iters else None for i in iters]
        places = (*source, *(None,) * lacking, *range(front, front + len(value.axes)))
        # The axis that grows comes first in the node, before the iterators.
        order = (len(iters), *range(len(iters)), *range(len(iters) + 1, len(iters) + len(axes)))
        full = (*(i.axis for i in iters), *axes)
        node = builder.align(value.expr, tuple(places), full)
        operands.append(builder.align(node, order, tuple(full[d] for d in order)))
    joined = builder.concat(operands, axis, span)
    back = (*range(1, len(iters) + 1), 0, *range(len(iters) + 1, joined.rank))
    return Value(builder.align(joined, back, tuple(joined.axes[d] for d in back)), iters)


def full(builder: Builder, function: str, value: Value, span: Span | None) -> Value:
    """A reduction over all positional axes."""
    front = len(value.iters)
    dims = tuple(range(front, value.expr.rank))
    if not dims and function == "norm2":
        return Value(builder.apply("abs", value.expr, span=span), value.iters)
    return Value(builder.reduce(function, value.expr, dims, span), value.iters)


class Chain:
    """A product under construction: factors, and labels for every dimension in them."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._factors: list[tuple[ir.Expr, tuple[int, ...]]] = []
        self._labels: dict[Iterator, int] = {}
        self._axis_of: dict[int, Axis] = {}
        self.open: tuple[int, ...] = ()

    @property
    def axes(self) -> Axes:
        """The positional axes of the product so far."""
        return tuple(self._axis_of[label] for label in self.open)

    def _fresh(self, axis: Axis) -> int:
        label = len(self._axis_of)
        self._axis_of[label] = axis
        return label

    def _front(self, value: Value) -> tuple[int, ...]:
        for i in value.iters:
            if i not in self._labels:
                self._labels[i] = self._fresh(i.axis)
        return tuple(self._labels[i] for i in value.iters)

    def times(self, value: Value) -> None:
        """Multiply entry by entry; one side may be a scalar."""
        front = self._front(value)
        labels = (
            self.open if value.axes and self.open else tuple(self._fresh(a) for a in value.axes)
        )
        self._factors.append((value.expr, front + labels))
        self.open = self.open or labels

    def contract(self, value: Value) -> None:
        """Multiply and sum over the last axis so far and the first axis of ``value``."""
        front = self._front(value)
        rest = tuple(self._fresh(a) for a in value.axes[1:])
        self._factors.append((value.expr, (*front, self.open[-1], *rest)))
        self.open = (*self.open[:-1], *rest)

    def add(self, value: Value, labels: tuple[int, ...]) -> None:
        """Multiply by ``value`` with given labels of its positional axes."""
        self._factors.append((value.expr, (*self._front(value), *labels)))

    def fresh(self, axis: Axis) -> int:
        """A new label, for :meth:`add`."""
        return self._fresh(axis)

    def finish(self, span: Span | None, over: Iterators = ()) -> Value:
        """The product, summed over the labels that are not open and over the iterators ``over``."""
        for i in over:
            if i not in self._labels:
                self._labels[i] = self._fresh(i.axis)
        iters = ordered(set(self._labels) - set(over))
        output = (*(self._labels[i] for i in iters), *self.open)
        return Value(self._builder.product(self._factors, output, self._axis_of, span), iters)


def multiply(builder: Builder, values: Sequence[Value], span: Span | None) -> Value:
    """The product of aligned values, entry by entry."""
    chain = Chain(builder)
    for value in values:
        chain.times(value)
    return chain.finish(span)


def sum_over(builder: Builder, value: Value, iters: Iterators, span: Span | None) -> Value:
    """The sum over iterator dimensions; an iterator that ``value`` lacks multiplies by its size."""
    chain = Chain(builder)
    chain.times(value)
    return chain.finish(span, iters)


def take(
    builder: Builder,
    value: Value,
    spec: Sequence[Iterator | Value | None],
    span: Span | None = None,
) -> Value:
    """Index every dimension of ``value``: keep it (None), relabel it (Iterator), or gather at
    positions (Value).

    Positions may have positional axes of their own, equal in all of them; they stand where the
    first such index is.
    """
    front = len(value.iters)
    at = [s for s in spec if isinstance(s, Value)]
    new, inner = union(at), shape(at)
    full_spec: list[Iterator | Value | None] = list(spec)
    for d, entry in enumerate(full_spec):
        keeps = value.iters[d] if d < front and entry is None else entry
        # An iterator that is gathered anyway must not come back as a second dimension: take its
        # positions too.
        if isinstance(keeps, Iterator) and keeps in new:
            full_spec[d] = Value(builder.position(keeps.axis), (keeps,))
    if (
        len(full_spec) == 1
        and isinstance(full_spec[0], Value)
        and isinstance(value.expr, ir.Position)
    ):
        return full_spec[0]
    index = [spread(builder, s, new, inner) if isinstance(s, Value) else None for s in full_spec]
    node = builder.gather(value.expr, index, span)
    return _relabel(builder, value, node, full_spec, new, inner, span)


def _relabel(
    builder: Builder,
    value: Value,
    node: ir.Expr,
    spec: Sequence[Iterator | Value | None],
    new: Iterators,
    inner: Axes,
    span: Span | None,
) -> Value:
    """Bring the dimensions of a gather (new iterators, inner axes, kept dimensions) into the order
    of values.
    """
    labels: dict[object, int] = {}
    axis_of: dict[int, Axis] = {}

    def label(key: object, axis: Axis) -> int:
        number = labels.setdefault(key, len(labels))
        axis_of[number] = axis
        return number

    dims = [label(i, i.axis) for i in new] + [label(("inner", k), a) for k, a in enumerate(inner)]
    present = set(new)
    positional: list[int] = []
    placed = False
    for d, entry in enumerate(spec):
        axis = value.expr.axes[d]
        if isinstance(entry, Value):
            if entry.axes and not placed:
                positional += [labels["inner", k] for k in range(len(inner))]
                placed = True
        elif d < len(value.iters) or isinstance(entry, Iterator):
            iterator = entry if isinstance(entry, Iterator) else value.iters[d]
            present.add(iterator)
            dims.append(label(iterator, iterator.axis))
        else:
            dims.append(label(("dim", d), axis))
            positional.append(dims[-1])
    iters = ordered(present)
    output = (*(labels[i] for i in iters), *positional)
    if tuple(dims) == output:
        return Value(node, iters)
    return Value(builder.product([(node, tuple(dims))], output, axis_of, span), iters)


def move(builder: Builder, value: Value, stage: Mapping[Iterator, Value]) -> Value:
    """``value`` at other elements: each iterator of ``stage`` is replaced by a position in its
    axis.
    """
    if not any(i in stage for i in value.iters):
        return value
    spec: list[Iterator | Value | None] = [stage.get(i) for i in value.iters]
    return take(builder, value, [*spec, *(None for _ in value.axes)])
