"""Elementwise functions of the IR in terms of the few functions that every target format has."""

from __future__ import annotations

from collections.abc import Callable

from bilevelpy.reductions.scalar import ONE, Num, Scalar, add, call, div, mul, power

_MINUS = Num(-1.0)
_TWO = Num(2.0)


def _negative(a: Scalar) -> Scalar:
    return mul(_MINUS, a)


def _softplus(a: Scalar) -> Scalar:
    return call("log", add(ONE, call("exp", a)))


def _huber(r: Scalar, d: Scalar) -> Scalar:
    # With s = min(|r|, d): s^2/2 + d (|r| - s), which is d |r| - d^2/2 where |r| exceeds d.
    size = call("abs", r)
    inner = call("min", size, d)
    return add(mul(Num(0.5), power(inner, _TWO)), mul(d, add(size, _negative(inner))))


ENTRIES: dict[str, Callable[..., Scalar]] = {
    "add": add,
    "neg": _negative,
    "recip": lambda a: div(ONE, a),
    "pow": power,
    "square": lambda a: power(a, _TWO),
    "sqrt": lambda a: call("sqrt", a),
    "exp": lambda a: call("exp", a),
    "expm1": lambda a: add(call("exp", a), _MINUS),
    "log": lambda a: call("log", a),
    "log1p": lambda a: call("log", add(ONE, a)),
    "abs": lambda a: call("abs", a),
    "maximum": lambda a, b: call("max", a, b),
    "minimum": lambda a, b: call("min", a, b),
    "relu": lambda a: call("max", a, Num(0.0)),
    "softplus": _softplus,
    "sigmoid": lambda a: div(ONE, add(ONE, call("exp", _negative(a)))),
    "tanh": lambda a: call("tanh", a),
    "sin": lambda a: call("sin", a),
    "cos": lambda a: call("cos", a),
    "tan": lambda a: call("tan", a),
    "atan": lambda a: call("atan", a),
    "sinh": lambda a: call("sinh", a),
    "cosh": lambda a: call("cosh", a),
    "huber": _huber,
    "entr": lambda a: _negative(mul(a, call("log", a))),
}
"""Function of the IR -> rule for one entry; "select" and comparisons stay with the data."""
