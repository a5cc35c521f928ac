"""The inputs of a compiled program that data fills: what each one is, and its value at a
binding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from bilevelpy.errors import BackendError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.functions import KEEPS_ZERO
from bilevelpy.ir.program import Data
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import Axes
from bilevelpy.lowering.programs import kernels
from bilevelpy.lowering.programs.externs import BoundExtern
from bilevelpy.lowering.programs.gaps import LEAST, Gaps
from bilevelpy.lowering.programs.linear_map import SparseMap


class SlotKind(StrEnum):
    """How a data expression enters a graph."""

    VALUE = "value"  # a tensor, or a Python float for a scalar
    TENSOR = "tensor"  # a tensor even for a scalar
    MASK = "mask"  # booleans
    INDEX = "index"  # positions in `axes[0]`: an integer tensor, or an int for a scalar
    FLAT = "flat"  # one flat position for several axes
    SIZE = "size"  # the length of `axes[0]`, an int
    SPARSE = "sparse"  # a linear map
    EXTERN = "extern"  # a callable


@dataclass(frozen=True, slots=True)
class Slot:
    """One data input: ``name`` in the graph, the expressions it comes from, the axes it refers
    to.
    """

    kind: SlotKind
    name: str
    nodes: tuple[ir.Expr, ...] = ()
    axes: Axes = ()


def sparse_node(node: ir.Expr, names: frozenset[str]) -> bool:
    """Whether a data expression stays sparse if the params ``names`` are: a param, its transpose,
    rows, scaling.
    """
    if isinstance(node, ir.ParamRef):
        return node.name in names
    if isinstance(node, ir.Align):
        return node.source == (1, 0) and sparse_node(node.operand, names)
    if isinstance(node, ir.Gather):
        given = [i for i in node.index if i is not None]
        return len(given) == 1 and given[0].rank == 1 and sparse_node(node.operand, names)
    if isinstance(node, ir.Apply):
        return node.function in KEEPS_ZERO and sparse_node(node.operands[0], names)
    if isinstance(node, ir.Einsum) and not node.contracts and len(set(node.output)) == 2:
        matrices = [k for k, o in enumerate(node.operands) if sparse_node(o, names)]
        return (
            len(matrices) == 1
            and len(set(node.subscripts[matrices[0]])) == 2
            and all(o.rank <= 1 for k, o in enumerate(node.operands) if k not in matrices)
        )
    return False


class DataTensors:
    """Values of slots over one binding; params and results are shared by all programs bound to
    it.
    """

    def __init__(self, data: Data, dtype: torch.dtype, device: torch.device) -> None:
        self.data = data
        self.dtype = dtype
        self.device = device
        self.sparse = frozenset(n for n, a in data.arrays.items() if is_sparse(a))
        self._known: dict[tuple[SlotKind, tuple[ir.Expr, ...]], Any] = {}
        self._maps: dict[ir.Expr, SparseMap] = {}
        self._externs: dict[str, BoundExtern] = {}
        self._gaps: dict[int, tuple[torch.Tensor, Gaps]] = {}

    def resolve(self, slots: Iterable[Slot], externs: Any) -> tuple[Any, ...]:
        """The values of slots, in order. ``externs``: the program's declarations by name."""
        # Intermediate results live as long as this interpreter.
        run = Interpreter(self.data)
        return tuple(self._value(slot, run, externs) for slot in slots)

    def tensor(self, node: ir.Expr) -> torch.Tensor:
        """The value of a data expression as a dense tensor."""
        value: torch.Tensor = self._value(
            Slot(SlotKind.TENSOR, "data", (node,)), Interpreter(self.data), {}
        )
        return value

    def linear_map(self, node: ir.Expr) -> SparseMap:
        """The value of a sparse data expression."""
        return self._map(node, Interpreter(self.data))

    def gaps(self, value: torch.Tensor) -> Gaps | None:
        """The products of a slot's value, where it is a matrix that may be worth storing without
        its zeros; the same ones for all programs.
        """
        if value.dim() != 2 or value.numel() < LEAST or value.dtype is not torch.float64:
            return None
        key = id(value)
        if key not in self._gaps:
            # The tensor too: its address is another's once it is gone.
            self._gaps[key] = (value, Gaps(value.numpy()))
        return self._gaps[key][1]

    def _value(self, slot: Slot, run: Interpreter, externs: Any) -> Any:
        if slot.kind is SlotKind.SIZE:
            return self.data.sizes[slot.axes[0]]
        if slot.kind is SlotKind.EXTERN:
            if slot.name not in self._externs:
                function = self.data.externs.get(slot.name)
                if function is None:
                    raise BackendError(f"no function was bound to extern {slot.name!r}")
                shapes = [
                    tuple(self.data.sizes[a] for a in arg.axes)
                    for arg in externs[slot.name].arguments
                ]
                result = tuple(self.data.sizes[a] for a in externs[slot.name].result)
                self._externs[slot.name] = BoundExtern(
                    slot.name, function, shapes, result, self.dtype, self.device
                )
            return self._externs[slot.name]
        key = (slot.kind, slot.nodes)
        if key not in self._known:
            self._known[key] = self._compute(slot, run)
        return self._known[key]

    def _compute(self, slot: Slot, run: Interpreter) -> Any:
        node = slot.nodes[0] if slot.nodes else None
        if node is None:
            raise ValueError(f"slot {slot.name} has no expression")
        if slot.kind is SlotKind.SPARSE:
            return self._map(node, run)
        if slot.kind is SlotKind.INDEX:
            index = run_positions(run, node, self.data.sizes[slot.axes[0]])
            return int(index) if index.ndim == 0 else self._integers(index)
        if slot.kind is SlotKind.FLAT:
            sizes = [self.data.sizes[a] for a in slot.axes]
            parts = [run_positions(run, n, size) for n, size in zip(slot.nodes, sizes, strict=True)]
            return self._integers(np.ravel_multi_index(parts, sizes) if parts[0].size else parts[0])
        if sparse_node(node, self.sparse):
            return self._map(node, run).dense().to(self.device)
        value = run.value(node)
        if slot.kind is SlotKind.MASK:
            return torch.from_numpy(np.ascontiguousarray(value != 0)).to(self.device)
        if value.ndim == 0 and slot.kind is SlotKind.VALUE:
            return float(value)
        return view(value).to(dtype=self.dtype, device=self.device)

    def _integers(self, index: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(index, dtype=np.int64)).to(self.device)

    def _map(self, node: ir.Expr, run: Interpreter) -> SparseMap:
        if node not in self._maps:
            self._maps[node] = self._make_map(node, run)
        return self._maps[node]

    def _make_map(self, node: ir.Expr, run: Interpreter) -> SparseMap:
        if isinstance(node, ir.ParamRef):
            return SparseMap(self.data.arrays[node.name].tocsr(), node.name, self.dtype)
        if isinstance(node, ir.Align):
            return self._map(node.operand, run).transposed
        if isinstance(node, ir.Gather):
            dim = next(d for d, i in enumerate(node.index) if i is not None)
            index = node.index[dim]
            if index is None:
                raise ValueError("gather without an index")
            positions = run_positions(run, index, self.data.sizes[node.operand.axes[dim]])
            return self._map(node.operand, run).take(dim, positions)
        if isinstance(node, ir.Apply):
            return self._map(node.operands[0], run).map(kernels.ELEMENTWISE[node.function])
        if isinstance(node, ir.Einsum):
            place = next(k for k, o in enumerate(node.operands) if sparse_node(o, self.sparse))
            matrix = self._map(node.operands[place], run)
            labels = node.subscripts[place]
            scales: dict[int, Any] = {}
            factor = 1.0
            for k, operand in enumerate(node.operands):
                if k != place and operand.rank:
                    label = node.subscripts[k][0]
                    scales[label] = scales.get(label, 1.0) * run.value(operand)
                elif k != place:
                    factor *= float(run.value(operand))
            scaled = matrix.scale(scales.get(labels[0]), scales.get(labels[1]), factor)
            return scaled if node.output == labels else scaled.transposed
        raise TypeError(type(node).__name__)


def run_positions(run: Interpreter, node: ir.Expr, size: int) -> np.ndarray[Any, Any]:
    """An index expression as checked positions in an axis of ``size`` elements."""
    run.run([node])
    return run.positions(node, size, node)


def view(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor over the memory of an array, which is never written to."""
    array = np.asarray(array, dtype=np.float64)
    if any(s < 0 for s in array.strides) or not array.dtype.isnative:
        array = np.ascontiguousarray(array, dtype=np.float64)
    with warnings.catch_warnings():
        # Torch warns of read-only memory; nothing here writes to data.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
