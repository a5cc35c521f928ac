"""Expressions of the IR in LaTeX, in index notation: every axis of a tensor is an index.

A node is printed for given index texts, one for each of its axes; sums introduce new letters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE

if TYPE_CHECKING:
    from bilevelpy.ir.program import Program
    from bilevelpy.ir.types import Axis

LETTERS = "ijklmnpqrstuvw"
SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4
Text = tuple[str, int]
Indices = tuple[str, ...]

GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "pi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Phi",
        "Psi",
        "Omega",
    ]
)
_ESCAPES = {"\\": r"\backslash ", "_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$",
            "{": r"\{", "}": r"\}", "^": r"\hat{}", "~": r"\sim "}  # fmt: skip


def escape(text: str) -> str:
    """Text that is safe in LaTeX."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def symbol(name: str) -> str:
    """A name as a symbol: letters, Greek ones by name, words upright."""
    if len(name) == 1:
        return name
    if name in GREEK:
        return f"\\{name}"
    stem = name.rstrip("0123456789")
    if stem and stem != name and (len(stem) == 1 or stem in GREEK):
        return f"{symbol(stem)}_{{{name[len(stem) :]}}}"
    return rf"\mathrm{{{escape(name)}}}"


def number(value: float) -> str:
    """A number; powers of ten as such."""
    if value in (float("inf"), float("-inf")):
        return r"\infty" if value > 0 else r"-\infty"
    text = f"{value:.12g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        front = "" if mantissa == "1" else "-" if mantissa == "-1" else rf"{mantissa} \cdot "
        return f"{front}10^{{{int(exponent)}}}"
    return text


def axis_text(axis: Axis) -> str:
    """An index set."""
    if axis.name.isidentifier():
        return symbol(axis.name)
    return rf"\{{\text{{{escape(axis.name)}}}\}}"


class Terms:
    """Prints expressions of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        names = {**program.params, **program.externs}
        self._avoid = {n for n in names if len(n) == 1}
        self._avoid |= {n for n in program.axes if len(n) == 1}
        self._avoid |= {v.name for level in program.levels for v in level.variables}
        counts: dict[str, int] = {}
        for level in program.levels:
            for v in level.variables:
                counts[v.name] = counts.get(v.name, 0) + 1
        self._shared = {name for name, n in counts.items() if n > 1}

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
        return _RULES[type(node)](self, node, at, used)

    def inside(self, node: ir.Expr, at: Indices, used: Indices, least: int) -> str:
        """An operand, in parentheses where it binds less tightly."""
        shown, level = self.text(node, at if node.axes else (), used)
        return shown if level >= least else rf"\left({shown}\right)"


def indexed(shown: str, at: Indices) -> str:
    """A symbol with indices."""
    if not at:
        return shown
    return f"{{{shown}}}_{{{', '.join(at)}}}" if "_" in shown else f"{shown}_{{{', '.join(at)}}}"


def _const(t: Terms, n: ir.Const, at: Indices, used: Indices) -> Text:
    shown = number(n.value)
    return shown, SUM if shown.startswith("-") else ATOM


def _fill(t: Terms, n: ir.Fill, at: Indices, used: Indices) -> Text:
    shown = number(n.value)
    return shown, SUM if shown.startswith("-") else ATOM


def _array(t: Terms, n: ir.Array, at: Indices, used: Indices) -> Text:
    values = ", ".join(number(v) for v in n.values[:8]) + (r", \dots" if len(n.values) > 8 else "")
    return indexed(rf"\left[{values}\right]", at), ATOM


def _eye(t: Terms, n: ir.Eye, at: Indices, used: Indices) -> Text:
    return indexed(r"\delta", at), ATOM


def _param(t: Terms, n: ir.ParamRef, at: Indices, used: Indices) -> Text:
    return indexed(symbol(n.name), at), ATOM


def _var(t: Terms, n: ir.VarRef, at: Indices, used: Indices) -> Text:
    return t.variable(n.level, n.name, at), ATOM


def _dual(t: Terms, n: ir.DualRef, at: Indices, used: Indices) -> Text:
    return indexed(rf"\pi^{{\mathrm{{{escape(n.level)}.{escape(n.constraint)}}}}}", at), ATOM


def _size(t: Terms, n: ir.Size, at: Indices, used: Indices) -> Text:
    return rf"\lvert {axis_text(n.axis)} \rvert", ATOM


def _own_index(t: Terms, n: Any, at: Indices, used: Indices) -> Text:
    return at[0], ATOM


def _component(t: Terms, n: ir.Component, at: Indices, used: Indices) -> Text:
    if len(n.axis.parents) == 1:
        return at[0], ATOM
    return rf"{{{at[0]}}}_{{({n.part + 1})}}", ATOM


def _label(t: Terms, n: ir.LabelPosition, at: Indices, used: Indices) -> Text:
    parts = n.label if isinstance(n.label, tuple) else (n.label,)
    return ", ".join(
        rf"\text{{{escape(str(p))}}}" if isinstance(p, str) else str(p) for p in parts
    ), ATOM


def _locate(t: Terms, n: ir.Locate, at: Indices, used: Indices) -> Text:
    return ", ".join(t.show(v, at if v.axes else (), used) for v in n.values), ATOM


def _apply(t: Terms, n: ir.Apply, at: Indices, used: Indices) -> Text:
    name, operands = n.function, n.operands
    if name == "add":
        # Numbers and signs last read better than the canonical order does.
        parts = [t.inside(o, at, used, SUM) for o in operands]
        parts.sort(key=lambda p: p.startswith("-"))
        shown = parts[0]
        for part in parts[1:]:
            shown += f" - {part[1:].lstrip()}" if part.startswith("-") else f" + {part}"
        return shown, SUM
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
    axis_of = {
        s: a for o, labels in zip(n.operands, n.subscripts, strict=True)
        for s, a in zip(labels, o.axes, strict=True)
    }  # fmt: skip
    summed = [s for s in axis_of if s not in index]
    fresh = t.letters(len(summed), used)
    index |= dict(zip(summed, fresh, strict=True))
    used = (*used, *fresh)
    top: list[str] = []
    bottom: list[str] = []
    # Numbers and data stand in front of what is decided.
    order = sorted(
        range(len(n.operands)), key=lambda k: not t.program.builder.is_data(n.operands[k])
    )
    for k in order:
        operand, labels = n.operands[k], n.subscripts[k]
        place = tuple(index[s] for s in labels)
        if isinstance(operand, ir.Apply) and operand.function == "recip":
            inner = operand.operands[0]
            bottom.append(t.inside(inner, place if inner.axes else (), used, PRODUCT))
        else:
            top.append(t.inside(operand, place, used, PRODUCT))
    body = r" \, ".join(top) if top else "1"
    if bottom:
        body = rf"\frac{{{body}}}{{{r' '.join(bottom)}}}"
    if not summed:
        return body, PRODUCT if len(top) > 1 else POWER
    return _sums(fresh, [axis_of[s] for s in summed]) + body, PRODUCT


def _sums(letters: Indices, axes: list[Axis]) -> str:
    return "".join(rf"\sum_{{{c} \in {axis_text(a)}}} " for c, a in zip(letters, axes, strict=True))


def _align(t: Terms, n: ir.Align, at: Indices, used: Indices) -> Text:
    place = [""] * n.operand.rank
    for d, s in enumerate(n.source):
        if s is not None:
            place[s] = at[d]
    return t.text(n.operand, tuple(place), used)


def _reduce(t: Terms, n: ir.Reduce, at: Indices, used: Indices) -> Text:
    fresh = t.letters(len(n.dims), used)
    rest = iter(at)
    new = iter(fresh)
    place = tuple(next(new) if d in n.dims else next(rest) for d in range(n.operand.rank))
    inner_used = (*used, *fresh)
    sets = ", ".join(
        rf"{c} \in {axis_text(n.operand.axes[d])}" for c, d in zip(fresh, n.dims, strict=True)
    )
    if n.function == "sum":
        body = t.inside(n.operand, place, inner_used, PRODUCT)
        return _sums(fresh, [n.operand.axes[d] for d in n.dims]) + body, PRODUCT
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
    (fresh,) = t.letters(1, used)
    top = t.inside(n.operand, at, used, SUM)
    other = t.inside(n.operand, (*at[:-1], fresh), (*used, fresh), SUM)
    total = rf"\sum_{{{fresh} \in {axis_text(n.axes[-1])}}} \exp\left({other}\right)"
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
    (fresh,) = t.letters(1, used)
    inner_used = (*used, fresh)
    count = len(n.index)
    where = ", ".join(
        f"{t.show(i, (fresh,), inner_used)} = {c}" for i, c in zip(n.index, at[:count], strict=True)
    )
    body = t.inside(n.operand, (fresh, *at[count:]), inner_used, PRODUCT)
    axis = axis_text(n.operand.axes[0])
    return rf"\sum_{{{fresh} \in {axis} : {where}}} {body}", PRODUCT


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
    ir.Const: _const,
    ir.Fill: _fill,
    ir.Array: _array,
    ir.Eye: _eye,
    ir.ParamRef: _param,
    ir.VarRef: _var,
    ir.DualRef: _dual,
    ir.Size: _size,
    ir.Position: _own_index,
    ir.Coordinate: _own_index,
    ir.Component: _component,
    ir.LabelPosition: _label,
    ir.Locate: _locate,
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
