"""Scalar trees as text, in the spelling of a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bilevelpy.exporters.naming import number
from bilevelpy.reductions import scalar as sc

SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4
TEXT_LIMIT = 20_000_000
"""Characters of one expression; shared subtrees are written out wherever they occur."""
LONGEST = 500
"""Terms of a sum that stand one after another; longer ones are sums of sums."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a target writes expressions.

    ``functions`` maps names of :mod:`bilevelpy.reductions.scalar` to templates with ``{0}`` (and
    ``{1}`` for max and min); what is missing the target cannot say. ``power`` writes a power from
    its base, its exponent and, where that is a whole number, its value. ``grouped`` puts all
    factors but the first in parentheses.
    """

    functions: Mapping[str, str]
    power: Callable[[str, str, int | None], str] = lambda a, b, whole: f"{a}^{b}"
    number: Callable[[float], str] = field(default=number)
    grouped: bool = False


def simple(names: str, prefix: str = "", **others: str) -> dict[str, str]:
    """Templates of functions that are called by ``prefix`` and their own name."""
    return {n: f"{prefix}{n}({{0}})" for n in names.split()} | others


def unsupported(style: Style, tree: sc.Scalar) -> set[str]:
    """Functions of a tree that a target cannot say."""
    return {
        f
        for f in sc.functions(tree)
        if f not in ("add", "mul", "div", "pow") and f not in style.functions
    }


def text(style: Style, tree: sc.Scalar, names: Sequence[str]) -> str:
    """A tree as text; the names are those of the columns."""
    known: dict[int, tuple[str, int]] = {}
    for node in sc.postorder(tree):
        if isinstance(node, sc.Num):
            shown = style.number(node.value)
            known[id(node)] = (shown, SUM if shown.startswith("-") else ATOM)
        elif isinstance(node, sc.Col):
            known[id(node)] = (names[node.index], ATOM)
        else:
            known[id(node)] = _call(style, node, [known[id(a)] for a in node.arguments])
            if len(known[id(node)][0]) > TEXT_LIMIT:
                raise MemoryError("an expression of the model is too long to be written out")
    return known[id(tree)][0]


def _call(style: Style, node: sc.Call, parts: list[tuple[str, int]]) -> tuple[str, int]:
    match node.function:
        case "add":
            return _sum([p[0] for p in parts]), SUM
        case "mul":
            return _product(node, parts, style.grouped)
        case "div":
            top = _inside(parts[0], PRODUCT)
            return f"{top}/{_inside(parts[1], POWER)}", PRODUCT
        case "pow":
            exponent = node.arguments[1]
            whole = None
            if isinstance(exponent, sc.Num) and exponent.value == int(exponent.value):
                whole = int(exponent.value)
            return style.power(_inside(parts[0], ATOM), _inside(parts[1], ATOM), whole), POWER
        case function:
            return style.functions[function].format(*(p[0] for p in parts)), ATOM


def _sum(parts: list[str]) -> str:
    # Parsers nest a sum as deeply as it is long, and Python's give up at a few thousand.
    while len(parts) > LONGEST:
        groups = [parts[k : k + LONGEST] for k in range(0, len(parts), LONGEST)]
        parts = [f"({_sum(group)})" if len(group) > 1 else group[0] for group in groups]
    found = parts[0]
    for part in parts[1:]:
        found += f" - {part[1:]}" if part.startswith("-") else f" + {part}"
    return found


def _product(node: sc.Call, parts: list[tuple[str, int]], grouped: bool) -> tuple[str, int]:
    first = node.arguments[0]
    sign = ""
    if isinstance(first, sc.Num):
        if first.value == -1.0:
            sign, parts = "-", parts[1:]
        elif first.value < 0:
            sign, parts = "-", [(parts[0][0].removeprefix("-"), ATOM), *parts[1:]]
    body = "*".join(_inside(p, PRODUCT) for p in parts)
    if grouped and len(parts) > 2:
        rest = "*".join(_inside(p, PRODUCT) for p in parts[1:])
        body = f"{_inside(parts[0], PRODUCT)}*({rest})"
    # A product with a sign in front has to be enclosed wherever a product does not.
    return sign + body, SUM if sign else PRODUCT


def _inside(part: tuple[str, int], least: int) -> str:
    return part[0] if part[1] >= least else f"({part[0]})"
