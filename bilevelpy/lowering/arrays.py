"""Compiled graphs as NumPy functions, for programs so small that the cost of a call is what counts.

A call of a NumPy function on a short vector costs a third to a half of one of torch. The graph is
the one that torch runs; each of its operations has its counterpart here, and a graph with one that
has none is left to torch. Exponentials and what is made of them are faster in torch, by factors of
2 to 3, once arrays are long: they go there and back without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import fx

from bilevelpy.lowering import kernels
from bilevelpy.lowering.gaps import Gaps
from bilevelpy.lowering.linear_map import SparseMap, data_product, sparse_product

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Any]


def array_function(
    graph: fx.Graph, values: Iterable[Any], gaps: Callable[[torch.Tensor], Gaps | None]
) -> Function | None:
    """The function of the variables' arrays that a graph describes, its data in place.

    None where an operation has no counterpart. ``values`` are those of the graph's data inputs;
    ``gaps`` gives the products of those that are large matrices.
    """
    known: dict[str, Any] = {}
    places = list(values)
    matrices: dict[fx.Node, str] = {}
    inputs: list[str] = []
    lines: list[str] = []
    names: dict[fx.Node, str] = {}

    def text(argument: Any) -> str:
        return _text(argument, names, known)

    pairs = _pairs(graph)
    for k, node in enumerate(graph.nodes):
        if node.op == "placeholder":
            if len(names) < len(places):
                names[node] = f"d{k}"
                value = places[len(names) - 1]
                known[names[node]] = _array(value)
                found = gaps(value) if isinstance(value, torch.Tensor) else None
                if found is not None:
                    matrices[node] = f"g{k}"
                    known[matrices[node]] = found.product
            else:
                names[node] = f"v{k}"
                inputs.append(names[node])
        elif node.op == "call_function" and node in pairs:
            if node not in names:
                pair = pairs[node]
                names |= {part: f"t{k}_{place}" for place, part in enumerate(pair)}
                known["pair"] = _softmax_pair
                results = ", ".join(names[part] for part in pair)
                lines.append(f"    {results} = pair({text(node.args[0])})")
        elif node.op == "call_function" and (product := _data_product(node, matrices)) is not None:
            matrix, v, transpose = product
            names[node] = f"t{k}"
            lines.append(f"    {names[node]} = {matrix}({text(v)}, {transpose})")
        elif node.op == "call_function":
            function = _COUNTERPARTS.get(node.target)
            if function is None:
                return None
            if "alpha" in node.kwargs:
                (left, right), factor = node.args, node.kwargs["alpha"]
                term = f"{text(left)} + {text(factor)} * {text(right)}"
            elif node.kwargs:
                return None
            elif isinstance(function, str):
                term = function.format(*(text(a) for a in node.args))
            else:
                name = f"f{len(known)}"
                known[name] = function
                term = f"{name}({', '.join(text(a) for a in node.args)})"
            names[node] = f"t{k}"
            lines.append(f"    {names[node]} = {term}")
        elif node.op == "output":
            lines.append(f"    return {text(node.args[0])}")
        else:
            return None
    body = "\n".join([f"def run({', '.join(inputs)}):", *lines])
    # The text holds the names made here and numbers, nothing of the model's own.
    exec(compile(body, "<arrays>", "exec"), known)
    # Out of its own names: the data that they hold is then let go with the function, at once.
    quiet: Function = np.errstate(all="ignore")(known.pop("run"))
    return quiet


def _text(argument: Any, names: dict[fx.Node, str], known: dict[str, Any]) -> str:
    """An argument of a call; not within :func:`array_function`, for a function that names itself
    keeps all that it sees until the next collection.
    """
    if isinstance(argument, fx.Node):
        return names[argument]
    if isinstance(argument, tuple):
        return f"({''.join(_text(a, names, known) + ', ' for a in argument)})"
    if isinstance(argument, list):
        return f"[{', '.join(_text(a, names, known) for a in argument)}]"
    if isinstance(argument, float):
        # Infinities and NaN have no literal.
        known[f"k{len(known)}"] = argument
        return f"k{len(known) - 1}"
    return repr(argument)


def _pairs(graph: fx.Graph) -> dict[fx.Node, tuple[fx.Node, fx.Node]]:
    """Softmax and logarithm of the sum of the exponentials of the same matrix, over its rows: what
    a classification loss and its gradient take.
    """
    known: dict[tuple[Any, Any], fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function" and not node.kwargs:
            known.setdefault((node.target, node.args), node)
    found: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}
    for (target, arguments), node in known.items():
        if target is kernels.softmax:
            other = known.get((torch.logsumexp, (arguments[0], (1,))))
            if other is not None:
                found |= dict.fromkeys((node, other), (node, other))
    return found


def _data_product(node: fx.Node, matrices: dict[fx.Node, str]) -> tuple[str, Any, bool] | None:
    """The name of a large data matrix that a node multiplies, by what, and whether transposed."""
    arguments: Any = node.args
    if node.target is data_product:
        matrix, v, transpose = arguments
    elif node.target is torch.mv:
        matrix, v = arguments
        transpose = isinstance(matrix, fx.Node) and matrix.target is torch.t
        if transpose:
            matrix = matrix.args[0]
    else:
        return None
    name = matrices.get(matrix)
    return None if name is None else (name, v, transpose)


def wrapped(function: Function) -> Function:
    """A function of tensors as one of arrays."""

    def call(*values: Any) -> Any:
        found = function(*(torch.as_tensor(v) for v in values))
        if isinstance(found, tuple):
            return tuple(t.numpy() for t in found)
        return found.detach().numpy()

    return call


def _array(value: Any) -> Any:
    """A data input as NumPy sees it: the same memory."""
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _longer(entries: int, long: Function, short: Function) -> Function:
    """A function by torch where an array has so many entries, else by NumPy."""

    def call(x: Any, *rest: Any) -> Any:
        # Views and read-only arrays have no tensor over the same memory.
        if x.size < entries or not (x.flags.c_contiguous and x.flags.writeable):
            return short(x, *rest)
        return long(torch.from_numpy(x), *rest).numpy()

    return call


_exp = _longer(1000, torch.exp, np.exp)


# Lengths up to which sums along one side of a matrix are products with ones.
ONES = np.ones(1 << 16)


def _sum(x: Any, dims: Any = None) -> Any:
    if x.ndim == 2 and dims is not None and x.dtype == float:
        axis = dims if isinstance(dims, int) else dims[0] if len(dims) == 1 else 2
        # NumPy's own sums of narrow matrices take five times as long as BLAS.
        if axis in (1, -1) and x.shape[1] <= len(ONES):
            return x.dot(ONES[: x.shape[1]])
        if axis in (0, -2) and x.shape[0] <= len(ONES):
            return ONES[: x.shape[0]].dot(x)
    return np.add.reduce(x, axis=dims) if x.ndim else x


def _softplus(x: Any) -> Any:
    return -log_expit(-x)


def _sum_of_squares(x: Any) -> Any:
    flat = x.reshape(-1)
    return flat.dot(flat)


def _permute(x: Any, order: tuple[int, ...]) -> Any:
    return np.transpose(x, order)


def _select(x: Any, dim: int, index: int) -> Any:
    return x.take(index, dim)


def _index_select(x: Any, dim: int, index: Array) -> Any:
    return x.take(index, dim)


def _squeeze(x: Any, dims: Any) -> Any:
    return np.squeeze(x, dims)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return np.where(condition if np.asarray(condition).dtype == bool else condition != 0, yes, no)


def _take(x: Any, dims: tuple[int, ...], *index: Any) -> Any:
    if len(dims) > 1 or dims[0] != 0:
        x = np.moveaxis(x, dims, tuple(range(len(dims))))
    return x[index]


def _scatter_sum(x: Any, index: Array, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    if x.ndim == 1:
        return np.bincount(index, weights=x, minlength=count).reshape(shape)
    out = np.zeros((count, *x.shape[1:]))
    np.add.at(out, index, x)
    return out.reshape(*shape, *x.shape[1:])


def _spread(x: Any, *shape: int) -> Any:
    return np.broadcast_to(x, shape)


# Entries of a matrix that lie within this range need no shift of their own in each row.
RANGE = 50.0


def _exponentials(x: Any) -> tuple[Any, Any, Any]:
    """``exp(x - top)`` and its sums over the last axis. ``top`` is one number where that loses no
    more than 50 units of rounding, else the largest of each row.
    """
    top: Any = np.maximum.reduce(x, axis=None)
    if not top - np.minimum.reduce(x, axis=None) <= RANGE:  # nor where something is not finite
        top = np.maximum.reduce(x, axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
    found = _exp(x - top)
    return found, _sum(found, (found.ndim - 1,)), top


def _logsumexp(x: Any, dims: tuple[int, ...]) -> Any:
    if x.size and len(dims) == 1 and dims[0] in (-1, x.ndim - 1):
        _, total, top = _exponentials(x)
        return np.log(total) + (top if np.ndim(top) == 0 else top[..., 0])
    top = np.maximum.reduce(x, axis=dims, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.add.reduce(np.exp(x - top), axis=dims))
    return total + top.reshape(total.shape)


def _softmax(x: Any) -> Any:
    if not x.size:
        return x
    found, total, _ = _exponentials(x)
    return found / total[..., None]


def _softmax_pair(x: Any) -> tuple[Any, Any]:
    if x.ndim != 2 or not x.size:
        return _softmax(x), _logsumexp(x, (1,))
    found, total, top = _exponentials(x)
    logs = np.log(total)
    return found / total[:, None], logs + (top if np.ndim(top) == 0 else top[:, 0])


def _logsoftmax(x: Any) -> Any:
    return x - _logsumexp(x, (-1,))[..., None]


def _norm2(x: Any, dims: Sequence[int]) -> Any:
    return np.sqrt(np.add.reduce(x * x, axis=tuple(dims)))


def _clip(r: Any, d: Any) -> Any:
    c = np.minimum(np.maximum(r, -d), d)
    return c * (r - 0.5 * c)


def _entr(x: Any) -> Any:
    return np.where(x < 0, math.nan, -x * np.log(np.maximum(x, kernels.TINY)))


def _diag(x: Any) -> Any:
    return x[..., :, None] * np.eye(x.shape[-1])


def _product(matrix: Any, v: Any, transpose: bool) -> Any:
    return (v.T @ matrix).T if transpose else matrix @ v


def _sparse(operator: SparseMap, v: Any, transpose: bool) -> Any:
    return (operator.transposed if transpose else operator).csr @ v


_ATOMS = kernels.ELEMENTWISE
# Functions, or the text of an expression of the arguments.
_COUNTERPARTS: dict[Any, Function | str] = {
    torch.mul: "{0} * {1}",
    torch.add: "{0} + {1}",
    torch.sub: "{0} - {1}",
    torch.rsub: "{1} - {0}",
    torch.dot: "{0}.dot({1})",
    torch.mv: "{0}.dot({1})",
    torch.mm: "{0}.dot({1})",
    torch.matmul: np.matmul,
    torch.t: "{0}.T",
    torch.permute: _permute,
    torch.movedim: np.moveaxis,
    torch.unsqueeze: np.expand_dims,
    torch.squeeze: _squeeze,
    torch.select: _select,
    torch.index_select: _index_select,
    torch.diagonal: np.diagonal,
    torch.einsum: np.einsum,
    torch.sum: _sum,
    torch.amax: np.amax,
    torch.amin: np.amin,
    torch.logsumexp: _logsumexp,
    torch.cat: np.concatenate,
    torch.diag_embed: _diag,
    torch.neg: "-{0}",
    torch.reciprocal: "1.0 / {0}",
    torch.sqrt: np.sqrt,
    torch.exp: _exp,
    torch.expm1: np.expm1,
    torch.log: np.log,
    torch.log1p: np.log1p,
    torch.abs: np.abs,
    torch.relu: lambda x: np.maximum(x, 0.0),
    torch.sigmoid: _longer(600, torch.sigmoid, expit),
    torch.tanh: np.tanh,
    torch.sin: np.sin,
    torch.cos: np.cos,
    torch.tan: np.tan,
    torch.atan: np.arctan,
    torch.sinh: np.sinh,
    torch.cosh: np.cosh,
    kernels.add: lambda *operands: sum(operands[1:], operands[0]),
    kernels.softplus: _longer(400, kernels.softplus, _softplus),
    kernels.square: "{0} * {0}",
    kernels.sum_of_squares: _sum_of_squares,
    kernels.power: np.power,
    kernels.maximum: np.maximum,
    kernels.minimum: np.minimum,
    kernels.huber: _clip,
    kernels.entr: _entr,
    kernels.select: _where,
    kernels.norm2: _norm2,
    kernels.softmax: _softmax,
    kernels.logsoftmax: _logsoftmax,
    kernels.take: _take,
    kernels.scatter_sum: _scatter_sum,
    kernels.spread: _spread,
    data_product: _product,
    sparse_product: _sparse,
    _ATOMS["lt"]: "1.0 * ({0} < {1})",
    _ATOMS["le"]: "1.0 * ({0} <= {1})",
    _ATOMS["gt"]: "1.0 * ({0} > {1})",
    _ATOMS["ge"]: "1.0 * ({0} >= {1})",
    _ATOMS["eq"]: "1.0 * ({0} == {1})",
    _ATOMS["ne"]: "1.0 * ({0} != {1})",
}
