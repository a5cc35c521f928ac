"""The leaves of expressions in LaTeX: numbers, names and what indexes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bilevelpy.exporters.latex.sets import Place, set_text
from bilevelpy.exporters.latex.symbols import escape, indexed, number, symbol
from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.exporters.latex.terms import Terms

# How tightly a text binds.
SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4
Text = tuple[str, int]
Indices = tuple[str, ...]


def _raised(shown: str) -> Text:
    """A name or a number, which binds like a power where it has a superscript: TeX takes one."""
    return shown, SUM if shown.startswith("-") else POWER if "^" in shown else ATOM


def _const(t: Terms, n: ir.Const, at: Indices, used: Indices) -> Text:
    return _raised(number(n.value))


def _fill(t: Terms, n: ir.Fill, at: Indices, used: Indices) -> Text:
    return _raised(number(n.value))


def _array(t: Terms, n: ir.Array, at: Indices, used: Indices) -> Text:
    values = ", ".join(number(v) for v in n.values[:8]) + (r", \dots" if len(n.values) > 8 else "")
    return indexed(rf"\left[{values}\right]", at), ATOM


def _eye(t: Terms, n: ir.Eye, at: Indices, used: Indices) -> Text:
    return indexed(r"\delta", at), ATOM


def _param(t: Terms, n: ir.ParamRef, at: Indices, used: Indices) -> Text:
    return indexed(symbol(n.name), at), ATOM


def _var(t: Terms, n: ir.VarRef, at: Indices, used: Indices) -> Text:
    return _raised(t.variable(n.level, n.name, at))


def _dual(t: Terms, n: ir.DualRef, at: Indices, used: Indices) -> Text:
    return _raised(indexed(rf"\pi^{{\mathrm{{{escape(n.level)}.{escape(n.constraint)}}}}}", at))


def _size(t: Terms, n: ir.Size, at: Indices, used: Indices) -> Text:
    return rf"\lvert {set_text(t, n.axis, used)} \rvert", ATOM


def _own_index(t: Terms, n: Any, at: Indices, used: Indices) -> Text:
    return at[0], ATOM


def _component(t: Terms, n: ir.Component, at: Indices, used: Indices) -> Text:
    if len(n.axis.parents) == 1:
        return at[0], ATOM
    if isinstance(at[0], Place):
        return at[0].parts[n.part], ATOM
    return rf"{{{at[0]}}}_{{({n.part + 1})}}", ATOM


def _label(t: Terms, n: ir.LabelPosition, at: Indices, used: Indices) -> Text:
    parts = n.label if isinstance(n.label, tuple) else (n.label,)
    return ", ".join(
        rf"\text{{{escape(str(p))}}}" if isinstance(p, str) else str(p) for p in parts
    ), ATOM


def _locate(t: Terms, n: ir.Locate, at: Indices, used: Indices) -> Text:
    parts = tuple(t.show(v, at if v.axes else (), used) for v in n.values)
    return (parts[0] if len(parts) == 1 else Place(parts)), ATOM


LEAVES: dict[type[ir.Expr], Callable[[Terms, Any, Indices, Indices], Text]] = {
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
}
