"""Recording of a graph: its inputs, and the values of expressions that are lowered already."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.types import Axes
from bilevelpy.lowering.programs import kernels
from bilevelpy.lowering.programs.slots import Slot, SlotKind

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

Variables = tuple[ir.VarRef, ...]
_NONE: frozenset[int] = frozenset()
# Names that generated code uses itself.
_TAKEN = (
    "self",
    "torch",
    "inf",
    "nan",
    "NoneType",
    "device",
    "fx_pytree",
    "pytree",
    "math",
    "getattr",
)


@dataclass(frozen=True, slots=True)
class Value:
    """A lowered expression: ``missing`` leading dims are absent, dims in ``virtual`` (with those)
    stand for a repeat.
    """

    ref: Any
    rank: int
    missing: int = 0
    virtual: frozenset[int] = _NONE


class Recorder:
    """A graph in the making."""

    def __init__(self, builder: Builder, variables: Variables, sparse: frozenset[str]) -> None:
        self.builder = builder
        self.variables = variables
        self.sparse = sparse
        self.graph = fx.Graph()
        self.slots: dict[object, tuple[Slot, fx.Node]] = {}
        self.names: set[str] = set(_TAKEN)
        self.inputs = {v: self._input(f"{v.level}_{v.name}") for v in variables}
        self.tensors = frozenset(self.inputs.values())
        self.values: dict[Expr, Value] = {}

    def call(self, function: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Record a call."""
        return self.graph.call_function(function, arguments)

    def slot(self, kind: SlotKind, nodes: tuple[Expr, ...], axes: Axes, name: str) -> fx.Node:
        """The data input for ``nodes``; equal ones are shared."""
        key = (kind, nodes, axes, name if kind is SlotKind.EXTERN else "")
        if key not in self.slots:
            with self.graph.inserting_before(next(iter(self.inputs.values()))):
                placeholder = self._input(name)
            self.slots[key] = (Slot(kind, name, nodes, axes), placeholder)
        return self.slots[key][1]

    def _input(self, wish: str) -> fx.Node:
        """A placeholder with a free Python name near ``wish``, in the same letters."""
        name = re.sub(r"\W", "_", wish)
        while name in self.names or keyword.iskeyword(name) or not name.isidentifier():
            name = f"{name}_" if name.isidentifier() else f"_{name}"
        self.names.add(name)
        node = self.graph.create_node("placeholder", name, name=name)
        node.target = node.name
        return node

    def is_tensor(self, value: Value) -> bool:
        """Whether a value is a tensor at run time: data scalars are Python floats."""
        if not isinstance(value.ref, fx.Node):
            return False
        return value.rank > 0 or value.ref.op != "placeholder" or value.ref in self.tensors

    def data(self, node: Expr, kind: SlotKind = SlotKind.VALUE) -> Any:
        """A data-only expression as an input; numbers of the text stay numbers."""
        if isinstance(node, ir.Const) and kind is SlotKind.VALUE:
            return node.value
        name = node.name if isinstance(node, ir.ParamRef) else f"data_{len(self.slots)}"
        return self.slot(kind, (node,), (), name)

    def sizes(self, axes: Axes) -> tuple[fx.Node, ...]:
        """Lengths of axes as inputs."""
        return tuple(self.slot(SlotKind.SIZE, (), (a,), f"size_{a.name}") for a in axes)

    def value(self, node: Expr) -> Value:
        """A lowered operand; a constant fill is its number."""
        if node in self.values:
            return self.values[node]
        if isinstance(node, ir.Fill):
            return Value(node.value, node.rank, node.rank, frozenset(range(node.rank)))
        return Value(self.data(node), node.rank)

    def full(self, node: Expr) -> Any:
        """An operand in its full shape."""
        if node not in self.values:
            return self.data(node)
        value = self.values[node]
        return (
            self.call(kernels.spread, value.ref, *self.sizes(node.axes))
            if value.virtual
            else value.ref
        )

    def tensor(self, node: Expr) -> Any:
        """An operand in its full shape, and a tensor even if it is a number."""
        return self.full(node) if node in self.values else self.data(node, SlotKind.TENSOR)


def broadcast(operands: list[Value], rank: int) -> tuple[int, frozenset[int]]:
    """Absent and repeated dims of an elementwise result."""
    shaped = [o for o in operands if o.rank]
    if not shaped:
        return (rank, frozenset(range(rank)))
    virtual = shaped[0].virtual
    for operand in shaped[1:]:
        virtual = virtual & operand.virtual
    return min(o.missing for o in shaped), virtual
