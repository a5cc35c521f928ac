"""Compiled graphs as NumPy functions, for programs so small that the cost of a call is what counts.

A call of a NumPy function on a short vector costs a third to a half of one of torch. The graph is
the one that torch runs; each of its operations has its counterpart here, and a graph with one that
has none is left to torch.
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
from bilevelpy.lowering.linear_map import SparseMap, data_product, sparse_product

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Any]


def array_function(graph: fx.Graph, values: Iterable[Any]) -> Function | None:
    """The function of the variables' arrays that a graph describes, its data in place.

    None where an operation has no counterpart. ``values`` are those of the graph's data inputs.
    """
    known: dict[str, Any] = {}
    places = list(values)
    inputs: list[str] = []
    lines: list[str] = []
    names: dict[fx.Node, str] = {}

    def text(argument: Any) -> str:
        if isinstance(argument, fx.Node):
            return names[argument]
        if isinstance(argument, tuple):
            return f"({''.join(text(a) + ', ' for a in argument)})"
        if isinstance(argument, list):
            return f"[{', '.join(text(a) for a in argument)}]"
        if isinstance(argument, float):
            # Infinities and NaN have no literal.
            known[f"k{len(known)}"] = argument
            return f"k{len(known) - 1}"
        return repr(argument)

    for k, node in enumerate(graph.nodes):
        if node.op == "placeholder":
            if len(names) < len(places):
                names[node] = f"d{k}"
                known[names[node]] = _array(places[len(names) - 1])
            else:
                names[node] = f"v{k}"
                inputs.append(names[node])
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
    quiet: Function = np.errstate(all="ignore")(known["run"])
    return quiet


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


def _sum(x: Any, dims: Any = None) -> Any:
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


def _logsumexp(x: Any, dims: tuple[int, ...]) -> Any:
    top = np.maximum.reduce(x, axis=dims, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.add.reduce(np.exp(x - top), axis=dims))
    return total + top.reshape(total.shape)


def _softmax(x: Any) -> Any:
    shifted = np.exp(x - np.maximum.reduce(x, axis=-1, keepdims=True))
    return shifted / np.add.reduce(shifted, axis=-1, keepdims=True)


def _logsoftmax(x: Any) -> Any:
    shifted = x - np.maximum.reduce(x, axis=-1, keepdims=True)
    return shifted - np.log(np.add.reduce(np.exp(shifted), axis=-1, keepdims=True))


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
    torch.exp: np.exp,
    torch.expm1: np.expm1,
    torch.log: np.log,
    torch.log1p: np.log1p,
    torch.abs: np.abs,
    torch.relu: lambda x: np.maximum(x, 0.0),
    torch.sigmoid: expit,
    torch.tanh: np.tanh,
    torch.sin: np.sin,
    torch.cos: np.cos,
    torch.tan: np.tan,
    torch.atan: np.arctan,
    torch.sinh: np.sinh,
    torch.cosh: np.cosh,
    kernels.add: lambda *operands: sum(operands[1:], operands[0]),
    kernels.softplus: _softplus,
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
