"""Values and gradients of scalar trees at many points.

To find the order of evaluation takes longer than an evaluation, so both are kept; and sums of
multiples of columns (the predictors of a fit, written out entry by entry) are the rows of one
sparse matrix, which takes most of a large tree in one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.system.deadline import check

Array = np.ndarray[Any, np.dtype[Any]]

KINKS = ("abs", "max", "min", "sign")


class Evaluation:
    """One tree: ``value(v)``, and ``gradient(v)`` by the chain rule from the root down.

    At kinks (``abs``, ``max``, ``min``) the slope is that of one side.
    """

    __slots__ = ("_A", "_b", "_calls", "_columns", "_forms", "_numbers", "_width", "root")

    def __init__(self, root: sc.Scalar, width: int) -> None:
        self.root, self._width = root, width
        order = sc.postorder(root)
        forms = _forms(order)
        self._forms = [id(node) for node in forms]
        self._A, self._b = _matrix(forms, width)
        self._numbers = {id(n): n.value for n in order if isinstance(n, sc.Num)}
        self._calls = _rest(root, {id(node) for node in forms})
        read = {id(a): a for node in self._calls for a in node.arguments}
        read[id(root)] = root
        self._columns = [(k, n.index) for k, n in read.items() if isinstance(n, sc.Col)]

    def value(self, v: Array) -> float:
        """The value at a point.

        Raises
        ------
        ValueError, ArithmeticError
            Where the function has none.
        """
        return self._values(v)[id(self.root)]

    def gradient(self, v: Array) -> Array:
        """The derivatives by all columns."""
        known = self._values(v)
        parts: dict[int, float] = {id(self.root): 1.0}
        for node in reversed(self._calls):
            weight = parts.get(id(node), 0.0)
            if weight == 0.0:
                continue
            values = [known[id(a)] for a in node.arguments]
            slopes = _slopes(node.function, values, known[id(node)])
            for argument, slope in zip(node.arguments, slopes, strict=True):
                parts[id(argument)] = parts.get(id(argument), 0.0) + weight * slope
        found = np.zeros(self._width)
        for key, j in self._columns:
            found[j] += parts.get(key, 0.0)
        if self._forms:
            found += self._A.T @ np.array([parts.get(key, 0.0) for key in self._forms])
        return found

    def has_kinks(self, wanted: Collection[int]) -> bool:
        """Whether the function has kinks (``abs``, ``max``, ``min``) in some of the columns."""
        if not any(node.function in KINKS for node in self._calls):
            return False
        chosen = set(wanted)
        moving: set[int] = set()
        for node in sc.postorder(self.root):
            inner = node.arguments if isinstance(node, sc.Call) else ()
            if any(id(a) in moving for a in inner):
                moving.add(id(node))
                if isinstance(node, sc.Call) and node.function in KINKS:
                    return True
            elif isinstance(node, sc.Col) and node.index in chosen:
                moving.add(id(node))
        return False

    def _values(self, v: Array) -> dict[int, float]:
        check()
        known = dict(self._numbers)
        for key, j in self._columns:
            known[key] = float(v[j])
        if self._forms:
            known.update(zip(self._forms, (self._A @ v + self._b).tolist(), strict=True))
        for node in self._calls:
            known[id(node)] = sc.applied(node, known)
        return known


def _forms(order: Sequence[sc.Scalar]) -> list[sc.Scalar]:
    """The largest sums of multiples of columns. What is used twice is one of its own: written out
    at every use, a chain of such sums would take the square of its length, or more.
    """
    uses: dict[int, int] = {}
    for node in order:
        if isinstance(node, sc.Call):
            for argument in node.arguments:
                uses[id(argument)] = uses.get(id(argument), 0) + 1
    linear: set[int] = set()
    for node in order:
        if isinstance(node, sc.Call) and all(
            isinstance(a, sc.Num | sc.Col) or (id(a) in linear and uses[id(a)] == 1)
            for a in node.arguments
        ):
            first = node.arguments[0]
            multiple = len(node.arguments) == 2 and isinstance(first, sc.Num)
            if node.function == "add" or (node.function == "mul" and multiple):
                linear.add(id(node))
    inside = {
        id(a)
        for node in order
        if isinstance(node, sc.Call) and id(node) in linear
        for a in node.arguments
    }
    return [node for node in order if id(node) in linear and id(node) not in inside]


def _matrix(forms: Sequence[sc.Scalar], width: int) -> tuple[Any, Array]:
    """The forms as ``A v + b``."""
    rows: list[int] = []
    columns: list[int] = []
    data: list[float] = []
    b = np.zeros(len(forms))
    for r, form in enumerate(forms):
        stack = [(form, 1.0)]
        while stack:
            node, factor = stack.pop()
            if isinstance(node, sc.Num):
                b[r] += factor * node.value
            elif isinstance(node, sc.Col):
                rows.append(r)
                columns.append(node.index)
                data.append(factor)
            elif node.function == "mul":
                number, other = node.arguments
                assert isinstance(number, sc.Num)
                stack.append((other, factor * number.value))
            else:
                stack.extend((a, factor) for a in node.arguments)
    return sp.csr_array((data, (rows, columns)), shape=(len(forms), width)), b


def _rest(root: sc.Scalar, forms: set[int]) -> list[sc.Call]:
    """The calls above the forms, arguments first."""
    seen: set[int] = set(forms)
    order: list[sc.Call] = []
    stack: list[tuple[sc.Scalar, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            assert isinstance(node, sc.Call)
            order.append(node)
        elif isinstance(node, sc.Call) and id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.arguments))
    return order


def _slopes(function: str, args: list[float], value: float) -> list[float]:
    """The derivatives of a call by its arguments."""
    match function:
        case "add":
            return [1.0] * len(args)
        case "mul":
            return _others(args)
        case "div":
            return [1.0 / args[1], -value / args[1]]
        case "pow":
            base, exponent = args
            by_base = exponent * math.pow(base, exponent - 1.0) if exponent else 0.0
            return [by_base, value * math.log(base) if base > 0.0 else 0.0]
        case "max" | "min":
            chosen = args.index(value)
            return [float(k == chosen) for k in range(len(args))]
    return [_SLOPES[function](args[0], value)]


def _others(args: list[float]) -> list[float]:
    """The product of all others, for every argument."""
    before, after = [1.0], [1.0]
    for a in args[:-1]:
        before.append(before[-1] * a)
    for a in reversed(args[1:]):
        after.append(after[-1] * a)
    return [b * a for b, a in zip(before, reversed(after), strict=True)]


_SLOPES: dict[str, Callable[[float, float], float]] = {
    "exp": lambda a, value: value,
    "log": lambda a, value: 1.0 / a,
    "sqrt": lambda a, value: 0.5 / value,
    "sin": lambda a, value: math.cos(a),
    "cos": lambda a, value: -math.sin(a),
    "tan": lambda a, value: 1.0 + value * value,
    "atan": lambda a, value: 1.0 / (1.0 + a * a),
    "sinh": lambda a, value: math.cosh(a),
    "cosh": lambda a, value: math.sinh(a),
    "tanh": lambda a, value: 1.0 - value * value,
    "abs": lambda a, value: math.copysign(1.0, a),
    "sign": lambda a, value: 0.0,
}
