"""What each node of the IR means: its value in NumPy from those of its operands."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import BilevelError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.elements import coordinates, find_label, locate
from bilevelpy.ir.functions import COMPARISONS, ELEMENTWISE, KEEPS_ZERO, MAPS, MATRICES, REDUCTIONS
from bilevelpy.ir.sparse import is_sparse, times_dense

if TYPE_CHECKING:
    from bilevelpy.ir.evaluate import Interpreter

Array = np.ndarray[Any, np.dtype[Any]]
# Elements of iterators that an extern function is called on at once.
VECTORISED = 1024


class EvaluationError(BilevelError):
    """A node has no value: ``node`` is the smallest one, ``reason`` says why.

    ``place`` is the position of the first offending element (one number per axis of the failing
    index), ``found`` what was looked up there.
    """

    def __init__(
        self, node: ir.Expr, reason: str, place: tuple[int, ...] | None = None, found: object = None
    ) -> None:
        self.node, self.reason, self.place, self.found = node, reason, place, found
        super().__init__(reason)


# --- leaves -------------------------------------------------------------------------------------


def _const(run: Interpreter, node: ir.Const) -> Any:
    return np.float64(node.value)


def _array(run: Interpreter, node: ir.Array) -> Any:
    values, shape = np.array(node.values, dtype=np.float64), run.shape(node)
    if values.size != math.prod(shape):
        size = " x ".join(str(n) for n in shape)
        raise EvaluationError(node, f"it holds {values.size} values where its axes take {size}")
    return values.reshape(shape)


def _fill(run: Interpreter, node: ir.Fill) -> Any:
    return np.full(run.shape(node), node.value)


def _eye(run: Interpreter, node: ir.Eye) -> Any:
    return np.eye(run.size(node.axes[0]))


def _param(run: Interpreter, node: ir.ParamRef) -> Any:
    return run.data.arrays[node.name]


def _var(run: Interpreter, node: ir.VarRef) -> Any:
    return _given(run, node, (node.level, node.name))


def _dual(run: Interpreter, node: ir.DualRef) -> Any:
    return _given(run, node, (node.level, node.constraint))


def _given(run: Interpreter, node: ir.Expr, key: tuple[str, str]) -> Any:
    if key not in run.env:
        raise EvaluationError(node, f"no value of {key[0]}.{key[1]}")
    return np.asarray(run.env[key], dtype=np.float64).reshape(run.shape(node))


def _size(run: Interpreter, node: ir.Size) -> Any:
    return np.float64(run.size(node.axis))


def _position(run: Interpreter, node: ir.Position) -> Any:
    return np.arange(run.size(node.axis))


def _coordinate(run: Interpreter, node: ir.Coordinate) -> Any:
    return coordinates(node.axis, run.data, run.value)


def _component(run: Interpreter, node: ir.Component) -> Any:
    return run.data.members[node.axis][:, node.part]


def _label_position(run: Interpreter, node: ir.LabelPosition) -> Any:
    place = find_label(node.axis, node.label, run.data, run.value)
    if place is None:
        raise EvaluationError(node, "unknown label", (), node.label)
    return np.int64(place)


def _locate(run: Interpreter, node: ir.Locate) -> Any:
    values = [run.dense(v) for v in node.values]
    found = locate(node.axis, values, node.by_number, run.data, run.value)
    wrong = found < 0
    if wrong.any():
        place = tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        raise EvaluationError(node, "no such element", place, tuple(v[place] for v in values))
    return found


# --- tensor operations --------------------------------------------------------------------------


def _apply(run: Interpreter, node: ir.Apply) -> Any:
    name = node.function
    if name in ("and", "or"):
        combine = np.logical_and if name == "and" else np.logical_or
        return _over(
            run,
            node,
            combine.reduce([np.broadcast_to(run.dense(o), run.shape(node)) for o in node.operands]),
        )
    if name == "not":
        return np.logical_not(run.dense(node.operands[0]))
    if name == "select":
        condition, yes, no = (run.dense(o) for o in node.operands)
        return _over(run, node, np.where(condition, yes, no).astype(np.float64))
    if name == "add":
        total: Any = np.zeros(())
        for operand in node.operands:
            total = total + run.real(operand)
        return total
    if name in COMPARISONS:
        return COMPARISONS[name](*(run.dense(o) for o in node.operands))
    first = run.known(node.operands[0])
    if is_sparse(first) and name in KEEPS_ZERO:
        result = first.copy()
        result.data = ELEMENTWISE[name](result.data)
        return result
    return ELEMENTWISE[name](*(run.real(o) for o in node.operands))


def _over(run: Interpreter, node: ir.Expr, value: Any) -> Any:
    return np.broadcast_to(value, run.shape(node))


def _einsum(run: Interpreter, node: ir.Einsum) -> Any:
    sparse = [k for k, o in enumerate(node.operands) if is_sparse(run.known(o))]
    if sparse:
        keep = max(
            sparse,
            key=lambda k: (
                run.known(node.operands[k]).shape[0] * run.known(node.operands[k]).shape[1]
            ),
        )
        rest = [k for k in range(len(node.operands)) if k != keep]
        labels = tuple(dict.fromkeys(s for k in rest for s in node.subscripts[k]))
        dense = _multiply([(run.real(node.operands[k]), node.subscripts[k]) for k in rest], labels)
        return times_dense(
            run.known(node.operands[keep]), node.subscripts[keep], dense, labels, node.output
        )
    factors = [(run.real(o), s) for o, s in zip(node.operands, node.subscripts, strict=True)]
    if node.contracts:
        arguments = [part for value, subscript in factors for part in (value, list(subscript))]
        return np.einsum(*arguments, list(node.output), optimize=True)
    return _multiply(factors, node.output)


def _multiply(factors: list[tuple[Array, tuple[int, ...]]], output: tuple[int, ...]) -> Array:
    """The product of the factors over ``output``, which holds every label."""
    scale = math.prod(float(value) for value, subscript in factors if not subscript)
    total: Array = np.array(scale)
    for value, subscript in factors:
        if not subscript:
            continue
        unique = [s for s in output if s in subscript]
        aligned = np.einsum(value, list(subscript), unique)
        shape = [aligned.shape[unique.index(s)] if s in unique else 1 for s in output]
        # A factor of one would cost a pass over memory.
        plain = total.ndim == 0 and float(total) == 1.0
        total = aligned.reshape(shape) if plain else np.asarray(total * aligned.reshape(shape))
    return total


def _align(run: Interpreter, node: ir.Align) -> Any:
    order = [s for s in node.source if s is not None]
    value = run.known(node.operand)
    if is_sparse(value) and node.source in ((0, 1), (1, 0)):
        return value if node.source == (0, 1) else value.T.tocsr()
    moved = np.transpose(run.dense(node.operand), order)
    sizes = iter(moved.shape)
    expanded = moved.reshape([1 if s is None else next(sizes) for s in node.source])
    return np.broadcast_to(expanded, run.shape(node))


def _reduce(run: Interpreter, node: ir.Reduce) -> Any:
    value = run.known(node.operand)
    if is_sparse(value) and node.function == "sum":
        axis = None if len(node.dims) == 2 else node.dims[0]
        return np.asarray(value.sum(axis=axis)).reshape(run.shape(node))
    if node.function == "any":
        return np.any(run.dense(node.operand), axis=node.dims)
    real = run.real(node.operand)
    if node.function in ("max", "min", "logsumexp") and 0 in (real.shape[d] for d in node.dims):
        if real.size or 0 not in run.shape(node):
            raise EvaluationError(node, f"`{node.function}` over no elements")
        return np.zeros(run.shape(node))
    return REDUCTIONS[node.function](real, node.dims)


def _map_last(run: Interpreter, node: ir.MapLast) -> Any:
    value = run.real(node.operand)
    return MAPS[node.function](value) if value.size else value


def _matrix(run: Interpreter, node: ir.Matrix) -> Any:
    return MATRICES[node.function](run.real(node.operand))


def _gather(run: Interpreter, node: ir.Gather) -> Any:
    value = run.known(node.operand)
    given = [d for d, i in enumerate(node.index) if i is not None]
    kept = [d for d, i in enumerate(node.index) if i is None]
    sizes = run.shape(node.operand)
    index = tuple(run.positions(i, sizes[d], i) for d, i in enumerate(node.index) if i is not None)
    if is_sparse(value) and len(given) == 2:
        rows, columns = (np.ravel(k) for k in index)
        picked = value[rows, columns] if rows.size else np.zeros(0)
        return np.asarray(picked).reshape(run.shape(node))
    return np.transpose(run.dense(node.operand), (*given, *kept))[index]


def _scatter_sum(run: Interpreter, node: ir.ScatterSum) -> Any:
    sizes = run.shape(node)
    index = tuple(run.positions(i, sizes[d], i) for d, i in enumerate(node.index))
    total = np.zeros(sizes)
    np.add.at(total, index, run.real(node.operand))
    return total


def _concat(run: Interpreter, node: ir.Concat) -> Any:
    return np.concatenate([run.real(o) for o in node.operands], axis=0)


def _diag(run: Interpreter, node: ir.Diag) -> Any:
    value = run.real(node.operand)
    return value[..., :, None] * np.eye(value.shape[-1])


def _extern(run: Interpreter, node: ir.ExternCall) -> Any:
    function = run.data.externs.get(node.name)
    if function is None:
        raise EvaluationError(node, f"no function bound to `{node.name}`")
    arguments = [run.real(o) for o in node.operands]
    declared = run.externs.get(node.name)
    batch = run.shape(node)[: len(node.axes) - len(declared.result)] if declared else ()
    if declared is None or not batch:
        return _called(function, arguments, run.shape(node))
    # An operand either carries all iterators of the call in front, or none of them.
    carries = [o.rank > len(a.axes) for o, a in zip(node.operands, declared.arguments, strict=True)]
    together = _vectorised(function, arguments, carries, len(batch))
    if together is not None:
        return together.reshape(run.shape(node))
    result = np.empty(run.shape(node))
    for place in np.ndindex(*batch):
        now = [a[place] if c else a for a, c in zip(arguments, carries, strict=True)]
        result[place] = _called(function, now, result.shape[len(batch) :])
    return result


def _vectorised(
    function: Callable[..., Any], arguments: list[Array], carries: list[bool], depth: int
) -> Array | None:
    """The values at all iterators at once, or None where the function cannot be vectorised."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    values = [
        torch.from_numpy(a.reshape(-1, *a.shape[depth:]) if c else np.array(a))
        for a, c in zip(arguments, carries, strict=True)
    ]
    rows = torch.vmap(function, tuple(0 if c else None for c in carries), chunk_size=VECTORISED)
    try:
        with torch.no_grad():
            found = rows(*values)
        return np.asarray(found.cpu().numpy(), dtype=np.float64)
    except Exception:  # no torch function, or one that asks for values: called row by row
        return None


def _called(function: Callable[..., Any], arguments: list[Array], shape: tuple[int, ...]) -> Array:
    # A torch function takes tensors; whoever wrote one has imported torch.
    torch = sys.modules.get("torch")
    values: list[Any] = [np.array(a) for a in arguments]
    if torch is not None:
        values = [torch.from_numpy(v) for v in values]
    result = function(*values)
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    return np.asarray(result, dtype=np.float64).reshape(shape)


MEANING: dict[type[ir.Expr], Callable[[Interpreter, Any], Any]] = {
    ir.Const: _const,
    ir.Array: _array,
    ir.Fill: _fill,
    ir.Eye: _eye,
    ir.ParamRef: _param,
    ir.VarRef: _var,
    ir.DualRef: _dual,
    ir.Size: _size,
    ir.Position: _position,
    ir.Coordinate: _coordinate,
    ir.Component: _component,
    ir.LabelPosition: _label_position,
    ir.Locate: _locate,
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _align,
    ir.Reduce: _reduce,
    ir.MapLast: _map_last,
    ir.Matrix: _matrix,
    ir.Gather: _gather,
    ir.ScatterSum: _scatter_sum,
    ir.Concat: _concat,
    ir.Diag: _diag,
    ir.ExternCall: _extern,
}
