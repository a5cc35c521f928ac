"""Torch functions for the primitives of the IR: stable values, first and second derivatives
without NaN.

One table per table of :mod:`bilevelpy.ir.atoms`. Elementwise kernels take tensors or Python
numbers (at least one tensor); reductions take the dims; conditions give 0 and 1 in the type of
their operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[..., Tensor]

# softplus(x) is x in float64 from here on; torch's own threshold of 20 leaves an error of 2e-9.
SOFTPLUS_LINEAR = 40.0
# Below this the slope of -x log x is held, so that it is finite at 0.
TINY = 1e-300


def add(*operands: Any) -> Tensor:
    """The sum of its operands."""
    total = operands[0]
    for operand in operands[1:]:
        total = total + operand
    return total  # type: ignore[no-any-return]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return torch.nn.functional.softplus(x, 1.0, SOFTPLUS_LINEAR)


def square(x: Tensor) -> Tensor:
    """x^2; the second derivative of a product is cheaper than that of torch's power."""
    return x * x


def sum_of_squares(x: Tensor) -> Tensor:
    """The sum of all squares: half the time of squaring and summing, in every derivative."""
    flat = x if x.dim() == 1 else x.reshape(-1)
    return torch.dot(flat, flat)


def power(base: Any, exponent: Any) -> Tensor:
    """``base ^ exponent``; whole exponents take any base."""
    return torch.pow(base, exponent)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of two; numbers need no tensor of their own."""
    if not isinstance(a, Tensor):
        return torch.clamp_min(b, a)
    return torch.maximum(a, b) if isinstance(b, Tensor) else torch.clamp_min(a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of two."""
    if not isinstance(a, Tensor):
        return torch.clamp_max(b, a)
    return torch.minimum(a, b) if isinstance(b, Tensor) else torch.clamp_max(a, b)


def huber(r: Any, d: Any) -> Tensor:
    """r^2/2 within d, d|r| - d^2/2 outside: ``c (r - c/2)`` with ``c`` = r cut off at -d and d."""
    if not isinstance(r, Tensor):
        r = torch.as_tensor(r, dtype=d.dtype)
    c = torch.clamp(r, -d, d)
    return torch.mul(c, r - 0.5 * c)


def entr(x: Tensor) -> Tensor:
    """-x log x; 0 at 0 with a large finite slope, NaN below."""
    return torch.where(x < 0, math.nan, -x * torch.log(x.clamp_min(TINY)))


def select(condition: Tensor, yes: Any, no: Any) -> Tensor:
    """``yes`` where the condition holds, else ``no``."""
    mask = condition if condition.dtype is torch.bool else condition != 0
    return torch.where(mask, yes, no)


def _comparison(compare: Callable[[Any, Any], Tensor]) -> Kernel:
    def kernel(a: Any, b: Any) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        return compare(a, b).to(like.dtype)

    return kernel


def logical_and(*operands: Tensor) -> Tensor:
    """1 where no operand is 0."""
    held = operands[0] != 0
    for operand in operands[1:]:
        held = held & (operand != 0)
    return held.to(operands[0].dtype)


def logical_or(*operands: Tensor) -> Tensor:
    """1 where some operand is not 0."""
    held = operands[0] != 0
    for operand in operands[1:]:
        held = held | (operand != 0)
    return held.to(operands[0].dtype)


def logical_not(x: Tensor) -> Tensor:
    """1 where the operand is 0."""
    return (x == 0).to(x.dtype)


ELEMENTWISE: dict[str, Kernel] = {
    "add": add,
    "neg": torch.neg,
    "recip": torch.reciprocal,
    "pow": power,
    "square": square,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "abs": torch.abs,
    "maximum": maximum,
    "minimum": minimum,
    "relu": torch.relu,
    "softplus": softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "huber": huber,
    "entr": entr,
    "lt": _comparison(lambda a, b: a < b),
    "le": _comparison(lambda a, b: a <= b),
    "gt": _comparison(lambda a, b: a > b),
    "ge": _comparison(lambda a, b: a >= b),
    "eq": _comparison(lambda a, b: a == b),
    "ne": _comparison(lambda a, b: a != b),
    "and": logical_and,
    "or": logical_or,
    "not": logical_not,
    "select": select,
}

# --- reductions: (operand, dims) ------------------------------------------------------------------


def prod(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The product over ``dims``; its derivatives are right at zeros too."""
    for d in sorted(dims, reverse=True):
        x = torch.prod(x, d)
    return x


def norm2(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The Euclidean norm; every derivative at 0 is 0."""
    total = torch.sum(x * x, tuple(dims))
    zero = total == 0
    return torch.sqrt(total.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def any_nonzero(x: Tensor, dims: Sequence[int]) -> Tensor:
    """1 where some entry along ``dims`` is not 0."""
    return torch.sum(x != 0, tuple(dims)).clamp_max(1).to(x.dtype)


REDUCTIONS: dict[str, Kernel] = {
    "sum": torch.sum,
    "prod": prod,
    "max": torch.amax,
    "min": torch.amin,
    "logsumexp": torch.logsumexp,
    "norm2": norm2,
    "any": any_nonzero,
}

# --- functions of the last axis and of matrices ---------------------------------------------------


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last axis."""
    return torch.softmax(x, -1)


def logsoftmax(x: Tensor) -> Tensor:
    """Logarithm of softmax over the last axis."""
    return torch.log_softmax(x, -1)


MAPS: dict[str, Kernel] = {"softmax": softmax, "logsoftmax": logsoftmax}


def logdet(a: Tensor) -> Tensor:
    """Log-determinant of positive definite matrices by Cholesky; NaN where a matrix is not."""
    factor, info = torch.linalg.cholesky_ex(a)
    value = 2.0 * torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)
    return torch.where(info > 0, math.nan, value)


def spectral_norm(a: Tensor) -> Tensor:
    """The largest singular value over the last two axes."""
    norm: Tensor = torch.linalg.matrix_norm(a, 2)
    return norm


MATRICES: dict[str, Kernel] = {"logdet": logdet, "spectral_norm": spectral_norm}

# --- index and structure --------------------------------------------------------------------------


def take(x: Tensor, dims: tuple[int, ...], *index: Any) -> Tensor:
    """Static indexing of ``dims``: the axes of the indices first, the kept dims after."""
    if len(dims) > 1 or dims[0] != 0:
        x = torch.movedim(x, dims, tuple(range(len(dims))))
    return x[index]


def scatter_sum(x: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum dimension 0 into ``shape`` at flat positions ``index``."""
    out = torch.zeros((math.prod(shape), *x.shape[1:]), dtype=x.dtype, device=x.device)
    return out.index_add(0, index, x).reshape(*shape, *x.shape[1:])


def spread(x: Tensor, *shape: int) -> Tensor:
    """Repeat along broadcast dims, without a copy."""
    return x.expand(shape)
