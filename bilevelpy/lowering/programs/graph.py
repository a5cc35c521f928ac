"""IR -> ``torch.fx`` graph.

Placeholders are the data inputs (:mod:`bilevelpy.lowering.programs.slots`), then the variables.
Whatever depends on data alone is one input, computed at binding; scalars of data are Python floats.
Broadcasts stay implicit: a :class:`Value` knows which of its dims have length 1 or are absent, and
is spread out only where a function needs the full shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from bilevelpy.errors import BackendError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.lowering.programs import kernels
from bilevelpy.lowering.programs.contract import (
    arrange,
    contract,
    contract_data,
    contract_sparse,
    elementwise,
    relabel,
)
from bilevelpy.lowering.programs.externs import call_extern
from bilevelpy.lowering.programs.fusing import fold_factors, squared, takes_sign, terms_of
from bilevelpy.lowering.programs.recording import Recorder, Value, Variables, broadcast
from bilevelpy.lowering.programs.slots import Slot, SlotKind, sparse_node
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder


@dataclass(frozen=True, eq=False)
class Compiled:
    """A graph of some expressions of a text: valid for all data of that text.

    Its inputs are the values of ``slots``, then the variables; it returns the value of the
    one expression or a tuple of them. ``code`` is its readable source.
    """

    graph: fx.Graph
    slots: tuple[Slot, ...]

    @cached_property
    def module(self) -> fx.GraphModule:
        """The graph as a module of torch, made when it is first asked for."""
        return fx.GraphModule(torch.nn.Module(), self.graph)

    @property
    def code(self) -> str:
        """The generated Python function."""
        return str(self.module.code)

    def bind(self, values: Iterable[Any]) -> Callable[..., Any]:
        """The function of the variables alone."""
        return partial(self.module.forward, *values)


@lru_cache(maxsize=128)
def compile_expressions(
    builder: Builder,
    roots: tuple[Expr, ...],
    variables: Variables,
    sparse: frozenset[str] = frozenset(),
) -> Compiled:
    """Compile expressions of one builder; kept, because new data needs no new graph.

    ``variables`` become the last placeholders, used or not; ``sparse`` names the params that are
    bound sparse.
    """
    return _Lowering(builder, variables, sparse).compile(roots)


class _Lowering(Recorder):
    """The rules, a function for each kind of node."""

    def compile(self, roots: tuple[Expr, ...]) -> Compiled:
        wanted = set(roots)
        for node in self._order(roots):
            check()
            self.values[node] = self._lower(node)
            if node in wanted:
                # What is returned is also what later nodes use: results can be differentiated by
                # it.
                self.values[node] = Value(self.full(node), node.rank)
        outputs = [
            self.full(r) if not self.builder.is_data(r) else self.data(r, SlotKind.TENSOR)
            for r in roots
        ]
        self.graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        # Parts that were fused away leave nodes and inputs without users.
        self.graph.eliminate_dead_code()
        slots = tuple(slot for slot, _ in self.slots.values())
        return Compiled(self.graph, slots)

    # --- order ------------------------------------------------------------------------------------

    def _order(self, roots: Iterable[Expr]) -> list[Expr]:
        """The nodes to lower, operands first; data-only nodes are inputs and are not entered."""
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(r, False) for r in reversed(tuple(roots))]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif node not in seen and not self.builder.is_data(node):
                seen.add(node)
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(self._operands(node)))
        return order

    def _operands(self, node: Expr) -> tuple[Expr, ...]:
        """The operands that must be lowered before the node."""
        if isinstance(node, ir.Apply) and node.function == "add":
            return tuple(inner for _, inner in terms_of(self.builder, node))
        if isinstance(node, ir.Apply) and node.function == "select":
            return node.operands[1:]
        if (
            isinstance(node, ir.Apply)
            and node.function == "neg"
            and takes_sign(node.operands[0], self.builder)
        ):
            return node.operands[0].children
        if isinstance(node, ir.Reduce) and (inner := squared(node)) is not None:
            return (inner,)
        if isinstance(node, ir.Gather | ir.ScatterSum):
            return (node.operand,)
        return node.children

    # --- nodes ------------------------------------------------------------------------------------

    def _lower(self, node: Expr) -> Value:
        return _LOWER[type(node)](self, node)

    def _var(self, node: ir.VarRef) -> Value:
        if node not in self.inputs:
            raise BackendError(f"{node.level}.{node.name} is no variable of this program")
        return Value(self.inputs[node], node.rank)

    def _dual(self, node: ir.DualRef) -> Value:
        raise BackendError(
            f"dual({node.level}.{node.constraint}) has no value in a function of the variables"
        )

    def _apply(self, node: ir.Apply) -> Value:
        if node.function == "add":
            return self._add(node)
        if node.function == "neg" and takes_sign(node.operands[0], self.builder):
            return self._product(node.operands[0], [(self.builder.const(-1.0), ())])
        if node.function == "select":
            operands = [self.value(o) for o in node.operands[1:]]
            condition = Value(self.data(node.operands[0], SlotKind.MASK), node.operands[0].rank)
            return self._spreading(kernels.select, [condition, *operands], node)
        return self._spreading(
            kernels.ELEMENTWISE[node.function], [self.value(o) for o in node.operands], node
        )

    def _spreading(self, function: Callable[..., Any], operands: list[Value], node: Expr) -> Value:
        missing, virtual = broadcast(operands, node.rank)
        return Value(self.call(function, *(o.ref for o in operands)), node.rank, missing, virtual)

    # --- sums -------------------------------------------------------------------------------------

    def _add(self, node: ir.Apply) -> Value:
        terms = [(factor, self.value(operand)) for factor, operand in terms_of(self.builder, node)]
        # A tensor leads, if possible one with the sign +, so that the others can be added or
        # subtracted.
        tensors = [k for k, (_, v) in enumerate(terms) if self.is_tensor(v)]
        plain = [k for k in tensors if terms[k][0] == 1.0]
        lead = (plain or tensors)[0]
        factor, head = terms.pop(lead)
        total = head.ref
        if isinstance(factor, Expr):
            total = self.call(torch.mul, total, self.data(factor))
        elif factor == -1.0:
            if terms and terms[-1][0] == 1.0 and not self.is_tensor(terms[-1][1]):
                other = terms.pop()[1]
                total = self.call(torch.rsub, total, other.ref)
                head = Value(total, node.rank, *broadcast([head, other], node.rank))
            else:
                total = self.call(torch.neg, total)
        for factor, value in terms:
            if isinstance(factor, Expr):
                scale = self.data(factor)
                total = self.graph.call_function(torch.add, (total, value.ref), {"alpha": scale})
            elif factor == -1.0:
                total = self.call(torch.sub, total, value.ref)
            else:
                total = self.call(torch.add, total, value.ref)
        return Value(total, node.rank, *broadcast([head, *(v for _, v in terms)], node.rank))

    # --- products ---------------------------------------------------------------------------------

    def _einsum(self, node: ir.Einsum) -> Value:
        pairs = list(zip(node.operands, node.subscripts, strict=True))
        if len(pairs) == 1:
            return Value(
                relabel(self.call, self.full(pairs[0][0]), pairs[0][1], node.output), node.rank
            )
        if node.contracts:
            return Value(self._contraction(node, pairs), node.rank)
        return self._product(node)

    def _product(
        self, node: ir.Einsum, extra: Sequence[tuple[Expr, tuple[int, ...]]] = ()
    ) -> Value:
        """An elementwise or outer product, times ``extra`` data factors."""
        pairs = [*zip(node.operands, node.subscripts, strict=True), *extra]
        factors: list[tuple[Any, tuple[int, ...]]] = []
        for operand, labels in fold_factors(self.builder, self.sparse, pairs):
            value = self.value(operand)
            ref, labels = value.ref, labels[value.missing :]
            if len(set(labels)) < len(labels):
                ref, labels = self._diagonal(operand, labels)
            kept = [s for d, s in enumerate(labels) if d + value.missing not in value.virtual]
            if len(kept) < len(labels):
                ones = tuple(d for d, s in enumerate(labels) if s not in kept)
                ref, labels = self.call(torch.squeeze, ref, ones), tuple(kept)
            factors.append((ref, labels))
        carried = {s for _, labels in factors for s in labels}
        virtual = frozenset(d for d, s in enumerate(node.output) if s not in carried)
        missing = next((d for d, s in enumerate(node.output) if s in carried), node.rank)
        return Value(elementwise(self.call, factors, node.output), node.rank, missing, virtual)

    def _diagonal(self, operand: Expr, labels: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        unique = tuple(dict.fromkeys(labels))
        return relabel(self.call, self.full(operand), labels, unique), unique

    def _contraction(self, node: ir.Einsum, pairs: list[tuple[Expr, tuple[int, ...]]]) -> Any:
        for k, (operand, labels) in enumerate(pairs):
            if self.builder.is_data(operand) and sparse_node(operand, self.sparse):
                other, others = pairs[1 - k]
                matrix = self.slot(SlotKind.SPARSE, (operand,), (), self._sparse_name(operand))
                product = contract_sparse(
                    self.call, matrix, labels, self.full(other), others, node.output
                )
                if product is not None:
                    return product
        refs = []
        for operand, labels in pairs:
            if len(set(labels)) < len(labels):
                refs.append(self._diagonal(operand, labels))
            else:
                refs.append((self.full(operand), labels))
        (a, la), (b, lb) = refs
        for k, (operand, labels) in enumerate(pairs):
            if self.builder.is_data(operand) and len(labels) == operand.rank == 2:
                product = contract_data(self.call, *refs[k], *refs[1 - k], node.output)
                if product is not None:
                    return product
        return contract(self.call, a, la, b, lb, node.output)

    def _sparse_name(self, node: Expr) -> str:
        return node.name if isinstance(node, ir.ParamRef) else f"map_{len(self.slots)}"

    # --- shape and the rest -----------------------------------------------------------------------

    def _align(self, node: ir.Align) -> Value:
        inner = self.value(node.operand)
        if inner.virtual:
            inner = Value(self.full(node.operand), inner.rank)
        labels = tuple(range(inner.rank))
        marks = tuple(s if s is not None else -1 - d for d, s in enumerate(node.source))
        ref, missing = arrange(self.call, inner.ref, labels, marks)
        virtual = frozenset(d for d, s in enumerate(node.source) if s is None)
        return Value(ref, node.rank, missing, virtual)

    def _reduce(self, node: ir.Reduce) -> Value:
        if (inner := squared(node)) is not None:
            return Value(self.call(kernels.sum_of_squares, self.full(inner)), 0)
        operand = self.full(node.operand)
        if node.function == "sum" and not node.rank:
            return Value(self.call(torch.sum, operand), 0)
        return Value(self.call(kernels.REDUCTIONS[node.function], operand, node.dims), node.rank)

    def _map_last(self, node: ir.MapLast) -> Value:
        return Value(self.call(kernels.MAPS[node.function], self.full(node.operand)), node.rank)

    def _matrix(self, node: ir.Matrix) -> Value:
        return Value(self.call(kernels.MATRICES[node.function], self.full(node.operand)), node.rank)

    def _gather(self, node: ir.Gather) -> Value:
        operand = self.full(node.operand)
        dims = tuple(d for d, i in enumerate(node.index) if i is not None)
        index = [
            self.slot(SlotKind.INDEX, (i,), (node.operand.axes[d],), f"index_{len(self.slots)}")
            for d, i in enumerate(node.index)
            if i is not None
        ]
        rank = next(i.rank for i in node.index if i is not None)
        if rank == 0:
            for d, i in sorted(zip(dims, index, strict=True), key=lambda pair: -pair[0]):
                operand = self.call(torch.select, operand, d, i)
            return Value(operand, node.rank)
        if rank == 1 and len(dims) == 1:
            picked = self.call(torch.index_select, operand, dims[0], index[0])
            return Value(
                self.call(torch.movedim, picked, dims[0], 0) if dims[0] else picked, node.rank
            )
        return Value(self.call(kernels.take, operand, dims, *index), node.rank)

    def _scatter_sum(self, node: ir.ScatterSum) -> Value:
        axes = node.axes[: len(node.index)]
        flat = self.slot(SlotKind.FLAT, node.index, axes, f"index_{len(self.slots)}")
        return Value(
            self.call(kernels.scatter_sum, self.full(node.operand), flat, self.sizes(axes)),
            node.rank,
        )

    def _concat(self, node: ir.Concat) -> Value:
        return Value(self.call(torch.cat, [self.tensor(o) for o in node.operands]), node.rank)

    def _diag(self, node: ir.Diag) -> Value:
        return Value(self.call(torch.diag_embed, self.full(node.operand)), node.rank)

    def _extern(self, node: ir.ExternCall) -> Value:
        function = self.slot(SlotKind.EXTERN, (), (), node.name)
        return Value(
            self.call(call_extern, function, *(self.tensor(o) for o in node.operands)), node.rank
        )


_LOWER: Mapping[type[Expr], Callable[[_Lowering, Any], Value]] = {
    ir.VarRef: _Lowering._var,
    ir.DualRef: _Lowering._dual,
    ir.Apply: _Lowering._apply,
    ir.Einsum: _Lowering._einsum,
    ir.Align: _Lowering._align,
    ir.Reduce: _Lowering._reduce,
    ir.MapLast: _Lowering._map_last,
    ir.Matrix: _Lowering._matrix,
    ir.Gather: _Lowering._gather,
    ir.ScatterSum: _Lowering._scatter_sum,
    ir.Concat: _Lowering._concat,
    ir.Diag: _Lowering._diag,
    ir.ExternCall: _Lowering._extern,
}
