"""The maker of IR nodes: one canonical form for equal meanings, one object for equal nodes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.products import product
from bilevelpy.ir.types import Axes, Axis, AxisKind, Label

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

E = TypeVar("E", bound=Expr)

_FOLD: dict[str, Callable[..., float]] = {
    "recip": lambda a: 1.0 / a,
    "pow": lambda a, b: math.pow(a, b),
    "square": lambda a: a * a,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "abs": abs,
    "maximum": max,
    "minimum": min,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
}


class Builder:
    """Makes and interns the nodes of one program.

    Shapes are the caller's duty (the front end reports errors in the user's words before it calls
    this); wrong ones raise ``ValueError`` here.
    """

    def __init__(self) -> None:
        self._nodes: dict[object, Expr] = {}
        self._digests: dict[Expr, str] = {}
        self._data: dict[Expr, bool] = {}
        self._sizes: dict[int, Axis] = {}
        self._subsets: dict[object, Axis] = {}

    # --- bookkeeping -----------------------------------------------------------------------------

    def _intern(
        self,
        make: Callable[[], E],
        key: tuple[object, ...],
        kind: str,
        text: str,
        axes: Axes,
        children: Sequence[Expr] = (),
    ) -> E:
        full = (kind, text, key, tuple(id(a) for a in axes), tuple(id(c) for c in children))
        found = self._nodes.get(full)
        if found is not None:
            return found  # type: ignore[return-value]
        node = make()
        self._nodes[full] = node
        parts = [
            kind,
            text,
            *(self._axis_key(a) for a in axes),
            *(self._digests[c] for c in children),
        ]
        self._digests[node] = hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
        variable = isinstance(node, ir.VarRef | ir.DualRef | ir.ExternCall)
        self._data[node] = not variable and all(self._data[c] for c in children)
        return node

    def _axis_key(self, axis: Axis) -> str:
        inner = ",".join(self._axis_key(p) for p in axis.parents)
        condition = self._digests[axis.condition] if axis.condition is not None else ""
        return f"{axis.kind}:{axis.name}({inner}){condition}"

    def digest(self, node: Expr) -> str:
        """A stable name of the node's structure: equal in every process for equal models."""
        return self._digests[node]

    def is_data(self, node: Expr) -> bool:
        """Whether the node depends on no variable, dual or extern function."""
        return self._data[node]

    def size_axis(self, size: int) -> Axis:
        """The axis of a literal size; equal numbers are the same axis."""
        if size not in self._sizes:
            self._sizes[size] = Axis(str(size), AxisKind.SIZE, size=self.const(float(size)))
        return self._sizes[size]

    def subset_axis(
        self, name: str, parents: Axes, condition: Expr, span: Span | None = None
    ) -> Axis:
        """The axis of the elements of ``parents`` that satisfy ``condition``; equal conditions are
        the same axis.
        """
        key = (tuple(id(p) for p in parents), id(condition))
        if key not in self._subsets:
            self._subsets[key] = Axis(
                name, AxisKind.SUBSET, span=span, parents=parents, condition=condition
            )
        return self._subsets[key]

    def range_axis(self, name: str, low: Expr, high: Expr, span: Span | None = None) -> Axis:
        """The axis of an anonymous range; equal ends are the same axis."""
        key = ("range", id(low), id(high))
        if key not in self._subsets:
            self._subsets[key] = Axis(name, AxisKind.RANGE, span=span, low=low, high=high)
        return self._subsets[key]

    # --- leaves -----------------------------------------------------------------------------------

    def const(self, value: float, span: Span | None = None) -> ir.Const:
        """A scalar number."""
        value = float(value)
        return self._intern(
            lambda: ir.Const((), span, value),
            (value, math.copysign(1, value)),
            "const",
            repr(value),
            (),
        )

    def array(self, values: Sequence[float], axes: Axes, span: Span | None = None) -> ir.Array:
        """A literal array."""
        data = tuple(float(v) for v in values)
        return self._intern(lambda: ir.Array(axes, span, data), data, "array", repr(data), axes)

    def fill(self, value: float, axes: Axes, span: Span | None = None) -> Expr:
        """A tensor of one value."""
        if not axes:
            return self.const(value, span)
        return self._intern(
            lambda: ir.Fill(axes, span, float(value)),
            (float(value),),
            "fill",
            repr(float(value)),
            axes,
        )

    def eye(self, axis: Axis, span: Span | None = None) -> ir.Eye:
        """An identity matrix."""
        return self._intern(lambda: ir.Eye((axis, axis), span), (), "eye", "", (axis, axis))

    def param(self, name: str, axes: Axes, span: Span | None = None) -> ir.ParamRef:
        """A param."""
        return self._intern(lambda: ir.ParamRef(axes, span, name), (name,), "param", name, axes)

    def var(self, level: str, name: str, axes: Axes, span: Span | None = None) -> ir.VarRef:
        """A variable."""
        return self._intern(
            lambda: ir.VarRef(axes, span, level, name),
            (level, name),
            "var",
            f"{level}.{name}",
            axes,
        )

    def dual(self, level: str, constraint: str, axes: Axes, span: Span | None = None) -> ir.DualRef:
        """A shadow price."""
        text = f"{level}.{constraint}"
        return self._intern(
            lambda: ir.DualRef(axes, span, level, constraint),
            (level, constraint),
            "dual",
            text,
            axes,
        )

    def size(self, axis: Axis, span: Span | None = None) -> Expr:
        """The number of elements of an axis (a number where the text says it)."""
        if axis.kind is AxisKind.SIZE and isinstance(axis.size, ir.Const):
            return axis.size
        return self._intern(
            lambda: ir.Size((), span, axis), (id(axis),), "size", self._axis_key(axis), ()
        )

    def position(self, axis: Axis) -> ir.Position:
        """Positions from 0."""
        return self._intern(lambda: ir.Position((axis,), None, axis), (), "position", "", (axis,))

    def coordinate(self, axis: Axis) -> ir.Coordinate:
        """The elements as numbers."""
        return self._intern(
            lambda: ir.Coordinate((axis,), None, axis), (), "coordinate", "", (axis,)
        )

    def component(self, axis: Axis, part: int) -> ir.Component:
        """Positions within a parent axis."""
        return self._intern(
            lambda: ir.Component((axis,), None, axis, part),
            (part,),
            "component",
            str(part),
            (axis,),
        )

    def label_position(
        self, axis: Axis, label: Label, span: Span | None = None
    ) -> ir.LabelPosition:
        """The position of a label."""
        text = f"{self._axis_key(axis)}:{label!r}"
        return self._intern(
            lambda: ir.LabelPosition((), span, axis, label), (id(axis), label), "label", text, ()
        )

    def locate(
        self, axis: Axis, values: Sequence[Expr], by_number: bool, span: Span | None = None
    ) -> ir.Locate:
        """Positions in ``axis`` of given elements; all values have the same axes."""
        axes = values[0].axes
        if any(v.axes != axes for v in values):
            raise ValueError("locate: values of different axes")
        text = f"{self._axis_key(axis)}:{by_number}"
        return self._intern(
            lambda: ir.Locate(axes, span, axis, tuple(values), by_number),
            (id(axis), by_number),
            "locate",
            text,
            axes,
            values,
        )

    # --- elementwise ------------------------------------------------------------------------------

    def raw_apply(
        self, function: str, operands: tuple[Expr, ...], span: Span | None = None
    ) -> ir.Apply:
        """An `Apply` node as given, checked for equal axes."""
        axes: Axes = ()
        for operand in operands:
            if operand.axes:
                if axes and operand.axes != axes:
                    raise ValueError(f"{function}: axes {operand.axes} and {axes}")
                axes = operand.axes
        return self._intern(
            lambda: ir.Apply(axes, span, function, operands), (), "apply", function, axes, operands
        )

    def apply(self, function: str, *operands: Expr, span: Span | None = None) -> Expr:
        """An elementwise function of operands with equal axes or scalars, in canonical form."""
        if function == "add":
            return self.add(operands, span)
        if function == "neg":
            return self.scale(-1.0, operands[0], span)
        if function == "pow" and isinstance(operands[1], ir.Const):
            exponent = operands[1].value
            if exponent == 0.0:
                return self.fill(1.0, operands[0].axes, span)
            if exponent == 1.0:
                return operands[0]
            special = {2.0: "square", 0.5: "sqrt", -1.0: "recip"}.get(exponent)
            if special:
                return self.apply(special, operands[0], span=span)
        if (
            function == "square"
            and isinstance(operands[0], ir.Apply)
            and operands[0].function in ("neg", "abs")
        ):
            return self.apply("square", operands[0].operands[0], span=span)
        if function in _FOLD and all(isinstance(o, ir.Const) for o in operands):
            try:
                value = _FOLD[function](*(o.value for o in operands if isinstance(o, ir.Const)))
            except (ValueError, OverflowError, ZeroDivisionError):
                value = math.nan
            if not math.isnan(value):
                return self.const(value, span)
        return self.raw_apply(function, operands, span)

    def add(self, terms: Sequence[Expr], span: Span | None = None) -> Expr:
        """The sum of terms with equal axes or scalars: flat, numbers collected, ordered."""
        flat: list[Expr] = []
        constant = 0.0
        axes: Axes = ()
        stack = list(reversed(terms))
        while stack:
            term = stack.pop()
            axes = axes or term.axes
            if isinstance(term, ir.Const | ir.Fill):
                constant += term.value
            elif isinstance(term, ir.Apply) and term.function == "add":
                stack.extend(reversed(term.operands))
            elif (
                isinstance(term, ir.Apply)
                and term.function == "neg"
                and self._is_sum(term.operands[0])
            ):
                inner = term.operands[0]
                stack.extend(self.scale(-1.0, t) for t in reversed(inner.children))
            else:
                flat.append(term)
        if constant != 0.0 or not flat:
            flat.append(self.const(constant))
        if not any(t.axes for t in flat) and axes:
            return self.align(self.add(flat, span), (None,) * len(axes), axes)
        if len(flat) == 1:
            return flat[0]
        ordered = tuple(sorted(flat, key=self.digest))
        return self.raw_apply("add", ordered, span)

    @staticmethod
    def _is_sum(node: Expr) -> bool:
        return isinstance(node, ir.Apply) and node.function == "add"

    def sub(self, left: Expr, right: Expr, span: Span | None = None) -> Expr:
        """``left - right``."""
        return self.add((left, self.scale(-1.0, right)), span)

    def scale(self, factor: float, operand: Expr, span: Span | None = None) -> Expr:
        """A number times a tensor."""
        labels = tuple(range(operand.rank))
        axis_of = dict(enumerate(operand.axes))
        return product(self, [(self.const(factor), ()), (operand, labels)], labels, axis_of, span)

    def mul(self, *factors: Expr, span: Span | None = None) -> Expr:
        """The elementwise product of factors with equal axes or scalars."""
        axes: Axes = next((f.axes for f in factors if f.axes), ())
        labels = tuple(range(len(axes)))
        pairs = [(f, labels if f.axes else ()) for f in factors]
        if any(f.axes and f.axes != axes for f in factors):
            raise ValueError(f"mul: axes {[f.axes for f in factors]}")
        return product(self, pairs, labels, dict(enumerate(axes)), span)

    def product(
        self,
        factors: Sequence[tuple[Expr, tuple[int, ...]]],
        output: tuple[int, ...],
        axis_of: dict[int, Axis],
        span: Span | None = None,
    ) -> Expr:
        """The sum over the labels outside ``output`` of a product; see
        :mod:`bilevelpy.ir.products`.
        """
        return product(self, list(factors), output, axis_of, span)

    def einsum(
        self,
        factors: Sequence[tuple[Expr, tuple[int, ...]]],
        output: tuple[int, ...],
        span: Span | None = None,
    ) -> ir.Einsum:
        """An `Einsum` node as given; labels are renamed in order of appearance, output first."""
        rename: dict[int, int] = {}
        for label in (*output, *(s for _, labels in factors for s in labels)):
            rename.setdefault(label, len(rename))
        axis_of = {s: a for node, labels in factors for s, a in zip(labels, node.axes, strict=True)}
        axes = tuple(axis_of[s] for s in output)
        operands = tuple(node for node, _ in factors)
        subscripts = tuple(tuple(rename[s] for s in labels) for _, labels in factors)
        out = tuple(rename[s] for s in output)
        return self._intern(
            lambda: ir.Einsum(axes, span, operands, subscripts, out),
            (subscripts, out),
            "einsum",
            repr((subscripts, out)),
            axes,
            operands,
        )

    # --- shape ------------------------------------------------------------------------------------

    def align(
        self, operand: Expr, source: tuple[int | None, ...], axes: Axes, span: Span | None = None
    ) -> Expr:
        """Permute and broadcast; see :class:`~bilevelpy.ir.expr.Align`."""
        if isinstance(operand, ir.Align):
            source = tuple(None if s is None else operand.source[s] for s in source)
            operand = operand.operand
        if source == tuple(range(operand.rank)):
            return operand
        if isinstance(operand, ir.Const | ir.Fill):
            return self.fill(operand.value, axes, span)
        inner = operand
        return self._intern(
            lambda: ir.Align(axes, span, inner, source),
            (source,),
            "align",
            repr(source),
            axes,
            (inner,),
        )

    def raw_reduce(
        self, function: str, operand: Expr, dims: tuple[int, ...], span: Span | None = None
    ) -> ir.Reduce:
        """A `Reduce` node as given."""
        axes = tuple(a for d, a in enumerate(operand.axes) if d not in dims)
        text = f"{function}{dims}"
        return self._intern(
            lambda: ir.Reduce(axes, span, function, operand, dims),
            (function, dims),
            "reduce",
            text,
            axes,
            (operand,),
        )

    def reduce(
        self, function: str, operand: Expr, dims: tuple[int, ...], span: Span | None = None
    ) -> Expr:
        """A reduction over ``dims`` in canonical form; "mean" is a sum over sizes."""
        if not dims:
            return operand
        if function == "mean":
            sizes = [self.apply("recip", self.size(operand.axes[d])) for d in dims]
            total = self.reduce("sum", operand, dims, span)
            return self.mul(*sizes, total, span=span)
        if function != "sum":
            return self.raw_reduce(function, operand, tuple(sorted(dims)), span)
        labels = tuple(range(operand.rank))
        output = tuple(d for d in labels if d not in dims)
        return product(self, [(operand, labels)], output, dict(enumerate(operand.axes)), span)

    def map_last(self, function: str, operand: Expr, span: Span | None = None) -> ir.MapLast:
        """Softmax or logsoftmax over the last axis."""
        return self._intern(
            lambda: ir.MapLast(operand.axes, span, function, operand),
            (),
            "map",
            function,
            operand.axes,
            (operand,),
        )

    def matrix(self, function: str, operand: Expr, span: Span | None = None) -> ir.Matrix:
        """A scalar function of the last two axes."""
        axes = operand.axes[:-2]
        return self._intern(
            lambda: ir.Matrix(axes, span, function, operand),
            (),
            "matrix",
            function,
            axes,
            (operand,),
        )

    def diag(self, operand: Expr, span: Span | None = None) -> ir.Diag:
        """A diagonal matrix."""
        axes = (*operand.axes, operand.axes[-1])
        return self._intern(lambda: ir.Diag(axes, span, operand), (), "diag", "", axes, (operand,))

    def gather(self, operand: Expr, index: Sequence[Expr | None], span: Span | None = None) -> Expr:
        """Static indexing; see :class:`~bilevelpy.ir.expr.Gather`."""
        given = [i for i in index if i is not None]
        if not given:
            return operand
        front = given[0].axes
        if any(i.axes != front for i in given):
            raise ValueError("gather: indices of different axes")
        axes = (*front, *(a for a, i in zip(operand.axes, index, strict=True) if i is None))
        pattern = tuple(i is None for i in index)
        return self._intern(
            lambda: ir.Gather(axes, span, operand, tuple(index)),
            pattern,
            "gather",
            repr(pattern),
            axes,
            (operand, *given),
        )

    def scatter_sum(
        self, operand: Expr, index: Sequence[Expr], axes: Axes, span: Span | None = None
    ) -> ir.ScatterSum:
        """Sum dimension 0 into ``axes``; see :class:`~bilevelpy.ir.expr.ScatterSum`."""
        full = (*axes, *operand.axes[1:])
        return self._intern(
            lambda: ir.ScatterSum(full, span, operand, tuple(index)),
            (len(index),),
            "scatter",
            "",
            full,
            (operand, *index),
        )

    def concat(self, operands: Sequence[Expr], axis: Axis, span: Span | None = None) -> ir.Concat:
        """Operands one after another along their first axis."""
        axes = (axis, *operands[0].axes[1:])
        return self._intern(
            lambda: ir.Concat(axes, span, tuple(operands)), (), "concat", "", axes, operands
        )

    def extern(
        self, name: str, operands: Sequence[Expr], axes: Axes, span: Span | None = None
    ) -> ir.ExternCall:
        """A call of an extern function."""
        return self._intern(
            lambda: ir.ExternCall(axes, span, name, tuple(operands)),
            (name,),
            "extern",
            name,
            axes,
            operands,
        )
