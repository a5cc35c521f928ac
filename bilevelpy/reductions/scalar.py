"""Scalar expression trees over numbered columns: a function that is no polynomial of degree two,
written out entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from bilevelpy.system.deadline import check


@dataclass(frozen=True, slots=True)
class Num:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Col:
    """The column of that index."""

    index: int


@dataclass(frozen=True, slots=True)
class Call:
    """``add`` and ``mul`` of two or more, ``div``, ``pow``, ``max``, ``min`` of two, or one of
    :data:`FUNCTIONS` of one argument.
    """

    function: str
    arguments: tuple[Scalar, ...]


Scalar = Num | Col | Call

ZERO, ONE = Num(0.0), Num(1.0)
# Sums and products of so many arguments stay as they are inside of others: to take them apart at
# every step of a chain takes the square of its length, and in one that squares what is before, all.
LONG = 256
# The largest exponent whose exponential is a number.
HIGHEST = 709.0


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if x else 0.0


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "abs": abs,
    "sign": _sign,
}


def _opened(node: Scalar, function: str) -> tuple[Scalar, ...]:
    """The arguments of a call of ``function``, unless they are many; any other node alone."""
    if isinstance(node, Call) and node.function == function and len(node.arguments) < LONG:
        return node.arguments
    return (node,)


def add(*terms: Scalar) -> Scalar:
    """The sum: flat, numbers collected."""
    flat: list[Scalar] = []
    constant = 0.0
    for term in terms:
        for part in _opened(term, "add"):
            if isinstance(part, Num):
                constant += part.value
            else:
                flat.append(part)
    if constant != 0.0 or not flat:
        flat.append(Num(constant))
    return flat[0] if len(flat) == 1 else Call("add", tuple(flat))


def mul(*factors: Scalar) -> Scalar:
    """The product: flat, numbers collected in front."""
    flat: list[Scalar] = []
    scale = 1.0
    for factor in factors:
        for part in _opened(factor, "mul"):
            if isinstance(part, Num):
                scale *= part.value
            else:
                flat.append(part)
    if scale == 0.0 or not flat:
        return Num(scale)
    if scale != 1.0:
        flat.insert(0, Num(scale))
    return flat[0] if len(flat) == 1 else Call("mul", tuple(flat))


def div(top: Scalar, bottom: Scalar) -> Scalar:
    """The quotient."""
    if isinstance(bottom, Num) and bottom.value != 0.0:
        return mul(Num(1.0 / bottom.value), top)
    return ZERO if top == ZERO else Call("div", (top, bottom))


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """The power."""
    if isinstance(exponent, Num):
        if exponent.value == 0.0:
            return ONE
        if exponent.value == 1.0:
            return base
        if isinstance(base, Num) and (base.value > 0 or exponent.value == int(exponent.value)):
            return _number(lambda: base.value**exponent.value, "pow", (base, exponent))
    return Call("pow", (base, exponent))


def call(function: str, *arguments: Scalar) -> Scalar:
    """A function of :data:`FUNCTIONS`, ``max`` or ``min``; folded where all is numbers."""
    numbers = [a.value for a in arguments if isinstance(a, Num)]
    if len(numbers) == len(arguments):
        meaning = {"max": max, "min": min}.get(function) or FUNCTIONS[function]
        return _number(lambda: meaning(*numbers), function, arguments)
    return Call(function, tuple(arguments))


def _number(compute: Callable[[], float], function: str, arguments: Sequence[Scalar]) -> Scalar:
    try:
        return Num(float(compute()))
    except (ValueError, OverflowError, ZeroDivisionError):
        return Call(function, tuple(arguments))


def postorder(root: Scalar) -> list[Scalar]:
    """Every node below the root once (by identity), arguments first; depth never matters."""
    check()
    seen: set[int] = set()
    order: list[Scalar] = []
    stack: list[tuple[Scalar, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            if isinstance(node, Call):
                stack.extend((a, False) for a in reversed(node.arguments))
    return order


def columns(roots: Iterable[Scalar]) -> set[int]:
    """Indices of the columns that the trees read."""
    return {n.index for root in roots for n in postorder(root) if isinstance(n, Col)}


def functions(root: Scalar) -> set[str]:
    """Names of the calls in a tree."""
    return {n.function for n in postorder(root) if isinstance(n, Call)}


def evaluate(root: Scalar, values: Sequence[float]) -> float:
    """The value at a point; :class:`~bilevelpy.reductions.evaluation.Evaluation` is for many."""
    check()
    known: dict[int, float] = {}
    for node in postorder(root):
        if isinstance(node, Num):
            known[id(node)] = node.value
        elif isinstance(node, Col):
            known[id(node)] = float(values[node.index])
        else:
            known[id(node)] = applied(node, known)
    return known[id(root)]


def applied(node: Call, known: dict[int, float]) -> float:
    """The value of a call from those of what is below it, by identity."""
    found = _apply(node.function, [known[id(a)] for a in node.arguments])
    if node.function == "log" and found >= HIGHEST:
        return _log(node.arguments[0], known)
    return found


def _log(node: Scalar, known: dict[int, float]) -> float:
    """The logarithm of a value that is too large to be represented, by the terms and exponents that
    it is made of: that of ``1 + exp(1000)`` is 1000.
    """
    if isinstance(node, Call) and node.function == "exp":
        return known[id(node.arguments[0])]
    if isinstance(node, Call) and node.function == "add":
        return max(_log(a, known) for a in node.arguments)
    if isinstance(node, Call) and node.function == "mul":
        return math.fsum(_log(a, known) for a in node.arguments)
    value = known[id(node)]
    return math.log(value) if value > 0.0 else -math.inf


def _apply(function: str, args: list[float]) -> float:
    match function:
        case "add":
            return math.fsum(args)
        case "mul":
            product = math.prod(args)
            # The limit of p log p, which 0 and -inf make nan of.
            vanishes = math.isnan(product) and 0.0 in args and not any(map(math.isnan, args))
            return 0.0 if vanishes else product
        case "div":
            return args[0] / args[1]
        case "pow":
            return math.pow(args[0], args[1])  # a ValueError where it is not real
        case "max":
            return max(args)
        case "min":
            return min(args)
        case "exp":  # as high as numbers go: 1 / (1 + exp(1000)) is 0
            return math.exp(min(args[0], HIGHEST))
        case "log" if args[0] == 0.0:
            return -math.inf
        case _:
            return FUNCTIONS[function](args[0])  # a ValueError where it is not real


def derivative(root: Scalar, index: int) -> Scalar | None:
    """The partial derivative by a column; None where the function has kinks (abs, max, min)."""
    known: dict[int, Scalar] = {}
    for node in postorder(root):
        if isinstance(node, Num):
            known[id(node)] = ZERO
        elif isinstance(node, Col):
            known[id(node)] = ONE if node.index == index else ZERO
        else:
            inner = [known[id(a)] for a in node.arguments]
            if all(d == ZERO for d in inner):
                known[id(node)] = ZERO
                continue
            made = _chain(node, inner)
            if made is None:
                return None
            known[id(node)] = made
    return known[id(root)]


def gradient(root: Scalar, wanted: Collection[int]) -> dict[int, Scalar | None]:
    """Partial derivatives by many columns at once, by the chain rule from the root down.

    Each node is visited once, whatever the number of columns, and what it contributes is one
    shared node. Columns that the function does not read are absent; None as for
    :func:`derivative`.
    """
    order = postorder(root)
    moving: set[int] = set()
    for node in order:
        inner = node.arguments if isinstance(node, Call) else ()
        if any(id(a) in moving for a in inner) or (isinstance(node, Col) and node.index in wanted):
            moving.add(id(node))
    parts: dict[int, list[Scalar]] = {id(root): [ONE]}
    slopes: dict[int, list[Scalar]] = {}
    kinks: set[int] = set()
    for node in reversed(order):
        if id(node) not in moving:
            continue
        # Users of a node come in the opposite order here.
        total = add(*reversed(parts.get(id(node), [])))
        if isinstance(node, Col):
            slopes.setdefault(node.index, []).append(total)
        elif isinstance(node, Call):
            for k, argument in enumerate(node.arguments):
                if id(argument) in moving:
                    made = _partial(node, k)
                    if made is None:
                        kinks |= columns([argument])
                    else:
                        parts.setdefault(id(argument), []).append(_product(total, made))
    found: dict[int, Scalar | None] = {j: add(*reversed(s)) for j, s in slopes.items()}
    return found | {j: None for j in kinks if j in wanted}


def _partial(node: Call, k: int) -> Scalar | None:
    """The derivative of a call by its k-th argument."""
    if node.function == "add":
        return ONE
    return _chain(node, [ONE if n == k else ZERO for n in range(len(node.arguments))])


def _chain(node: Call, inner: list[Scalar]) -> Scalar | None:
    args = node.arguments
    minus = Num(-1.0)
    match node.function:
        case "add":
            return add(*inner)
        case "mul":
            return add(
                *(_product(*args[:k], d, *args[k + 1 :]) for k, d in enumerate(inner) if d != ZERO)
            )
        case "div":
            first = div(inner[0], args[1])
            return add(first, mul(minus, div(mul(args[0], inner[1]), power(args[1], Num(2.0)))))
        case "pow":
            return _power_rule(args[0], args[1], inner)
        case function:
            slope = _SLOPES.get(function)
            return None if slope is None else mul(slope(args[0]), inner[0])


def _product(*factors: Scalar) -> Scalar:
    """The product of slopes, without reciprocals of its factors: that of ``p log(p)`` is ``1 +
    log(p)``, which has its value at 0 where ``p / p`` has none.
    """
    flat = [part for factor in factors for part in _opened(factor, "mul")]
    for quotient in [f for f in flat if isinstance(f, Call) and f.function == "div"]:
        top, below = quotient.arguments
        same = (k for k, f in enumerate(flat) if f is below or (isinstance(f, Col) and f == below))
        k = next(same, None) if top == ONE else None
        if k is not None:
            del flat[k]
            flat.remove(quotient)
    return mul(*flat)


def _power_rule(base: Scalar, exponent: Scalar, inner: list[Scalar]) -> Scalar:
    parts: list[Scalar] = []
    if inner[0] != ZERO:
        parts.append(mul(exponent, power(base, add(exponent, Num(-1.0))), inner[0]))
    if inner[1] != ZERO:
        parts.append(mul(power(base, exponent), call("log", base), inner[1]))
    return add(*parts)


_SLOPES: dict[str, Callable[[Scalar], Scalar]] = {
    "exp": lambda a: call("exp", a),
    "log": lambda a: div(ONE, a),
    "sqrt": lambda a: div(Num(0.5), call("sqrt", a)),
    "sin": lambda a: call("cos", a),
    "cos": lambda a: mul(Num(-1.0), call("sin", a)),
    "tan": lambda a: add(ONE, power(call("tan", a), Num(2.0))),
    "atan": lambda a: div(ONE, add(ONE, power(a, Num(2.0)))),
    "sinh": lambda a: call("cosh", a),
    "cosh": lambda a: call("sinh", a),
    "tanh": lambda a: add(ONE, mul(Num(-1.0), power(call("tanh", a), Num(2.0)))),
}
