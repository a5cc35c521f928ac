"""The leaves of the IR and its bookkeeping: one object for equal nodes and equal ranges."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.types import Axes, Axis, AxisKind, Label
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

E = TypeVar("E", bound=Expr)


class Leaves:
    """Makes and interns the leaves of one program; :class:`~bilevelpy.ir.build.Builder` has all
    nodes.
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
        full = (kind, text, key, axes, tuple(children))  # nodes and axes are equal to themselves
        found = self._nodes.get(full)
        if found is not None:
            return found  # type: ignore[return-value]
        check()
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
