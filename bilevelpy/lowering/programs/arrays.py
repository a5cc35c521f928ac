"""Compiled graphs as NumPy functions: the cost of a call is what counts in small programs.

A call of a NumPy function on a short vector costs a third to a half of one of torch. The graph is
the one that torch runs; each of its operations has its counterpart
(:mod:`bilevelpy.lowering.programs.array_kernels`), and a graph with one that has none is left to
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import fx

from bilevelpy.lowering.programs import kernels
from bilevelpy.lowering.programs.array_kernels import (
    COMMUTATIVE,
    COUNTERPARTS,
    Function,
    softmax_pair,
)
from bilevelpy.lowering.programs.gaps import Gaps
from bilevelpy.lowering.programs.linear_map import data_product


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
    # What is computed already, by its text; functions by their names in it.
    terms: dict[str, str] = {}
    called: dict[Function, str] = {}

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
                known["pair"] = softmax_pair
                results = ", ".join(names[part] for part in pair)
                lines.append(f"    {results} = pair({text(node.args[0])})")
        elif node.op == "call_function" and (product := _data_product(node, matrices)) is not None:
            matrix, v, transpose = product
            names[node] = f"t{k}"
            lines.append(f"    {names[node]} = {matrix}({text(v)}, {transpose})")
        elif node.op == "call_function":
            function = COUNTERPARTS.get(node.target)
            if function is None:
                return None
            if "alpha" in node.kwargs:
                (left, right), factor = node.args, node.kwargs["alpha"]
                term = f"{text(left)} + {text(factor)} * {text(right)}"
            elif node.kwargs:
                return None
            elif isinstance(function, str):
                operands = [text(a) for a in node.args]
                if function in COMMUTATIVE:
                    operands.sort()
                term = function.format(*operands)
            else:
                name = called.setdefault(function, f"f{len(known)}")
                known[name] = function
                term = f"{name}({', '.join(text(a) for a in node.args)})"
            names[node] = terms.setdefault(term, f"t{k}")
            if names[node] == f"t{k}":
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
