"""Expressions of the IR in LaTeX, in index notation: every axis of a tensor is an index.

A node is printed for given index texts, one for each of its axes; sums introduce new letters
(``latex_sets``). What is a sum can be had in its summands, in the order of the text, so that long
formulas break between them (``latex_layout``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bilevelpy.exporters.latex.layout import joined
from bilevelpy.exporters.latex.leaves import ATOM, LEAVES, POWER, PRODUCT, SUM, Indices, Text
from bilevelpy.exporters.latex.sets import run, runs, split_axes, unnamed
from bilevelpy.exporters.latex.symbols import escape, indexed, number, symbol
from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE
from bilevelpy.reductions.refusal import Refused, refuse

if TYPE_CHECKING:
    from bilevelpy.exporters.latex.sets import Run
    from bilevelpy.ir.program import Program

# Expressions that are written, and how deep they stand in each other: formulas have no names for
# what a model shares.
MOST, DEEPEST = 200_000, 210
LETTERS = "ijklmnpqrstuvw"


class Terms:
    """Prints expressions of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.split = split_axes(program)
        names = {**program.params, **program.externs}
        self._avoid = {n for n in names if len(n) == 1}
        self._avoid |= {n for n in program.axes if len(n) == 1}
        self._avoid |= {v.name for level in program.levels for v in level.variables}
        counts: dict[str, int] = {}
        for level in program.levels:
            for v in level.variables:
                counts[v.name] = counts.get(v.name, 0) + 1
        self._shared = {name for name, n in counts.items() if n > 1}
        self._written = self._depth = 0

    def letters(self, count: int, used: tuple[str, ...]) -> Indices:
        """New index letters."""
        taken = {*used, *self._avoid}
        free = [c for c in LETTERS if c not in taken]
        free += [f"i_{{{k}}}" for k in range(1, count + len(used) + 1) if f"i_{{{k}}}" not in taken]
        return tuple(free[:count])

    def show(self, node: ir.Expr, at: Indices = (), used: Indices = ()) -> str:
        """An expression at given indices."""
        return self.text(node, at, used or at)[0]

    def variable(self, level: str, name: str, at: Indices) -> str:
        """A variable with its indices; one whose name two levels share shows its level."""
        shown = symbol(name)
        if name in self._shared:
            shown = f"{shown}^{{{symbol(level)}}}"
        return indexed(shown, at)

    def text(self, node: ir.Expr, at: Indices, used: Indices) -> Text:
        """An expression and how tightly it binds."""
        self._written += 1
        if self._written > MOST or self._depth > DEEPEST:
            raise self._too_deep(node)
        self._depth += 1
        try:
            return _RULES[type(node)](self, node, at, used)
        except RecursionError:  # whoever asks may stand deep himself: an editor's server does
            if self._depth > 1:
                raise
            raise self._too_deep(node) from None
        finally:
            self._depth -= 1

    def _too_deep(self, node: ir.Expr) -> Refused:
        what = "an expression of this length or depth, without the names of its parts"
        return refuse(self.program, "BLV0701", node.span, target="LaTeX", what=what)

    def summands(self, node: ir.Expr, at: Indices, used: Indices) -> list[str]:
        """The terms of a sum, in the order of the text but for signs, which follow; any other
        expression is one term.
        """
        if not isinstance(node, ir.Apply) or node.function != "add":
            return [self.inside(node, at, used, SUM)]
        found = [
            (o.span.start if o.span is not None else 0, self.inside(o, at, used, SUM))
            for o in node.operands
        ]
        found.sort(key=lambda part: (part[1].startswith("-"), part[0]))
        return [text for _, text in found]

    def inside(self, node: ir.Expr, at: Indices, used: Indices, least: int) -> str:
        """An operand, in parentheses where it binds less tightly."""
        shown, level = self.text(node, at if node.axes else (), used)
        return shown if level >= least else rf"\left({shown}\right)"


def _apply(t: Terms, n: ir.Apply, at: Indices, used: Indices) -> Text:
    name, operands = n.function, n.operands
    if name == "add":
        return joined(t.summands(n, at, used)), SUM
    if name in ("and", "or", "not"):
        shown_parts = [
            rf"\left({text}\right)"
            if isinstance(o, ir.Apply) and o.function in ("and", "or")
            else text
            for o, text in ((o, t.inside(o, at, used, SUM)) for o in operands)
        ]
        sign = r" \wedge " if name == "and" else r" \vee "
        return (rf"\neg {shown_parts[0]}" if name == "not" else sign.join(shown_parts)), SUM
    if name == "neg":
        return f"-{t.inside(operands[0], at, used, PRODUCT)}", SUM
    if name == "recip":
        return rf"\frac{{1}}{{{t.inside(operands[0], at, used, SUM)}}}", POWER
    if name == "square":
        return f"{t.inside(operands[0], at, used, ATOM)}^{{2}}", POWER
    if name == "pow":
        base, exponent = t.inside(operands[0], at, used, ATOM), t.inside(operands[1], at, used, SUM)
        return f"{base}^{{{exponent}}}", POWER
    parts = [t.inside(o, at, used, SUM) for o in operands]
    enclosed = name in (
        "sqrt",
        "abs",
        "softplus",
        "maximum",
        "minimum",
        "relu",
        "expm1",
        "log1p",
        "sigmoid",
        "huber",
    )
    if not enclosed and len(parts) == 1:
        parts = [rf"\left({parts[0]}\right)"]
    shown = ELEMENTWISE[name].latex.format(*parts)
    return shown, ATOM if enclosed or len(parts) == 1 else SUM


def _einsum(t: Terms, n: ir.Einsum, at: Indices, used: Indices) -> Text:
    index = dict(zip(n.output, at, strict=True))
    axis_of = n.axis_of
    summed = [s for s in axis_of if s not in index]
    over = runs(t, tuple(axis_of[s] for s in summed), used)
    index |= {s: r.place for s, r in zip(summed, over, strict=True)}
    used = (*used, *(c for r in over for c in r.letters))
    top: list[str] = []
    bottom: list[str] = []
    factor = 1.0
    # Numbers and data stand in front of what is decided.
    order = sorted(
        range(len(n.operands)), key=lambda k: not t.program.builder.is_data(n.operands[k])
    )
    for k in order:
        operand, labels = n.operands[k], n.subscripts[k]
        place = tuple(index[s] for s in labels)
        if isinstance(operand, ir.Const):
            factor *= operand.value
        elif isinstance(operand, ir.Apply) and operand.function == "recip":
            inner = operand.operands[0]
            bottom.append(t.inside(inner, place if inner.axes else (), used, PRODUCT))
        else:
            top.append(t.inside(operand, place, used, PRODUCT))
    sign = "-" if factor < 0 else ""
    front = [] if abs(factor) == 1.0 and top else [number(abs(factor))]
    body = _product(front, top, r" \, ".join(bottom))
    if summed:
        body = _sums(over) + body
    level = SUM if sign else PRODUCT if summed or len(front + top) > 1 or bottom else POWER
    return sign + body, level


def _product(front: list[str], top: list[str], bottom: str) -> str:
    """Factors over ``bottom``; a long sum stands beside its divisor, not above."""
    if not bottom:
        return r" \, ".join(front + top)
    tall = [f for f in top if r"\sum" in f]
    above = front + [f for f in top if f not in tall]
    numerator = r" \, ".join(above) or "1"
    return r" \, ".join([rf"\frac{{{numerator}}}{{{bottom}}}", *tall])


def _sums(over: list[Run]) -> str:
    return "".join(rf"\sum_{{{r.under}}} " for r in over)


def _align(t: Terms, n: ir.Align, at: Indices, used: Indices) -> Text:
    place = [""] * n.operand.rank
    for d, s in enumerate(n.source):
        if s is not None:
            place[s] = at[d]
    return t.text(n.operand, tuple(place), used)


def _reduce(t: Terms, n: ir.Reduce, at: Indices, used: Indices) -> Text:
    over = runs(t, tuple(n.operand.axes[d] for d in n.dims), used)
    rest = iter(at)
    new = iter(r.place for r in over)
    place = tuple(next(new) if d in n.dims else next(rest) for d in range(n.operand.rank))
    inner_used = (*used, *(c for r in over for c in r.letters))
    sets = ", ".join(r.under for r in over)
    if n.function == "sum":
        return _sums(over) + t.inside(n.operand, place, inner_used, PRODUCT), PRODUCT
    if n.function == "prod":
        return rf"\prod_{{{sets}}} {t.inside(n.operand, place, inner_used, PRODUCT)}", PRODUCT
    body = t.inside(n.operand, place, inner_used, SUM)
    if n.function == "logsumexp":
        return rf"\log \sum_{{{sets}}} \exp\left({body}\right)", PRODUCT
    if n.function == "norm2":
        return rf"\Bigl(\sum_{{{sets}}} \left({body}\right)^{{2}}\Bigr)^{{1/2}}", POWER
    if n.function == "any":
        return rf"\bigvee_{{{sets}}} {body}", PRODUCT
    return rf"\{n.function}_{{{sets}}} \left({body}\right)", PRODUCT


def _map_last(t: Terms, n: ir.MapLast, at: Indices, used: Indices) -> Text:
    over = run(t, n.axes[-1], used)
    top = t.inside(n.operand, at, used, SUM)
    other = t.inside(n.operand, (*at[:-1], over.place), (*used, *over.letters), SUM)
    total = rf"\sum_{{{over.under}}} \exp\left({other}\right)"
    if n.function == "softmax":
        return rf"\frac{{\exp\left({top}\right)}}{{{total}}}", POWER
    return rf"{top} - \log {total}", SUM


def _matrix(t: Terms, n: ir.Matrix, at: Indices, used: Indices) -> Text:
    inner = t.inside(n.operand, (*at, r"\cdot", r"\cdot"), used, SUM)
    if n.function == "logdet":
        return rf"\log\det\left({inner}\right)", PRODUCT
    return rf"\left\lVert {inner} \right\rVert_{{2}}", ATOM


def _gather(t: Terms, n: ir.Gather, at: Indices, used: Indices) -> Text:
    given = [i for i in n.index if i is not None]
    front = at[: given[0].rank]
    rest = iter(at[given[0].rank :])
    place = tuple(next(rest) if i is None else t.show(i, front, used) for i in n.index)
    return t.text(n.operand, place, used)


def _scatter(t: Terms, n: ir.ScatterSum, at: Indices, used: Indices) -> Text:
    axis = n.operand.axes[0]
    places = list(zip(n.index, at, strict=False))
    # What is summed into place i is what has i for a part: that part keeps its letter.
    known = {
        i.part: c for i, c in places
        if isinstance(i, ir.Component) and i.axis is axis and unnamed(axis)
    }  # fmt: skip
    over = run(t, axis, used, known)
    inner_used = (*used, *over.letters)
    others = tuple(
        f"{t.show(i, (over.place,), inner_used)} = {c}" for i, c in places
        if not (isinstance(i, ir.Component) and known.get(i.part) == c)
    )  # fmt: skip
    over = replace(over, conditions=(*over.conditions, *others))
    body = t.inside(n.operand, (over.place, *at[len(places) :]), inner_used, PRODUCT)
    return _sums([over]) + body, PRODUCT


def _concat(t: Terms, n: ir.Concat, at: Indices, used: Indices) -> Text:
    parts = ", ".join(t.show(o, (r"\cdot", *at[1:]), used) for o in n.operands)
    return indexed(rf"\left[{parts}\right]", at[:1]), ATOM


def _diag(t: Terms, n: ir.Diag, at: Indices, used: Indices) -> Text:
    inner = t.inside(n.operand, at[:-1], used, PRODUCT)
    return rf"{inner} \, \delta_{{{at[-2]}, {at[-1]}}}", PRODUCT


def _extern(t: Terms, n: ir.ExternCall, at: Indices, used: Indices) -> Text:
    parts = ", ".join(t.show(o, (r"\cdot",) * o.rank, used) for o in n.operands)
    return indexed(rf"\operatorname{{{escape(n.name)}}}\left({parts}\right)", at), ATOM


_RULES: dict[type[ir.Expr], Callable[[Terms, Any, Indices, Indices], Text]] = {
    **LEAVES,
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _align,
    ir.Reduce: _reduce,
    ir.MapLast: _map_last,
    ir.Matrix: _matrix,
    ir.Gather: _gather,
    ir.ScatterSum: _scatter,
    ir.Concat: _concat,
    ir.Diag: _diag,
    ir.ExternCall: _extern,
}
