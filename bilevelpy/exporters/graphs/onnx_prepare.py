"""A traced graph made ready for ONNX: double precision, and operators that runtimes have.

Three things would go wrong silently or late otherwise. Numbers in the graph (``0.6 * x``) would
become constants of single precision, wrong from the eighth digit on. Runtimes have no kernel in
double precision for some operators (softplus, tan, sinh, cosh): they are written with others here.
And the derivative of a diagonal would be written into zeros, which is no function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which does not overflow.
    z = x * beta
    return (torch.relu(z) + torch.log(1.0 + torch.exp(-torch.abs(z)))) / beta


def _softplus_backward(grad: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    return grad * torch.sigmoid(x * beta)


def _sinh(x: Tensor) -> Tensor:
    return 0.5 * (torch.exp(x) - torch.exp(-x))


def _cosh(x: Tensor) -> Tensor:
    return 0.5 * (torch.exp(x) + torch.exp(-x))


def _tan(x: Tensor) -> Tensor:
    return torch.sin(x) / torch.cos(x)


def _diagonal_backward(
    grad: Tensor, sizes: list[int], offset: int, first: int, second: int
) -> Tensor:
    # The matrix with this diagonal; those of the language are square, from the first entry.
    rows = grad.unsqueeze(-1) * torch.eye(sizes[first], dtype=grad.dtype)
    return torch.movedim(rows, (-2, -1), (first, second))


DECOMPOSED: dict[Any, Callable[..., Tensor]] = {
    aten.softplus.default: _softplus,
    aten.softplus_backward.default: _softplus_backward,
    aten.sinh.default: _sinh,
    aten.cosh.default: _cosh,
    aten.tan.default: _tan,
    aten.diagonal_backward.default: _diagonal_backward,
}
# Operators with a number for one argument -> the one that takes tensors for both.
WITH_TENSOR: dict[Any, Any] = {
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    aten.clamp_min.default: aten.maximum.default,
    aten.clamp_max.default: aten.minimum.default,
}


def prepared(module: fx.GraphModule, point: tuple[Tensor, ...]) -> fx.GraphModule:
    """The same functions, ready for the exporter of ONNX."""
    from torch.fx.experimental.proxy_tensor import make_fx

    made = make_fx(module, decomposition_table=DECOMPOSED, tracing_mode="real")(*point)
    dtype = point[0].dtype
    for node in list(made.graph.nodes):
        if node.op == "call_function":
            _with_constants(made, node, dtype)
    made.graph.lint()
    made.recompile()
    return made


def _with_constants(module: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.dtype != dtype:
        return  # positions and masks

    def constant(number: float) -> fx.Node:
        name = f"number_{sum(1 for n, _ in module.named_buffers() if n.startswith('number_'))}"
        module.register_buffer(name, torch.tensor(float(number), dtype=dtype))
        with module.graph.inserting_before(node):
            return module.graph.get_attr(name)

    target, args = node.target, node.args
    scale = node.kwargs.get("alpha")
    if target in (aten.add.Tensor, aten.sub.Tensor) and _is_number(scale):
        # a + alpha b
        factor = constant(scale)
        with module.graph.inserting_before(node):
            scaled = module.graph.call_function(aten.mul.Tensor, (factor, args[1]))
        node.args, node.kwargs = (args[0], scaled), {}
    elif target in WITH_TENSOR and len(args) == 2 and any(_is_number(a) for a in args):
        made = tuple(constant(a) if _is_number(a) else a for a in args)
        node.target, node.args = WITH_TENSOR[target], made
    elif target is aten.rsub.Scalar and len(args) == 2 and _is_number(args[1]):
        node.target, node.args = aten.sub.Tensor, (constant(args[1]), args[0])
    elif target is aten.pow.Tensor_Scalar and _is_number(args[1]) and args[1] != int(args[1]):
        node.target, node.args = aten.pow.Tensor_Tensor, (args[0], constant(args[1]))
    elif target is aten.clamp.default:
        _clamp(module, node, constant)


def _clamp(module: fx.GraphModule, node: fx.Node, constant: Callable[[float], fx.Node]) -> None:
    """``min(max(x, low), high)`` with tensors."""
    low, high = (*node.args[1:], None, None)[:2]
    if _is_number(low) and _is_number(high):
        with module.graph.inserting_before(node):
            inner = module.graph.call_function(aten.maximum.default, (node.args[0], constant(low)))
        node.target, node.args = aten.minimum.default, (inner, constant(high))
    elif _is_number(low):
        node.target, node.args = aten.maximum.default, (node.args[0], constant(low))
    elif _is_number(high):
        node.target, node.args = aten.minimum.default, (node.args[0], constant(high))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
