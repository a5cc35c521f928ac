"""NumPy meanings of the functions, reductions and maps of the IR, in stable forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), never exponentiating a positive number."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


def huber(r: Array, d: Array) -> Array:
    """r^2/2 within d, d|r| - d^2/2 outside."""
    size = np.abs(r)
    return np.where(size <= d, 0.5 * r * r, d * size - 0.5 * d * d)


def entr(p: Array) -> Array:
    """-p log p, with its limit 0 at 0 and nan below."""
    positive = p > 0
    inside = -p * np.log(np.where(positive, p, 1.0))
    return np.where(positive, inside, np.where(p == 0, 0.0, np.nan))


def logsumexp(x: Array, dims: tuple[int, ...]) -> Array:
    """Log of the sum of exp over ``dims``, shifted by the largest entry."""
    top = np.max(x, axis=dims, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.sum(np.exp(x - shift), axis=dims, keepdims=True)) + shift
    return np.asarray(np.squeeze(total, axis=dims))


def norm2(x: Array, dims: tuple[int, ...]) -> Array:
    """Euclidean norm over ``dims``, scaled so that squares neither overflow nor vanish."""
    top = np.max(np.abs(x), axis=dims, keepdims=True, initial=0.0)
    scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
    total = np.sqrt(np.sum((x / scale) ** 2, axis=dims, keepdims=True)) * scale
    return np.asarray(np.squeeze(total, axis=dims))


def logsoftmax(x: Array) -> Array:
    """Logarithm of softmax over the last axis."""
    return np.asarray(x - logsumexp(x, (x.ndim - 1,))[..., None])


def spectral_norm(x: Array) -> Array:
    """Largest singular value of the last two axes."""
    if 0 in x.shape[-2:]:
        return np.zeros(x.shape[:-2])
    return np.asarray(np.linalg.norm(x, 2, axis=(-2, -1)))


def logdet(x: Array) -> Array:
    """Log-determinant of the last two axes; nan where the determinant is not positive."""
    sign, value = np.linalg.slogdet(x)
    return np.where(sign > 0, value, np.where(sign == 0, -math.inf, math.nan))


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "recip": lambda x: 1.0 / x,
    "pow": np.power,
    "square": np.square,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "abs": np.abs,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "relu": lambda x: np.maximum(x, 0.0),
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "huber": huber,
    "entr": entr,
}
"""Functions of float64 arrays ("add" takes any number of operands: see the interpreter)."""

COMPARISONS: dict[str, Callable[..., Any]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}

REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...]], Any]] = {
    "sum": lambda x, dims: np.sum(x, axis=dims),
    "prod": lambda x, dims: np.prod(x, axis=dims),
    "max": lambda x, dims: np.max(x, axis=dims),
    "min": lambda x, dims: np.min(x, axis=dims),
    "logsumexp": logsumexp,
    "norm2": norm2,
}

MAPS: dict[str, Callable[[Array], Array]] = {
    "softmax": lambda x: np.exp(logsoftmax(x)),
    "logsoftmax": logsoftmax,
}

MATRICES: dict[str, Callable[[Array], Array]] = {"logdet": logdet, "spectral_norm": spectral_norm}

KEEPS_ZERO = frozenset(
    {"neg", "square", "sqrt", "expm1", "log1p", "abs", "relu", "tanh", "sin", "tan", "atan", "sinh"}
)
"""Functions with f(0) = 0: a sparse operand stays sparse."""
