"""A SymPy program: every function of the model as an expression, with derivatives on request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Writer
from bilevelpy.exporters.header import header
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.parts import parts_of_levels
from bilevelpy.exporters.python.python_script import (
    ALL,
    PYTHON,
    TABLES,
    docstring,
    members,
    packed,
    python_names,
    style,
    table_range,
)
from bilevelpy.reductions.rows import Rows, system

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.rows import System

STYLE = style("sp.", abs="sp.Abs({0})", max="sp.Max({0}, {1})", min="sp.Min({0}, {1})")
TARGET = "a SymPy program"
# Python's own sum would sort the terms anew for each one that joins.
SYMPY = replace(
    PYTHON,
    total=lambda body, inner, table, index: (
        f"sp.Add(*({body} for {inner} in {table_range(table, index)}))"
    ),
)
TAIL = """
gradients = [[sp.diff(value, v) for v in group] for value, group in zip(f, y)]

if __name__ == "__main__":
    point = {symbol: start for symbol, _, _, start in variables}
    print("F =", SIGN * sp.N(F.subs(point)))
    print("f =", [float(sp.N(sp.sympify(value).subs(point))) for value in f])
    print("grad f =", [[float(sp.N(g.subs(point))) for g in row] for row in gradients])
"""


class SympyScript:
    """Any model that can be written entry by entry."""

    name: ClassVar[str] = "sympy"
    title: ClassVar[str] = "SymPy program: both levels and the lower gradients as expressions"
    suffix: ClassVar[str] = ".py"
    consumer: ClassVar[str] = "python {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        found = system(bound)
        columns = found.columns
        write = Writer(bound, TARGET, STYLE, python_names("sp", "variables", "gradients", "x", "y",
                       "F", "f", "G", "g", "SIGN", "inf", *ALL.split()), columns.names)  # fmt: skip
        what = "Both levels as minimisations; rows are (name, expression, low, high)."
        out = docstring(header(bound.program, what))
        made = loops(parts_of_levels(found, move_idle=False), write, SYMPY)
        if made is not None:
            text = "\n".join([*out, *_looped(found, made)])
            tables = packed(made, owner=columns.owner)
            return Files(text + "\n" + TAIL, {".npz": tables})
        out += ["import sympy as sp", "", "inf = float('inf')", f"SIGN = {int(found.sign)}", ""]
        out += [
            f"{n} = sp.Symbol({o!r}, real=True)"
            for n, o in zip(write.names, columns.names, strict=True)
        ]
        out += ["", "# (symbol, low, high, start)", "variables = ["]
        for j, name in enumerate(write.names):
            ends = (float(v[j]) for v in (columns.lower, columns.upper, columns.start))
            out.append(f"    ({name}, {', '.join(repr(e) for e in ends)}),")
        out += ["]", f"x = [{', '.join(write.names[j] for j in found.upper_columns)}]"]
        groups = [
            ", ".join(write.names[j] for j in (columns.owner == k + 1).nonzero()[0])
            for k in range(len(found.followers))
        ]
        out.append(f"y = [{', '.join(f'[{g}]' for g in groups)}]")
        objective = write.function(found.objective, 0, bound.program.upper.objective.span)
        out += ["", f"F = sp.sympify({objective})", "f = ["]
        for k, follower in enumerate(found.followers):
            span = bound.program.level(follower.level).objective.span
            out.append(f"    sp.sympify({write.function(found.lower_objectives, k, span)}),")
        out += ["]", *_rows("G", found.upper_rows, write), *_rows("g", found.lower_rows, write)]
        return Files("\n".join(out) + "\n" + TAIL)


def _rows(name: str, rows: Rows, write: Writer) -> list[str]:
    lines = [
        f"    ({rows.names[line.row]!r}, {line.body}, {line.low!r}, {line.high!r}),"
        for line in write.lines(rows)
    ]
    return [f"{name} = [", *lines, "]"]


def _looped(found: System, made: Loops) -> list[str]:
    """The program in loops over tables."""
    count = len(found.followers)
    out = ["import pathlib", "import types", "", "import numpy as np", "import sympy as sp", ""]
    out += [*TABLES, "", "inf = float('inf')", f"SIGN = {int(found.sign)}"]
    out += ["v = [sp.Symbol(name, real=True) for name in t.name]"]
    out += ["# (symbol, low, high, start)", "variables = list(zip(v, t.low, t.high, t.start))"]
    out += ["x = [s for s, owner in zip(v, t.owner) if owner == 0]"]
    out += [
        f"y = [[s for s, owner in zip(v, t.owner) if owner == k] for k in range(1, {count + 1})]"
    ]
    out += ["# expressions that others share"] if made.definitions else []
    out += [f"{z.label} = [{members(z)[1:-1]}]" for z in made.definitions]
    out += ["", f"F = sp.sympify({made.objective.body})", f"f = [None] * {count}"]
    for f in made.followers:
        out += [f"for k, value in zip(t.{f.label}_follower, {members(f)}):"]
        out += ["    f[k] = sp.sympify(value)"]
    for name, kind in (("G", "upper"), ("g", "lower")):
        out.append(f"{name} = []")
        for r in made.rows:
            if r.kind == kind:
                ends = ", ".join(f"t.{r.label}_{part}" for part in ("low", "high"))
                out.append(f"{name} += zip(t.{r.label}_name, {members(r)}, {ends})")
    return out
