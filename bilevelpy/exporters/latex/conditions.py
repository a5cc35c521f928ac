"""The reformulations of a model in LaTeX, row by row, as the other formats write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.exporters.conditions import Line, Writer, slack_tree
from bilevelpy.exporters.expressions import Style
from bilevelpy.exporters.latex.symbols import escape, number, symbol
from bilevelpy.exporters.naming import Namer
from bilevelpy.reductions.linearization.mixed import Mixed, big_m, indicators
from bilevelpy.reductions.linearization.strong_duality import strong_duality
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

if TYPE_CHECKING:
    from bilevelpy.exporters.base import Options
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.optimality.conditions import KKT

TARGET = "LaTeX of a reformulation"
FUNCTIONS = {
    f: rf"\{f}\left({{0}}\right)"
    for f in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh")
} | {
    "atan": r"\arctan\left({0}\right)",
    "sqrt": r"\sqrt{{{0}}}",
    "abs": r"\left|{0}\right|",
    "max": r"\max\left({0}, {1}\right)",
    "min": r"\min\left({0}, {1}\right)",
}
STYLE = Style(FUNCTIONS, lambda base, exponent, whole: f"{{{base}}}^{{{exponent}}}", number)
# What a reformulation adds, by the first part of its name.
ADDED = {
    "lam": r"\lambda",
    "mu": r"\mu",
    "nu": r"\nu",
    "slack": "s",
    "z": "z",
    "bit": "b",
}
FORMS = ("complements", "sos1", "products", "indicators", "big-m", "strong-duality")


def conditions_block(
    bound: BoundProgram, options: Options, form: str
) -> tuple[str, tuple[str, ...]]:
    """The ``aligned`` block of one level, and warnings.

    Raises
    ------
    Refused
        Where the conditions may not stand for a follower.
    """
    found = kkt(lift(system(bound)), TARGET, options.force)
    mixed: Mixed | None = None
    if form == "indicators":
        mixed = indicators(found)
    elif form == "big-m":
        mixed = big_m(found, options.dual_bound, TARGET)
    elif form == "strong-duality":
        mixed = strong_duality(found, options.dual_bound, TARGET)
    columns = found.columns if mixed is None else mixed.columns
    rows = found.rows if mixed is None else mixed.rows
    objective = found.objective if mixed is None else mixed.objective
    # Names are already symbols: the writer takes them as they are.
    shown = tuple(_symbol(n) for n in columns.names)
    write = Writer(bound, TARGET, STYLE, Namer(r"\s\S"), ())
    write.names = shown
    sign = found.system.sign
    word = r"\min" if sign > 0 else r"\max"
    span = bound.program.upper.objective.span
    body = write.function(objective.scaled(sign), 0, span)
    lines = [rf"{word} \; & {_text(body)}"]
    lines += [_row(line) for line in write.lines(rows)]
    if mixed is None:
        lines += _pairs(found, write, form, options.epsilon)
    for indicator in mixed.indicators if mixed is not None else ():
        terms = " + ".join(
            (f"{number(c)} \\, " if c != 1.0 else "") + shown[j] for j, c in indicator.terms
        )
        lines.append(
            rf"& {shown[indicator.binary]} = {indicator.value} \;\Rightarrow\; {terms} \le "
            f"{number(indicator.bound)}"
        )
    lines += _bounds(columns, shown)
    text = " \\\\\n".join(f"  {line}" for line in lines)
    return f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}", found.warnings


def _symbol(name: str) -> str:
    """``w[3,a]`` as ``w_{3,a}``; a multiplier carries its row above."""
    first, _, rest = name.partition(".")
    if rest and first in ADDED:
        return rf"{ADDED[first]}^{{\text{{{_plain(rest)}}}}}"
    head, bracket, inside = name.partition("[")
    made = symbol(head) if head.isalnum() else rf"\text{{{_plain(head)}}}"
    if not bracket:
        return made
    # A name such as y_1 has an index already.
    lead = f"{{{made}}}" if "_" in made else made
    return rf"{lead}_{{\text{{{_plain(inside.rstrip(']'))}}}}}"


def _plain(text: str) -> str:
    """Text that every reader of LaTeX takes: letters beyond ASCII need a font for them."""
    return escape("".join(c if c.isascii() else "?" for c in text))


def _text(body: str) -> str:
    return body.replace("*", r" \, ")


def _row(line: Line) -> str:
    body = _text(line.body)
    if line.low == line.high:
        return f"& {body} = {number(line.high + 0.0)}"
    low = "" if line.low == -np.inf else rf"{number(line.low)} \le "
    high = "" if line.high == np.inf else rf" \le {number(line.high)}"
    return f"& {low}{body}{high}"


def _pairs(found: KKT, write: Writer, form: str, epsilon: float) -> list[str]:
    lines = []
    for pair in found.pairs:
        slack = _text(write.tree(slack_tree(found, pair), pair.span))
        multiplier = write.names[pair.multiplier]
        if form == "complements":
            lines.append(rf"& 0 \le {slack} \perp {multiplier} \ge 0")
        elif form == "sos1":
            lines.append(rf"& \left\{{{slack}, \; {multiplier}\right\}} \in \text{{SOS1}}")
        else:
            lines.append(rf"& \left({slack}\right) {multiplier} \le {number(epsilon)}")
        if form != "complements":
            lines.append(rf"& {slack} \ge 0")
    return lines


def _bounds(columns: Columns, shown: tuple[str, ...]) -> list[str]:
    lines = []
    for name, low, high, whole in zip(
        shown, columns.lower, columns.upper, columns.integer, strict=True
    ):
        if whole and (low, high) == (0.0, 1.0):
            lines.append(rf"& {name} \in \{{0, 1\}}")
            continue
        left = "" if low == -np.inf else rf"{number(float(low))} \le "
        right = "" if high == np.inf else rf" \le {number(float(high))}"
        tail = r" \in \mathbb{Z}" if whole else ""
        if whole and (left or right):
            tail = rf", \; {name} \in \mathbb{{Z}}"
        if left or right or whole:
            lines.append(f"& {left}{name}{right}{tail}")
    return lines
