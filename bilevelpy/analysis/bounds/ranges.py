"""Interval arithmetic: a range that holds every entry of an expression, over the domains of what it
reads.

Ranges are pairs of NumPy arrays, so that one pass bounds an expression on many pieces of a domain
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.mapped import extent
from bilevelpy.ir.types import AxisKind, Domain, DomainKind
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray
Range = tuple[Array, Array]

EVERYTHING: Range = (np.asarray(-np.inf), np.asarray(np.inf))


def _pair(low: float, high: float) -> Range:
    return np.asarray(low, dtype=float), np.asarray(high, dtype=float)


def times(a: Range, b: Range) -> Range:
    """The product of two ranges, with ``0 * inf = 0``."""
    with np.errstate(all="ignore"):
        ends = [np.nan_to_num(p * q, nan=0.0, posinf=np.inf, neginf=-np.inf) for p in a for q in b]
    return np.minimum.reduce(np.broadcast_arrays(*ends)), np.maximum.reduce(
        np.broadcast_arrays(*ends)
    )


def _scaled(a: Range, count: int) -> Range:
    return times(a, _pair(count, count))


def _plus(a: Range, b: Range) -> Range:
    return a[0] + b[0], a[1] + b[1]


def magnitude(a: Range) -> Range:
    """The range of the absolute value."""
    low, high = np.abs(a[0]), np.abs(a[1])
    inside = (a[0] <= 0) & (a[1] >= 0)
    return np.where(inside, 0.0, np.minimum(low, high)), np.maximum(low, high)


def _square(a: Range) -> Range:
    low, high = magnitude(a)
    return low**2, high**2


def _recip(a: Range) -> Range:
    crosses = (a[0] < 0) & (a[1] > 0)
    # A range that ends in 0 is approached from its own side.
    low = np.where(a[1] == 0, -np.inf, 1.0 / np.where(a[1] == 0, 1.0, a[1]))
    high = np.where(a[0] == 0, np.inf, 1.0 / np.where(a[0] == 0, 1.0, a[0]))
    return np.where(crosses, -np.inf, low), np.where(crosses, np.inf, high)


def _pow(a: Range, b: Range) -> Range:
    if not (b[0] == b[1]).all():
        low = np.minimum.reduce([np.power(np.maximum(p, 0), q) for p in a for q in b])
        high = np.maximum.reduce([np.power(np.maximum(p, 0), q) for p in a for q in b])
        positive = bool((a[0] > 0).all())
        return (low, high) if positive else EVERYTHING
    exponent = float(b[0].flat[0])
    if exponent == int(exponent) and exponent > 0:
        if int(exponent) % 2 == 0:
            low, high = magnitude(a)
            return low**exponent, high**exponent
        return a[0] ** exponent, a[1] ** exponent
    if exponent == int(exponent) and exponent < 0:
        return _recip(_pow(a, (-b[0], -b[1])))
    base = np.maximum(a[0], 0.0), np.maximum(a[1], 0.0)
    ends = base[0] ** exponent, base[1] ** exponent
    return np.minimum(*ends), np.maximum(*ends)


def _increasing(function: Callable[[Array], Array]) -> Callable[[Range], Range]:
    def image(a: Range) -> Range:
        return function(a[0]), function(a[1])

    return image


def _log(a: Array) -> Array:
    return np.where(a <= 0, -np.inf, np.log(np.maximum(a, np.finfo(float).tiny)))


def _entr(a: Range) -> Range:
    def value(p: Array) -> Array:
        inner = np.clip(p, 1e-300, 1e300)
        return np.where(p <= 0, 0.0, np.where(p >= 1e300, -np.inf, -inner * np.log(inner)))

    ends = value(a[0]), value(a[1])
    peak = (a[0] <= np.exp(-1)) & (a[1] >= np.exp(-1))
    return np.minimum(*ends), np.where(peak, np.exp(-1), np.maximum(*ends))


def _cosh(a: Range) -> Range:
    low, high = magnitude(a)
    return np.cosh(low), np.cosh(high)


def _sigmoid(a: Array) -> Array:
    value: Array = 1.0 / (1.0 + np.exp(-a))
    return value


_UNARY: dict[str, Callable[[Range], Range]] = {
    "neg": lambda a: (-a[1], -a[0]),
    "recip": _recip,
    "square": _square,
    "abs": magnitude,
    "entr": _entr,
    "cosh": _cosh,
    "sqrt": _increasing(lambda a: np.sqrt(np.maximum(a, 0.0))),
    "exp": _increasing(np.exp),
    "expm1": _increasing(np.expm1),
    "log": _increasing(_log),
    "log1p": _increasing(lambda a: _log(1.0 + a)),
    "relu": _increasing(lambda a: np.maximum(a, 0.0)),
    "softplus": _increasing(lambda a: np.logaddexp(0.0, a)),
    "sigmoid": _increasing(_sigmoid),
    "tanh": _increasing(np.tanh),
    "atan": _increasing(np.arctan),
    "sinh": _increasing(np.sinh),
    "sin": lambda a: _pair(-1.0, 1.0),
    "cos": lambda a: _pair(-1.0, 1.0),
    "tan": lambda a: EVERYTHING,
}


class Ranges:
    """Ranges of the nodes of one bound program, each computed once.

    Without ``use_data`` params are bounded by their declared domains only, which never touches an
    array; ``pieces`` replaces the range of some nodes.
    """

    def __init__(
        self, bound: BoundProgram, use_data: bool, pieces: Mapping[ir.Expr, Range] | None = None
    ) -> None:
        self.bound = bound
        self.use_data = use_data
        self._known: dict[ir.Expr, Range] = dict(pieces or {})
        self._domains = {
            (v.level, v.name): v.domain for level in bound.program.levels for v in level.variables
        }

    def of(self, root: ir.Expr) -> Range:
        """The range of a node."""
        if root not in self._known:
            with np.errstate(all="ignore"):
                for node in postorder(root):
                    if node not in self._known:
                        low, high = self._range(node)
                        # inf - inf and the like bound nothing.
                        low = np.where(np.isnan(low), -np.inf, low)
                        high = np.where(np.isnan(high), np.inf, high)
                        self._known[node] = low, high
        return self._known[root]

    def bounds(self, root: ir.Expr) -> tuple[float, float]:
        """The range as two numbers."""
        low, high = self.of(root)
        return float(np.min(low)), float(np.max(high))

    def domain(self, domain: Domain) -> Range:
        """The range of one entry of a domain."""
        kind = domain.kind
        if kind in (DomainKind.SIMPLEX, DomainKind.BINARY):
            return _pair(0.0, 1.0)
        if kind is DomainKind.BALL and domain.radius is not None:
            radius = np.max(self.of(domain.radius)[1])
            return _pair(-radius, radius)
        if kind in (DomainKind.INTERVAL, DomainKind.INTEGERS):
            low = np.min(self.of(domain.lower)[0]) if domain.lower is not None else -np.inf
            high = np.max(self.of(domain.upper)[1]) if domain.upper is not None else np.inf
            return _pair(low, high)
        return EVERYTHING

    def _size(self, axes: tuple[Any, ...]) -> int:
        total = 1
        for axis in axes:
            total *= self.bound.data.sizes[axis]
        return total

    def _param(self, node: ir.ParamRef) -> Range:
        declared = self.domain(self.bound.program.params[node.name].domain)
        array = self.bound.data.arrays.get(node.name) if self.use_data else None
        if array is None or 0 in array.shape:
            return declared
        low, high = extent(array)
        return _pair(max(low, float(declared[0])), min(high, float(declared[1])))

    def _range(self, node: ir.Expr) -> Range:
        known = self._known
        match node:
            case ir.Const() | ir.Fill():
                return _pair(node.value, node.value)
            case ir.Array():
                return _pair(min(node.values), max(node.values)) if node.values else EVERYTHING
            case ir.Eye():
                return _pair(0.0, 1.0)
            case ir.ParamRef():
                return self._param(node)
            case ir.VarRef():
                return self.domain(self._domains[node.level, node.name])
            case ir.Size():
                size = self.bound.data.sizes[node.axis]
                return _pair(size, size)
            case ir.Position() | ir.Component() | ir.LabelPosition() | ir.Locate():
                return _pair(0.0, np.inf)
            case ir.Coordinate() if node.axis.kind in (AxisKind.DIM, AxisKind.SIZE):
                return _pair(1.0, self.bound.data.sizes[node.axis])
            case ir.Apply():
                return self._apply(node.function, [known[o] for o in node.operands])
            case ir.Einsum():
                value = _pair(1.0, 1.0)
                for operand in node.operands:
                    value = times(value, known[operand])
                return _scaled(value, self._size(contracted_axes(node)))
            case ir.Reduce():
                return self._reduce(node, known[node.operand])
            case ir.MapLast():
                if node.function == "softmax":
                    return _pair(0.0, 1.0)
                low, high = known[node.operand]
                return low - high - np.log(self._size(node.axes[-1:])), np.zeros_like(high)
            case ir.Matrix() if node.function == "spectral_norm":
                return _pair(0.0, np.inf)
            case ir.Gather() | ir.Align():
                return known[node.operand]
            case ir.ScatterSum():
                low, high = _scaled(known[node.operand], self._size(node.operand.axes[:1]))
                return np.minimum(low, 0.0), np.maximum(high, 0.0)
            case ir.Diag():
                low, high = known[node.operand]
                return np.minimum(low, 0.0), np.maximum(high, 0.0)
            case ir.Concat():
                parts = [known[o] for o in node.operands]
                return np.minimum.reduce([p[0] for p in parts]), np.maximum.reduce(
                    [p[1] for p in parts]
                )
            case _:
                return EVERYTHING

    def _apply(self, function: str, args: list[Range]) -> Range:
        if function in _UNARY:
            return _UNARY[function](args[0])
        match function:
            case "add":
                value = args[0]
                for other in args[1:]:
                    value = _plus(value, other)
                return value
            case "pow":
                return _pow(args[0], args[1])
            case "maximum":
                return np.maximum(args[0][0], args[1][0]), np.maximum(args[0][1], args[1][1])
            case "minimum":
                return np.minimum(args[0][0], args[1][0]), np.minimum(args[0][1], args[1][1])
            case "huber":
                return _pair(0.0, np.inf)
            case "select":
                return np.minimum(args[1][0], args[2][0]), np.maximum(args[1][1], args[2][1])
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne" | "and" | "or" | "not":
                return _pair(0.0, 1.0)
            case _:
                return EVERYTHING

    def _reduce(self, node: ir.Reduce, inner: Range) -> Range:
        count = self._size(tuple(node.operand.axes[d] for d in node.dims))
        low, high = inner
        match node.function:
            case "sum":
                return _scaled(inner, count)
            case "max" | "min":
                return inner
            case "logsumexp":
                return low + np.log(max(count, 1)), high + np.log(max(count, 1))
            case "norm2":
                small, large = magnitude(inner)
                return np.sqrt(count) * small, np.sqrt(count) * large
            case "prod" if bool((low >= 0).all()):
                return low**count, high**count
            case "any":
                return _pair(0.0, 1.0)
        return EVERYTHING


def contracted_axes(node: ir.Einsum) -> tuple[Any, ...]:
    """The axes that an `Einsum` sums over, once each."""
    return tuple(axis for label, axis in node.axis_of.items() if label not in node.output)
